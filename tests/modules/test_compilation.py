"""torch.compile by config: in place, the same numbers and names of weights; what goes wrong is said."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.modules.compilation import compile_network, explain_compilation
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet

OPTIONS = {"part": None, "mode": "default", "dynamic": None, "fullgraph": False}


def network() -> nn.Module:
    torch.manual_seed(0)
    encoder = PlainEncoder(filters=2, blocks=1, norm="none")
    return UNet(encoder, 1, channels=[2], norm="none", mean=128.0, std=11.58)


def test_names_and_parts() -> None:
    plain, compiled = network(), network()
    compile_network(compiled, **{**OPTIONS, "part": "encoder"})
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert compiled.encoder._compiled_call_impl is not None
    assert compiled._compiled_call_impl is None


def test_refusals() -> None:
    with pytest.raises(InputError, match="compile.part=backbone: the network has no such part; it has encoder"):
        compile_network(network(), **{**OPTIONS, "part": "backbone"})
    with pytest.raises(InputError, match="compile.mode=fast: torch.compile knows default, .*reduce-overhead"):
        compile_network(network(), **{**OPTIONS, "mode": "fast"})


def test_an_error_of_the_compiler_is_explained() -> None:
    from torch._dynamo.exc import TorchDynamoException

    class InvalidCompiler(TorchDynamoException):
        __module__ = "torch._inductor.exc"

    wrapped = RuntimeError("in a step")
    wrapped.__cause__ = InvalidCompiler("No working C++ compiler found")
    for error in (InvalidCompiler("No working C++ compiler found\nand more"), wrapped):
        assert "C++ compiler" in str(explain_compilation(error))
        assert "compile=null" in str(explain_compilation(error))
    assert explain_compilation(RuntimeError("shapes")) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_gives_the_same_numbers_and_gradients() -> None:
    plain, compiled = network(), network()
    compile_network(compiled, **OPTIONS)
    for size in (16, 24):
        image = torch.randint(0, 255, (1, 1, size, size), dtype=torch.uint8)
        found = [made(image) for made in (plain, compiled)]
        assert torch.allclose(*found, atol=1e-5)
        for logits in found:
            logits.square().mean().backward()
        for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-5)

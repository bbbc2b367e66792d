"""The networks of a U-Net and of a crop segmenter as ONNX graphs, checked against torch before they are kept."""

from __future__ import annotations

import copy
import itertools
import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.modules.base import SegmentationModule
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.unet import UNet

INPUT, OUTPUT = "image", "maps"  # names in the graph
CROPS, LOGITS = "crops", "logits"  # in that of a crop segmenter
TOLERANCE = 5e-5  # between the graph and torch, of each map: as a share of its largest value where that is above 1
_SIZES = ((1, 2, 3), (2, 1, 1), (3, 4, 2))  # batch, and height and width in multiples of `multiple_of`
_LOG = "onnxscript"


def multiple_of(module: SegmentationModule) -> int:
    """Return what heights and widths of the graph's input must be multiples of, pixels; raises as `write_graph`."""
    network = _network(module)
    for multiple in itertools.count(network.divisor, network.divisor):
        if (multiple * network.scale / network.divisor).is_integer():
            return multiple
        if multiple >= 16 * network.divisor:
            raise InputError(
                f"model.network.scale={network.scale}: no size of images in tiles of up to {multiple} px is enlarged "
                "to one that the network takes; only bundles hold such a model (format=bundle)"
            )
    raise AssertionError


def write_graph(module: SegmentationModule, path: str | Path, *, activated: bool = True) -> None:
    """Write the network of a U-Net as an ONNX graph of one file, atomically.

    Input `image`: float32 [B, 1, H, W], grey levels 0..255; any B, H and W multiples of `multiple_of`. Output `maps`:
    float32 [B, C, H, W], the channels of `module.layout`: foreground, border and centre as probabilities, offset in
    pixels (dy, dx), types as probabilities that sum to 1. Normalisation and the network's own enlargement are inside.

    activated: False writes what a decoder of its own starts from: logits, without the enlargement (H and W are
    multiples of the network's divisor), and without a normalisation by each image's own statistics, since these are
    taken before an image is padded; a network with fixed grey levels keeps it.

    Raises InputError for a module without such a network, one that cannot be expressed in ONNX, and where onnxruntime's
    output for several batches and sizes is not torch's within TOLERANCE; no file is left then.
    """
    multiple = multiple_of(module) if activated else _network(module).divisor
    assert isinstance(module, UNetModule)
    graph = MapsGraph(module, activated).eval()
    sizes = {0: Dim("batch"), 2: multiple * Dim("rows"), 3: multiple * Dim("columns")}
    example = torch.zeros(2, 1, 2 * multiple, 3 * multiple)
    with atomic_path(Path(path)) as temporary:
        _export(graph, temporary, example, sizes, (INPUT, OUTPUT))
        _check(graph.expected, temporary, _images(graph.source, multiple), str(path))


def write_crop_graph(module: CropSegmenterModule, path: str | Path) -> None:
    """Write the network of a crop segmenter as an ONNX graph of one file, atomically.

    Input `crops`: float32 [B, 1 (2 with prompt), S, S], as `CropNetwork.crops` makes them, any B from 1. Output
    `logits`: float32 [B, 2, S, S]. Raises InputError as `write_graph` does.
    """
    network = module.network
    shape = (2 if network.prompt else 1, network.size, network.size)
    with atomic_path(Path(path)) as temporary:
        _export(network.body, temporary, torch.zeros(2, *shape), {0: Dim("batch")}, (CROPS, LOGITS))
        _check(network.body, temporary, _crops(shape), str(path))


class MapsGraph(nn.Module):
    """The exported function of images [B, 1, H, W].

    source: the network that it stands for.
    """

    def __init__(self, module: UNetModule, activated: bool) -> None:
        super().__init__()
        self.source = copy.deepcopy(_network(module))
        if not activated:
            self.source.scale = 1.0
            if None in (self.source.mean, self.source.std):
                self.source.mean, self.source.std = 0.0, 1.0
        self.network = copy.deepcopy(self.source)
        _pad_statically(self.network)
        self.activate = module.activate if activated else None

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output of `write_graph`."""
        return self._maps(self.network(images))

    def expected(self, images: Tensor) -> Tensor:
        """Compute what the graph must give, by the unchanged network."""
        return self._maps(self.source(images))

    def _maps(self, logits: Tensor) -> Tensor:
        if self.activate is None:
            return logits
        maps = self.activate(logits.transpose(0, 1))  # channels first, as of one image
        return torch.cat(list(maps.values())).transpose(0, 1)


def _network(module: SegmentationModule) -> UNet:
    if isinstance(module, UNetModule) and isinstance(module.network, UNet):
        return module.network
    raise InputError(f"a {type(module).__name__} has no network of dense maps; only a U-Net is written as ONNX")


def _pad_statically(module: nn.Module) -> None:
    """Replace timm's convolutions that pad by the size of their input with those that pad alike for multiples of their
    stride: sizes in symbols, as an export has them, would grow into terms that take minutes to simplify."""
    for name, child in module.named_children():
        if not isinstance(child, Conv2dSame):
            _pad_statically(child)
            continue
        extent = zip(child.kernel_size, child.stride, child.dilation, strict=True)
        missing = [max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in extent]
        rows, columns = ((pixels // 2, pixels - pixels // 2) for pixels in missing)
        conv = nn.Conv2d(
            child.in_channels, child.out_channels, child.kernel_size, child.stride,  # type: ignore[arg-type]
            dilation=child.dilation, groups=child.groups, bias=child.bias is not None,  # type: ignore[arg-type]
        )  # fmt: skip
        conv.weight, conv.bias = child.weight, child.bias
        setattr(module, name, nn.Sequential(nn.ZeroPad2d((*columns, *rows)), conv))


def _export(graph: nn.Module, path: Path, example: Tensor, sizes: Mapping[int, Any], names: tuple[str, str]) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"writing ONNX needs {error.name}; pip install 'sartorius[onnx]'") from error
    logging.getLogger(_LOG).setLevel(logging.WARNING)
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                graph, (example,), dynamo=True, dynamic_shapes=(sizes,), verbose=False,
                input_names=names[:1], output_names=names[1:], external_data=False,
            )  # fmt: skip
        assert program is not None
        program.save(path)
    except Exception as error:  # torch.export, onnxscript and onnx raise dozens of kinds
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        reason = textwrap.shorten(str(root), 200, placeholder="...")
        raise InputError(
            f"the network cannot be written as ONNX ({type(root).__name__}: {reason}); write format=bundle, or train "
            "with another encoder"
        ) from error


def _images(network: UNet, multiple: int) -> Iterator[Tensor]:
    """Make noise and a flat image of several sizes, grey levels."""
    rng = np.random.default_rng(0)
    mean, std = network.mean or 128.0, network.std or 30.0
    for batch, rows, columns in _SIZES:
        images = rng.normal(mean, std, (batch, 1, rows * multiple, columns * multiple)).clip(0, 255).astype(np.float32)
        images[1:2] = mean
        yield torch.from_numpy(images)


def _crops(shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """Make batches of noise and a flat crop, the last channel of two a box."""
    generator = torch.Generator().manual_seed(0)
    for batch, *_ in _SIZES:
        crops = torch.randn((batch, *shape), generator=generator)
        crops[1:2] = 0
        if shape[0] == 2:
            crops[:, 1] = 0
            crops[:, 1, shape[1] // 4 : -shape[1] // 4, shape[2] // 3 : -shape[2] // 3] = 1
        yield crops


@torch.no_grad()
def _check(network: Callable[[Tensor], Tensor], path: Path, inputs: Iterator[Tensor], name: str) -> None:
    """Raise InputError unless the written graph gives the output of the network for these inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for given in inputs:
        wanted = network(given).numpy()
        (written,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        largest = np.abs(wanted).max(axis=(0, 2, 3), initial=1)
        apart = (np.abs(written - wanted).max(axis=(0, 2, 3)) / largest).max()
        if not apart <= TOLERANCE:
            raise InputError(
                f"{name}: not written, onnxruntime's output for {tuple(given.shape)} differs from torch's by "
                f"{apart:.1e}, expected {TOLERANCE:.0e} at most; write format=bundle"
            )

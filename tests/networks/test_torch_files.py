"""Files of weights that are damaged, broken or made to do harm."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sartorius.errors import InputError
from sartorius.networks.allocation import SPARE_NUMBERS
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.networks.weight_files import read_weights
from sartorius.running import building, loading, wiring
from tests.doubles import toy_config
from tests.networks import hostile


def save(path: Path, **weights: Any) -> Path:
    module = building.build_module(toy_config())
    torch.save({"state_dict": {**module.state_dict(), **weights}, KEY: dict(module.hparams)}, path)
    return path


@pytest.mark.parametrize("member", ["data/1", "data.pkl", "version"])
def test_zeroed_bytes_are_found(tmp_path: Path, member: str) -> None:
    path = save(tmp_path / "a.ckpt", more=torch.rand(1000))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"a/{member}")
    content = bytearray(path.read_bytes())
    start = (
        info.header_offset + 30 + int.from_bytes(content[info.header_offset + 28 :][:2], "little") + len(info.filename)
    )
    assert any(content[start : start + info.file_size])
    content[start : start + info.file_size] = bytes(info.file_size)
    path.write_bytes(content)
    problem = f"a.ckpt: damaged, its part a/{member} does not have the sum it was written with"
    for read in (read_checkpoint, loading.load_module, read_weights):
        with pytest.raises(InputError, match=problem):
            read(path)


def test_a_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.ckpt").read_bytes()
    for size in range(0, len(whole), 101):
        (tmp_path / "b.ckpt").write_bytes(whole[:size])
        with pytest.raises(InputError, match="b.ckpt: "):
            read_checkpoint(tmp_path / "b.ckpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_numbers_are_named(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    broken = torch.ones(2, 3, dtype=dtype)
    broken[1] = value
    path = save(tmp_path / "a.ckpt", broken=broken)
    for read in (read_checkpoint, loading.load_module, read_weights):
        with pytest.raises(InputError, match="a.ckpt: 3 of 6 numbers of 'broken' are NaN or infinite"):
            read(path)


def test_what_fills_the_memory_is_refused(tmp_path: Path) -> None:
    """In a process of its own, for the peak of this one may be higher already."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.networks.hostile", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *lines = printed.splitlines()
    read = [re.fullmatch(r"(.+): (\d+) MB, .* s: \S+: .+", line) for line in lines]
    assert all(read), printed
    found = {match[1]: int(match[2]) for match in read if match}
    assert {*hostile.MODELS} < {*found} and len(found) == len(hostile.MODELS) + 2 * 9 + 3
    spare = 4 * SPARE_NUMBERS // 10**6  # MB; what building a model may take beside its weights
    assert all(taken < 150 + spare * (name in hostile.MODELS) for name, taken in found.items()), printed


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=maskrcnn_r18", "model.network.roi_heads.score=0.2"],
        ["experiment=maskrcnn_timm", "model.network.backbone.name=resnet10t"],
        ["experiment=unet_cpu"],
        ["experiment=unet_livecell", "optimizer=sgd", "scheduler=one_cycle"],
        ["experiment=cropseg_cpu", "scheduler=warmup_steps"],
    ],
)
def test_the_shipped_models_come_back(tmp_path: Path, overrides: list[str]) -> None:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        model = wiring.plain(compose("train", overrides).model)
    module = building.build_module(OmegaConf.create({"seed": 0, "model": model}))
    torch.save({"state_dict": module.state_dict(), KEY: dict(module.hparams)}, tmp_path / "a.ckpt")
    loaded = loading.load_module(tmp_path / "a.ckpt")
    assert type(loaded) is type(module) and str(loaded) == str(module)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, module.state_dict()[name], rtol=0, atol=0)

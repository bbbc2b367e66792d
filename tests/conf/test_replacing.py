"""Parts of a config replaced or added from the command line, and a backbone of timm added by a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sartorius.running import building, wiring

GAMMA = "{_target_: albumentations.RandomGamma, gamma_limit: [80, 120], p: 0.5}"


def transforms(*overrides: str) -> dict[str, str]:
    built = wiring.plain(wiring.compose("train", list(overrides)).transform.transforms)
    return {name: part["_target_"].rpartition(".")[2] for name, part in built.items() if part is not None}


def test_one_transform_is_replaced_by_another_kind() -> None:
    found = transforms("~transform.transforms.brightness", f"+transform.transforms.brightness={GAMMA}")
    assert found == {"turn": "D4", "affine": "Affine", "brightness": "RandomGamma"}


def test_all_transforms_are_replaced() -> None:
    assert transforms("~transform.transforms", f"+transform.transforms={{gamma: {GAMMA}}}") == {"gamma": "RandomGamma"}


def test_one_is_added_and_one_left_out() -> None:
    found = transforms("transform.transforms.affine=null", f"+transform.transforms.gamma={GAMMA}")
    assert found == {"turn": "D4", "brightness": "ColorJitter", "gamma": "RandomGamma"}


def test_a_callback_is_replaced_by_another_kind() -> None:
    timer = "{_target_: pytorch_lightning.callbacks.Timer, duration: '00:01:00:00'}"
    cfg = wiring.compose("train", ["~callbacks.early_stopping", f"+callbacks.early_stopping={timer}"])
    assert type(wiring.instantiate(cfg.callbacks.early_stopping)).__name__ == "Timer"
    assert cfg.callbacks.best_checkpoint.filename == "best"


def test_all_callbacks_are_replaced() -> None:
    bar = "{_target_: pytorch_lightning.callbacks.TQDMProgressBar}"
    assert list(wiring.compose("train", ["~callbacks", f"+callbacks.bar={bar}"]).callbacks) == ["bar"]


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
@pytest.mark.parametrize(("name", "devices"), [("cpu", 1), ("gpu", 1), ("ddp", "auto")])
def test_trainers_of_every_command_with_a_network(command: str, name: str, devices: int | str) -> None:
    cfg = wiring.compose(command, [f"trainer={name}"])
    assert cfg.trainer.devices == devices
    assert cfg.trainer.accelerator == (name if name in ("cpu", "gpu") else "auto")


def test_a_backbone_of_timm_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(wiring.CONF_DIR, conf)
    (conf / "backbone" / "mobile.yaml").write_text("defaults: [timm, _self_]\nname: mobilenetv3_small_050\n")
    monkeypatch.setattr(wiring, "CONF_DIR", conf)
    cfg = wiring.compose("train", ["model=maskrcnn_timm", "backbone@model.network.backbone=mobile"])
    module = building.build_module(cfg)
    assert "MobileNetV3" in {type(part).__name__.removesuffix("Features") for part in module.modules()}
    assert module.hparams["model"]["network"]["backbone"]["name"] == "mobilenetv3_small_050"

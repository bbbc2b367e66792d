"""Configs and models in Python, without a command: as a notebook uses them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from sartorius.running import building, wiring
from tests.conf.test_conf import required
from tests.layers import commands

CONF = wiring.CONF_DIR


@pytest.fixture(autouse=True)
def no_command() -> Iterator[None]:
    HydraConfig.instance().cfg = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Lightning: no GPU is used, few workers
        yield


def test_a_module_its_data_and_an_image(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = wiring.compose("train", ["experiment=unet_cpu", f"data.root={tiny_competition}", "data.n_folds=4"])
    training = building.build_training(cfg)
    training.datamodule.setup("fit")
    batch = next(iter(training.datamodule.val_dataloader()))
    with torch.inference_mode():
        detections = training.module.eval().predict_step(batch, 0)[0]
    assert (detections.height, detections.width) == (48, 64)
    assert training.trainer.max_epochs == 50
    assert Path(cfg.run_dir).parent == Path("runs") and cfg.run_dir.endswith("_UNetModule_fold0_seed0")


@pytest.mark.parametrize("command", commands(CONF.parent))
def test_hydras_own_compose_resolves(command: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        needed = required(OmegaConf.to_container(hydra.compose(command)))
        cfg = hydra.compose(command, [f"{key}=a" for key in needed])
    OmegaConf.to_container(cfg, resolve=True)
    assert not HydraConfig.initialized()


def test_a_group_is_left_out_by_null() -> None:
    assert wiring.compose("train", ["cleaning=null"]).data.cleaning is None
    assert wiring.compose("train").data.cleaning.holes

"""A timm network becomes a backbone, or an encoder, by one YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from sartorius.running import wiring


@pytest.mark.parametrize(
    ("group", "place", "model"),
    [("backbone", "network.backbone", "maskrcnn_timm"), ("encoder", "network.encoder", "unet_effb0")],
)
def test_a_timm_network_takes_one_file(group: str, place: str, model: str, tmp_path: Path) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("defaults: [timm, _self_]\nname: resnet10t\n")
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        choices = [f"hydra.searchpath=[file://{tmp_path}]", f"model={model}", f"{group}@model.{place}=mine"]
        cfg = compose("train", choices)
    part = wiring.instantiate(cfg.model.network[group])
    features = part(torch.zeros(1, 1, 64, 64))
    levels = list(features.values()) if isinstance(features, dict) else features
    finest = 16 if group == "backbone" else 32
    assert [level.shape[-1] for level in levels] == [finest // 2**k for k in range(5)]

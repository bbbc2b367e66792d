"""Stages of every kind of backbone, and the parameter groups that come of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.modules.lr_decay import LRDecay, backbone_depths
from sartorius.modules.optimisation import configure
from sartorius.networks.backbones import ResNetPyramid
from sartorius.networks.encoders import PlainEncoder


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)


def test_stages_of_torchvisions_resnet() -> None:
    depths = backbone_depths(Detector(ResNetPyramid("resnet18", "group", 5)))
    for name, depth in (
        ("conv1.weight", 0), ("bn1.weight", 0), ("layer1.0.conv1.weight", 1), ("layer2.0.downsample.0.weight", 2),
        ("layer3.1.bn2.bias", 3), ("layer4.1.conv2.weight", 4),
    ):  # fmt: skip
        assert depths[f"backbone.body.{name}"] == depth
    assert not any("fpn" in name or "head" in name for name in depths)


@pytest.mark.parametrize(
    ("name", "levels", "stages", "places"),
    [
        ("resnet10t", 5, 5, {"conv1.0.weight": 0, "layer1.0.conv1.weight": 1, "layer4.0.conv1.weight": 4}),
        ("resnet10t", 3, 3, {"layer2.0.conv1.weight": 2}),
        ("efficientnet_b0", None, 6, {"conv_stem.weight": 0, "bn1.bias": 0, "blocks.0.0.conv_dw.weight": 1,
                                      "blocks.3.0.conv_pw.weight": 4, "blocks.4.0.conv_pw.weight": 4}),
        ("convnext_atto", None, 5, {"stem_0.weight": 0, "stages_0.blocks.0.gamma": 1}),
        ("vit_tiny_patch16_224", None, 13, {"model.pos_embed": 0, "model.patch_embed.proj.weight": 0,
                                            "model.blocks.0.attn.qkv.weight": 1, "model.blocks.11.mlp.fc2.bias": 12}),
    ],
)  # fmt: skip
def test_stages_of_timms_networks(name: str, levels: int | None, stages: int, places: dict[str, int]) -> None:
    options = {} if levels is None else {"out_indices": tuple(range(levels))}
    encoder = nn.Module()
    with torch.device("meta"):
        encoder.body = timm.create_model(name, features_only=True, **options)
    depths = backbone_depths(encoder)
    assert set(depths) == {f"body.{name}" for name, _ in encoder.body.named_parameters()}
    assert sorted(set(depths.values())) == list(range(stages))
    assert {name: depths[f"body.{name}"] for name in places} == places


def test_stages_of_the_plain_encoder() -> None:
    depths = backbone_depths(PlainEncoder(filters=2, blocks=2, norm="none"))
    assert {name.split(".")[1]: depth for name, depth in depths.items()} == {"0": 0, "1": 1, "2": 2}


def test_factors() -> None:
    module = Detector(ResNetPyramid("resnet18", "group", 5))
    assert LRDecay(per_stage=1.0, backbone=1.0).factors(module) == {}
    factors = LRDecay(per_stage=0.5, backbone=0.1).factors(module)
    assert factors["backbone.body.layer4.0.conv1.weight"] == pytest.approx(0.1 * 0.5)
    assert factors["backbone.body.conv1.weight"] == pytest.approx(0.1 * 0.5**5)
    assert "head.weight" not in factors


def test_groups_have_their_rates_and_no_decay_where_it_does_not_belong() -> None:
    module: Any = Detector(ResNetPyramid("resnet18", "group", 3))  # conv1, bn1 and layer1 are frozen
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)
    built = configure(module, adamw, None, LRDecay(per_stage=0.5, backbone=0.2))
    rate_of = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    decay_of = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    names = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert set(rate_of) == {id(p) for p in names.values()}
    for name, p in names.items():
        stage = int(name.split("layer")[1][0]) if ".layer" in name and ".body." in name else None
        assert rate_of[id(p)] == pytest.approx(0.1 if stage is None else 0.1 * 0.2 * 0.5 ** (5 - stage)), name
        assert decay_of[id(p)] == (0.5 if p.ndim > 1 else 0.0)


def test_a_schedule_keeps_the_ratio() -> None:
    from sartorius.modules.schedules import warmup_constant

    module: Any = Detector(PlainEncoder(filters=2, blocks=1, norm="none"))
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)
    built = configure(module, adamw, lambda o, total_steps: warmup_constant(o, total_steps, 1), LRDecay(0.5, 1.0))
    rates = sorted({group["lr"] for group in built["optimizer"].param_groups})
    assert rates == pytest.approx([0.1 * 0.5 * 0.25, 0.1 * 0.5 * 0.5, 0.1 * 0.5])


def test_without_effect_the_groups_are_as_without_it() -> None:
    module: Any = Detector(ResNetPyramid("resnet18", "group", 4))
    groups = [
        [
            {"params": [id(p) for p in g["params"]], "lr": g["lr"], "decay": g["weight_decay"]}
            for g in built.param_groups
        ]
        for built in (configure(module, adamw, None), configure(module, adamw, None, LRDecay(1.0, 1.0)))
    ]
    assert groups[0] == groups[1]
    assert len(groups[0]) == 2
    learning = [p for p in module.parameters() if p.requires_grad]
    assert groups[0][0]["params"] == [id(p) for p in learning if p.ndim > 1]


def test_refusals() -> None:
    for options in ({"per_stage": 0.0, "backbone": 1.0}, {"per_stage": 1.0, "backbone": 1.5}):
        with pytest.raises(InputError, match="expected above 0, at most 1"):
            LRDecay(**options)
    with pytest.raises(InputError, match="no backbone whose stages are known"):
        LRDecay(0.5, 1.0).factors(nn.Linear(2, 2))

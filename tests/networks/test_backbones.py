"""Backbones: every family trains and predicts, with the levels, norms and frozen stages that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from sartorius.errors import InputError
from sartorius.networks.backbones import ResNetPyramid, norm_groups, norm_layer
from sartorius.networks.timm_backbone import TimmPyramid

from .conftest import target_of, tiny_network

FAMILIES = [
    "resnet10t",
    "resnext26ts",
    "resnest14d",
    "tf_efficientnetv2_b0",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
]


def timm_backbone(name: str, norm: str = "group", trainable_layers: int = 5, **options: Any) -> TimmPyramid:
    given = {"weights": "none", "in_channels": 1, "finest_stride": 4, "checkpoint_activations": False, **options}
    return TimmPyramid(name, norm=norm, trainable_layers=trainable_layers, channels=32, **given)


def torch_backbone(norm: str = "group", trainable_layers: int = 5, name: str = "resnet18", **options: Any) -> nn.Module:
    return ResNetPyramid(name, norm, trainable_layers, 32, **options)


def step(network: nn.Module, example: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss and the gradients of one training step, with the same random samples each time."""
    image, instances = example
    torch.manual_seed(1)
    loss = torch.stack(list(network([image], [target_of(instances)]).values())).sum()
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    return loss.detach(), [p.grad for p in network.parameters() if p.grad is not None]


def count_calls(body: nn.Module) -> dict[str, int]:
    """How often each convolution and linear layer will have been called, by name."""
    calls: dict[str, int] = {}
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    return calls


def with_and_without(build: Callable[..., nn.Module], **options: Any) -> list[nn.Module]:
    """The same small detector twice: with all activations kept, and with them computed again."""
    networks = []
    for again in (False, True):
        torch.manual_seed(0)
        networks.append(tiny_network(backbone=build(checkpoint_activations=again, **options)))
    return networks


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_and_predicts(name: str, example: Any) -> None:
    """One step, the same with activations computed again; then predictions in half precision."""
    plain, again = with_and_without(timm_backbone, name=name)
    calls = [count_calls(network.backbone.body) for network in (plain, again)]
    (loss, gradients), (loss_again, gradients_again) = step(plain, example), step(again, example)
    torch.testing.assert_close(loss_again, loss)
    torch.testing.assert_close(gradients_again, gradients, rtol=1e-4, atol=1e-5)
    assert sum(calls[0].values()) < sum(calls[1].values())
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert 0 < norm < 1000  # flat parts of an image do not let it explode
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = plain.eval()([example[0]])[0]
    assert len(found.boxes) == 20
    assert torch.isfinite(found.boxes).all() and torch.isfinite(found.masks).all()
    assert found.boxes[:, 2].max() <= 90


def test_torchvisions_resnet_gives_the_same_with_activations_computed_again(example: Any) -> None:
    plain, again = with_and_without(torch_backbone)
    assert plain.state_dict().keys() == again.state_dict().keys()
    calls = [count_calls(network.backbone.body) for network in (plain, again)]
    (loss, gradients), (loss_again, gradients_again) = step(plain, example), step(again, example)
    assert torch.equal(loss, loss_again)
    torch.testing.assert_close(gradients_again, gradients)
    stage = {name: n for name, n in calls[0].items() if name.startswith("layer")}
    assert {name: n for name, n in calls[1].items() if name.startswith("layer")} == dict.fromkeys(stage, 2)
    assert set(calls[0].values()) == {1} == {calls[1]["conv1"]}


BACKBONES = {
    "torchvision": torch_backbone,
    "timm": lambda **options: timm_backbone("resnet10t", **options),
    "patches": lambda **options: timm_backbone("convnext_atto", **options),
    "windows": lambda **options: timm_backbone("swin_tiny_patch4_window7_224", **options),
}


@pytest.mark.parametrize("build", BACKBONES.values(), ids=BACKBONES)
def test_no_stride_in_the_stem_makes_every_level_twice_as_fine(build: Callable[..., nn.Module]) -> None:
    backbone = build(finest_stride=2)
    assert backbone.strides == (2, 4, 8, 16, 32)
    with torch.no_grad():
        levels = backbone.eval()(torch.zeros(1, getattr(backbone, "in_channels", 3), 64, 96))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [(32, 64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    network = tiny_network(backbone=backbone)
    assert network.roi_heads.box_align.strides == network.roi_heads.mask_align.strides == (2, 4, 8, 16)
    anchors = network.rpn.anchors(list(levels.values()), (64, 96))
    centres = [(level[:, :2] + level[:, 2:]) / 2 for level in anchors]
    assert [(c[1] - c[0]).tolist() for c in centres] == [[s, 0] for s in (2, 4, 8, 16, 32)]
    assert [c[0].tolist() for c in centres] == [[s / 2, s / 2] for s in (2, 4, 8, 16, 32)]
    with pytest.raises(
        InputError, match=r"box_align.strides=\[4, 8, 16, 32\], but .* have strides \[2, 4, 8, 16, 32\]"
    ):
        tiny_network(backbone=backbone, strides=[4, 8, 16, 32])


def test_a_network_of_one_reduction_is_spread_and_pooled_to_five_levels() -> None:
    backbone = timm_backbone("vit_small_patch16_dinov3")
    assert backbone.strides == (4, 8, 16, 32, 64)
    assert list(backbone(torch.zeros(1, 1, 64, 96))) == ["0", "1", "2", "pool", "pool1"]
    with pytest.raises(InputError, match="name=vit_small_patch16_dinov3: it does not give a pyramid from stride 2"):
        timm_backbone("vit_small_patch16_dinov3", finest_stride=2)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnetv2_b0", "resnest14d"])
def test_norms_are_replaced_with_their_activations(name: str) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name, features_only=True, in_chans=1)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in source.modules())
    frozen, group = timm_backbone(name, "frozen_batch"), timm_backbone(name, "group")
    for backbone, kind in (
        (frozen, FrozenBatchNorm2d),
        (group, nn.GroupNorm),
        (timm_backbone(name, "batch"), nn.BatchNorm2d),
    ):
        kinds = [
            type(m) for m in backbone.body.modules() if "Norm" in type(m).__name__ and "Drop" not in type(m).__name__
        ]
        assert len(kinds) == count
        assert all(
            issubclass(found, kind) or ("Frozen" in kind.__name__ and "Frozen" in found.__name__) for found in kinds
        )
    frozen.body.body.load_state_dict(source.state_dict(), strict=False)
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(frozen.train().body(x), source.eval()(x), rtol=1e-4, atol=1e-4)
    activations = [
        sum(isinstance(m, nn.SiLU | nn.ReLU) for m in b.modules()) for b in (source, frozen.body, group.body)
    ]
    assert activations[0] == activations[1] == activations[2] > 0


def test_groups_divide_the_channels() -> None:
    assert [norm_groups(c) for c in (1, 15, 16, 24, 32, 40, 56, 64, 112, 113, 256)] == [
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        4,
        7,
        1,
        16,
    ]
    assert all(c % norm_groups(c) == 0 and c // norm_groups(c) >= min(c, 16) for c in range(1, 300))
    with pytest.raises(ValueError, match="norm='layer'"):
        norm_layer("layer")
    with pytest.raises(ValueError, match="norm='layer'"):
        timm_backbone("convnext_atto", "layer")


@pytest.mark.parametrize(
    ("name", "learning", "frozen"),
    [
        ("resnet10t", 5, set()),
        ("resnet10t", 3, {"conv1", "bn1", "layer1"}),
        ("resnet10t", 0, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
        ("convnext_atto", 4, {"stem_0", "stem_1"}),
        ("convnext_atto", 2, {"stem_0", "stem_1", "stages_0", "stages_1"}),
        ("tf_efficientnetv2_b0", 3, {"conv_stem", "bn1", "blocks.0", "blocks.1"}),
        ("tf_efficientnetv2_b0", 1, {"conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"}),
    ],
)
def test_stages_are_frozen_from_the_stem_on(name: str, learning: int, frozen: set[str]) -> None:
    body = timm_backbone(name, trainable_layers=learning).body.body

    def part(parameter: str) -> str:
        first, second = parameter.split(".")[:2]
        return f"blocks.{second}" if first == "blocks" else first

    parts: dict[str, set[bool]] = {}
    for parameter, value in body.named_parameters():
        parts.setdefault(part(parameter), set()).add(value.requires_grad)
    assert all(len(kinds) == 1 for kinds in parts.values())
    assert {name for name, kinds in parts.items() if kinds == {False}} == frozen


def test_the_first_convolution_of_a_bottleneck_may_step() -> None:
    body = ResNetPyramid("resnet50", "batch", 5, stride_in_1x1=True).body
    strides = [(block[0].conv1.stride, block[0].conv2.stride) for block in (body.layer1, body.layer2, body.layer3)]
    assert strides == [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 2), (1, 1))]
    assert body.layer2[1].conv1.stride == (1, 1)
    assert ResNetPyramid("resnet50", "batch", 5).body.layer2[0].conv2.stride == (2, 2)


def test_grey_with_summed_weights_is_grey_three_times(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t", in_chans=3).state_dict(), tmp_path / "w.pth")
    one, three = (
        timm_backbone("resnet10t", "frozen_batch", weights=str(tmp_path / "w.pth"), in_channels=c) for c in (1, 3)
    )
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(one.body(x), three.body(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_had_is_said_with_its_key(tmp_path: Path) -> None:
    key = r"model\.network\.backbone"
    with pytest.raises(
        InputError, match=rf"{key}.name=convnext_tinny: timm knows no such network; near ones: .*convnext_tiny"
    ):
        timm_backbone("convnext_tinny")
    with pytest.raises(InputError, match=rf"{key}.weights=.*none.pth: no such file"):
        timm_backbone("resnet10t", weights=str(tmp_path / "none.pth"))
    with pytest.raises(InputError, match=rf"{key}.name=maxvit_rmlp_pico_rw_256: .* got none; choose another network"):
        timm_backbone("maxvit_rmlp_pico_rw_256")
    for build in (torch_backbone, lambda **options: timm_backbone("resnet10t", **options)):
        with pytest.raises(InputError, match=rf"{key}.trainable_layers=6, expected 0 \(none learns\) to 5"):
            build(trainable_layers=6)
        with pytest.raises(InputError, match=rf"{key}.finest_stride=8, expected 4, or 2"):
            build(finest_stride=8)


def test_a_network_that_cannot_compute_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("timm.models._features.FeatureDictNet.set_grad_checkpointing")
    with pytest.raises(InputError, match=r"checkpoint_activations=true: timm's resnet10t cannot"):
        timm_backbone("resnet10t", checkpoint_activations=True)


def test_anchors_of_another_number_of_levels() -> None:
    backbone = torch_backbone()
    backbone.strides = (4, 8, 16, 32)
    with pytest.raises(
        InputError, match=r"anchors.sizes: 5 lists, but the backbone has 4 levels, of strides \[4, 8, 16"
    ):
        tiny_network(backbone=backbone)

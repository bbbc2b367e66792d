"""Detections that a limit leaves out are told, and an output that is NaN is an error, not an image without cells."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sartorius.callbacks.prediction_writer import PredictionWriter
from sartorius.errors import InputError
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.mask_rcnn import MaskRCNN
from sartorius.networks.unet import UNet
from sartorius.postprocess import steps
from sartorius.postprocess.decoders import Components
from sartorius.structures.detections import DetectionsFolder
from tests.networks.conftest import tiny_network
from tests.postprocess import shapes
from tests.postprocess.pipelines import pipeline


def batch(*images: str) -> Any:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(100, 156, (1, 64, 96)).astype(np.uint8))
    return SimpleNamespace(
        images=[pixels for _ in images],
        targets=[SimpleNamespace(image_id=name, scale=1.0, pixel_size=None) for name in images],
    )


def mask_rcnn(network: MaskRCNN) -> MaskRCNNModule:
    torch.manual_seed(0)
    built = MaskRCNNModule(network, torch.optim.AdamW, cell_type_names=["shsy5y", "astro", "cort"])
    return built.eval()


@torch.no_grad()
def test_images_with_more_detections_than_are_kept_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny_network(score=0.0, detections=1000)
    all_of_them, module = mask_rcnn(network).predict_step(batch("a"), 0)[0], mask_rcnn(network)
    assert len(all_of_them) > 4
    network.roi_heads.detections = 4
    writer, trainer = PredictionWriter(tmp_path), SimpleNamespace(is_global_zero=True)
    writer.on_predict_batch_end(trainer, module, found := module.predict_step(batch("b", "a"), 0), None)
    assert [len(image) for image in found] == [4, 4]
    assert DetectionsFolder(tmp_path).meta["export_settings"]["detections"] == 4
    with caplog.at_level(logging.WARNING):
        writer.on_predict_end(trainer, module)
    (told,) = caplog.messages
    assert "more detections than the 4 best that are kept: in 2 images (a, b), up to " in told
    assert (
        f" {len(all_of_them)} in b; inference=tiles keeps 4 of each tile" in told
        and "model.network.roi_heads.detections=" in told
    )
    caplog.clear()
    network.roi_heads.detections = 30
    writer.on_predict_batch_end(trainer, module, module.predict_step(batch("c"), 0), None)
    writer.on_predict_end(trainer, module)
    assert not caplog.messages and module.take_capped() is None


def test_a_limit_of_post_processing_is_told_once_an_image(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps, "_told", set())  # other tests meet the limit too
    boxes = [[float(k), 0, k + 8.0, 8] for k in range(0, 50, 10)]
    found = shapes.detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.1])
    with caplog.at_level(logging.WARNING):
        assert len(pipeline(max_detections=4, score=0.5)(found)) == 4, "the step before drops the fifth"
        assert not caplog.messages
        for _ in range(2):
            assert len(pipeline(max_detections=3, score=0.5)(found)) == 3
    (told,) = caplog.messages
    assert told == "image image_id: of 4 detections the 3 best are kept; postprocess.max_detections.count= raises it"


@pytest.mark.parametrize(
    ("part", "output"),
    [
        ("backbone.fpn.layer_blocks.0.0.bias", "proposals"),
        ("rpn.head.cls_logits.bias", "proposals"),
        ("rpn.head.bbox_pred.bias", "proposals"),
        ("roi_heads.box_predictor.cls_score.bias", "boxes"),
        ("roi_heads.box_predictor.bbox_pred.bias", "boxes"),
        ("roi_heads.mask_predictor.mask_fcn_logits.bias", "masks"),
    ],
)
@torch.no_grad()
def test_nan_of_a_mask_rcnn_is_an_error(part: str, output: str) -> None:
    network = tiny_network(norm="frozen_batch")
    network.get_parameter(part)[...] = float("nan")
    with pytest.raises(
        InputError, match=f"image a: {output}: the network's output is NaN or infinite, which would pass"
    ):
        mask_rcnn(network).predict_step(batch("a"), 0)


@torch.no_grad()
def test_nan_of_a_unet_is_an_error() -> None:
    layout = MapLayout(types=0, centre=False)
    network = UNet(PlainEncoder(4, 2, "none"), layout, channels=[8, 4], norm="none", mean=128, std=10)
    module = UNetModule(network, layout, Components(0.5, 1), torch.optim.AdamW).eval()
    module.predict_step(batch("a"), 0)
    assert isinstance(network.head.bias, nn.Parameter)
    network.head.bias[...] = float("inf")
    with pytest.raises(InputError, match="image a: the network's output is NaN or infinite"):
        module.predict_step(batch("a"), 0)

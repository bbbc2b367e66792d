"""Images that are read by regions: the detections and cells are those of the image in memory."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from sartorius.data.dataset import Target
from sartorius.inference.windows import Tiles
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.postprocess.blocks import finalise_by_blocks
from sartorius.postprocess.decoders import Components, OffsetVoting, Watershed
from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.structures.large_image import LargeImage
from tests.bright_unet import Brightness, blobs
from tests.inference.perfect import coded, detector
from tests.postprocess.pipelines import pipeline
from tests.postprocess.test_blocks import labels_of

TILES = Tiles(96, 32, margin=12, batch=4, join_iou=0.5)
DECODERS = {
    "watershed": Watershed(0.3, 0.0, 1.0, 0.02, 0.3, 20),
    "offset voting": OffsetVoting(0.5, 1.0, 0.1, 20, largest_piece=True),
    "components": Components(0.7, 20),
}


def unet(decoder: str = "watershed") -> UNetModule:
    layout = MapLayout(types=3, border=2, offset_scale=8.0)
    return UNetModule(Brightness(), layout, DECODERS[decoder], torch.optim.AdamW, inference=TILES).eval()


def detect(module: Any, image: Any) -> Detections:
    target = Target.from_instances("p", 0, Instances.empty(1, 1))
    with torch.inference_mode():
        (detections,) = module.detect(SimpleNamespace(images=[image], targets=[target]))
    return detections


def large(pixels: GreyImage, block: int = 200, halo: int = 96) -> LargeImage:
    def read(rows: slice, columns: slice) -> GreyImage:
        assert rows.stop - rows.start <= TILES.size and columns.stop - columns.start <= TILES.size
        return pixels[rows, columns]

    return LargeImage(*pixels.shape, read, Blocks(1, block, halo))


@pytest.mark.parametrize("decoder", DECODERS)
def test_cells_of_dense_maps_are_those_of_the_image_in_memory(decoder: str) -> None:
    pixels, module = blobs(), unet(decoder)
    whole = detect(module, torch.from_numpy(pixels)[None])
    found = detect(module, large(pixels))
    assert len(whole) == len(found) > 150
    order, same = (np.lexsort((*d.boxes.T, d.scores)) for d in (whole, found))
    for name in ("boxes", "scores", "cell_types", "masks"):
        assert np.array_equal(getattr(whole, name)[order], getattr(found, name)[same]), name

    post = pipeline(score=0.5, mask=0.6, mask_nms=0.3, min_area=20, types="image", fill_holes=True)
    cells = post(whole)
    assert len(cells) > 150
    assert np.array_equal(labels_of(finalise_by_blocks(post, found, Blocks(1, 200, 96))), cells.instances.layers[0])


def test_cells_that_a_halo_cuts_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        detect(unet(), large(blobs(), halo=96))
        assert not caplog.messages
        detect(unet(), large(blobs(), halo=4))
    assert "cells reach 4 pixels or more beyond their block and are incomplete" in caplog.text


def test_detections_of_windows_are_those_of_the_image_in_memory() -> None:
    """Those of a network that detects, each of a window, merged."""
    truth = Instances.from_label_map(ndimage.label(blobs() > 120)[0], np.zeros(ndimage.label(blobs() > 120)[1], int))
    image, detect_fn = coded(truth.height, truth.width), detector(truth)
    whole = TILES.detect(detect_fn, image, "p")
    found = TILES.detect(detect_fn, large(image[0].numpy()), "p")
    assert len(whole) == len(found) > 100
    for name in ("boxes", "scores", "cell_types", "masks"):
        assert np.array_equal(getattr(whole, name), getattr(found, name)), name

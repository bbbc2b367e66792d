"""Enlarged windows: what comes out is in pixels of the image, as without enlarging where the network allows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sartorius.data.augmentation.scales import resized
from sartorius.errors import InputError
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.windows import Tiles, Whole
from sartorius.structures.detections import Detections

TILES = Tiles(32, 12, margin=4, batch=3, join_iou=0.5)


def smooth(height: int = 61, width: int = 75) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height) / 9.0, torch.arange(width) / 7.0, indexing="ij")
    return (128 + 40 * torch.sin(rows) * torch.cos(columns))[None]


@pytest.mark.parametrize("windows", [Whole(), TILES])
@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_maps_come_back_at_the_size_of_the_image(windows: Whole | Tiles, factor: float) -> None:
    seen: list[tuple[int, ...]] = []

    def network(crops: Tensor) -> Tensor:
        seen.append(tuple(crops.shape[-2:]))
        return torch.cat([crops, 255 - crops], dim=1)

    found = Enlarged(windows=windows, factor=factor).maps(network, smooth())
    assert found.shape == (2, 61, 75)
    expected = torch.cat([smooth(), 255 - smooth()])
    assert float((found - expected).abs().max()) < (1e-3 if factor == 1.0 else 2.5)
    size = (61, 75) if isinstance(windows, Whole) else (32, 32)
    assert set(seen) == {(round(size[0] * factor), round(size[1] * factor))}


def test_the_network_sees_what_slices_show_in_training() -> None:
    image = smooth().round().to(torch.uint8)
    seen: list[Tensor] = []

    def network(crops: Tensor) -> Tensor:
        seen.append(crops)
        return crops

    Enlarged(windows=Whole(), factor=2.0).maps(network, image)
    trained = resized(image[0].numpy(), np.zeros((1, 61, 75), np.uint16), 122, 150).image
    assert np.abs(seen[0][0, 0].numpy() - trained).max() <= 0.75  # rounded twice


@pytest.mark.parametrize("windows", [Whole(), TILES])
def test_boxes_come_back_in_pixels_of_the_image(windows: Whole | Tiles) -> None:
    image = torch.zeros(1, 50, 60)
    image[0, 8:20, 10:24] = 200.0

    def bright(crop: Tensor) -> Detections:
        """One box around what is bright."""
        height, width = crop.shape[-2:]
        rows, columns = (np.flatnonzero((crop[0] > 100).any(dim=axis).numpy()) for axis in (1, 0))
        if not len(rows):
            return Detections.empty("w", height, width, 8)
        box = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
        masks = np.ones((1, 8, 8), np.float16)
        return Detections(
            "w", height, width, np.array(box, np.float32), np.ones(1, np.float32), np.zeros(1, int), masks
        )

    found = Enlarged(windows=windows, factor=2.0).detect(bright, image, "p")
    assert (found.height, found.width) == (50, 60)
    assert np.abs(found.boxes - [[10, 8, 24, 20]]).max() <= 0.5
    assert len(Enlarged(windows=windows, factor=2.0).detect(bright, torch.zeros(1, 50, 60), "p")) == 0


def test_a_factor_that_cannot_be() -> None:
    with pytest.raises(InputError, match="inference.factor: expected a number from 1 to 16, got 0.5"):
        Enlarged(windows=Whole(), factor=0.5)

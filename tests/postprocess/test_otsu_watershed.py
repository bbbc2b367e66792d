from __future__ import annotations

import numpy as np
import pytest

from sartorius.postprocess.otsu_watershed import otsu_watershed


def test_finds_bright_and_dark_discs() -> None:
    y, x = np.mgrid[:120, :160]
    image = np.random.default_rng(0).normal(128, 1, (120, 160))
    truth = np.zeros((120, 160), int)
    for k, (row, column) in enumerate(((30, 30), (30, 100), (80, 60), (90, 130))):
        inside = np.hypot(y - row, x - column) < 12
        texture = np.where((x + y) % 6 < 3, 60, -60)
        image[inside] += texture[inside]
        truth[inside] = k + 1
    found = otsu_watershed(image.clip(0, 255).astype(np.uint8))
    assert found.max() == 4 and found.dtype == np.uint16
    for k in range(1, 5):
        covered = found == np.bincount(found[truth == k]).argmax()
        assert (covered & (truth == k)).sum() / (covered | (truth == k)).sum() > 0.7


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_has_no_cells(value: int) -> None:
    found = otsu_watershed(np.full((40, 50), value, np.uint8))
    assert found.shape == (40, 50) and not found.any()


def test_labels_have_no_gaps_and_small_cells_are_dropped() -> None:
    image = np.random.default_rng(1).integers(0, 256, (100, 100)).astype(np.uint8)
    found = otsu_watershed(image, min_area=30)
    areas = np.bincount(found.ravel())[1:]
    assert len(areas) and areas.min() >= 30
    assert not otsu_watershed(image, min_area=10**6).any()

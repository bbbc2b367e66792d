from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import regionprops

from sartorius.rescoring.shapes import Shapes
from sartorius.structures import rle


def label_map() -> np.ndarray:
    y, x = np.mgrid[:60, :90]
    labels = np.zeros((60, 90), np.int64)
    labels[(x - 20) ** 2 + (y - 20) ** 2 < 12**2] = 1
    labels[((x - 60) / 20) ** 2 + ((y - 20) / 5) ** 2 < 1] = 2
    labels[40:58, 5:8] = 3
    labels[40:43, 5:30] = 3  # an L
    labels[50, 70] = 4
    return labels


def test_agrees_with_skimage() -> None:
    shapes, labels = Shapes.of(rle.from_layers(label_map())), label_map()
    for k, region in enumerate(regionprops(labels)):
        assert shapes.area[k] == region.area
        assert (shapes.y[k], shapes.x[k]) == pytest.approx([c + 0.5 for c in region.centroid])
        long, short = np.sqrt(np.array(region.inertia_tensor_eigvals) + 1 / 12)  # theirs takes pixels for points
        assert shapes.elongation[k] == pytest.approx(long / short)
        assert shapes.fill[k] == pytest.approx(region.area / (4 * np.pi * long * short))
    assert shapes.fill[0] == pytest.approx(1, abs=0.01) and shapes.fill[2] < 0.7
    assert shapes.elongation[1] == pytest.approx(4, rel=0.07), "20 to 5, a little flatter in pixels"
    assert shapes.elongation[3] == 1.0, "a single pixel"


def test_no_cells_and_cells_without_pixels() -> None:
    assert len(Shapes.of(rle.parse([], 5, 6)).area) == 0
    shapes = Shapes.of(rle.parse(["", "1 3"], 5, 6))
    assert shapes.area.tolist() == [0, 3] and shapes.elongation[0] == shapes.fill[0] == 0

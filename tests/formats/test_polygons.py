from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask

from sartorius.formats.polygons import Polygon, fill, trace
from sartorius.structures.instances import Instances
from tests.formats.crowd import crowd
from tests.formats.test_measures import blobs


def filled(polygons: list[list[Polygon]], cells: Instances) -> Instances:
    rings = [(ring, k) for k, of_cell in enumerate(polygons) for polygon in of_cell for ring in polygon]
    runs = fill([ring for ring, _ in rings], [k for _, k in rings], len(cells), cells.height, cells.width)
    return Instances.from_runs(runs, cells.cell_types)


@pytest.mark.parametrize("smooth", [0.0, 0.6, 1.0, 3.0])
def test_any_mask_comes_back(smooth: float) -> None:
    labels = blobs(3, smooth=smooth)
    cells = Instances.from_label_map(labels, np.zeros(labels.max(), np.int64))
    polygons = trace(cells)
    assert np.array_equal(filled(polygons, cells).layers[0], labels)
    for k, of_cell in enumerate(polygons):
        assert len(of_cell) == ndimage.label(labels == k + 1)[1], "a polygon for each piece"
        for ring in (ring for polygon in of_cell for ring in polygon):
            assert len(np.unique(ring, axis=0)) == len(ring) >= 4, "no ring touches itself"
            step = np.roll(ring, -1, axis=0) - ring
            assert ((step != 0).sum(axis=1) == 1).all(), "along the edges of pixels"
            assert ((step != 0) != (np.roll(step, -1, axis=0) != 0)).all(), "corners alone"


def test_layers_holes_and_pieces() -> None:
    cells = crowd().instances
    polygons = trace(cells)
    assert [[len(polygon) for polygon in of_cell] for of_cell in polygons] == [[2], [1], [1, 1, 1], [3]]
    assert filled(polygons, cells).to_rles() == cells.to_rles()


def test_holes_lie_in_their_piece() -> None:
    mask = np.zeros((12, 30), np.int64)
    mask[1:11, 1:11] = mask[3:9, 15:25] = 1
    mask[4:8, 4:8] = mask[5:7, 20:22] = 0
    mask[5, 5] = 1  # a piece in the hole of another
    ((large, *others),) = trace(Instances.from_label_map(mask, [0]))
    assert sorted(len(polygon) for polygon in [large, *others]) == [1, 2, 2]
    for outer, *holes in (large, *others):
        for hole in holes:
            assert (outer.min(0) < hole.min(0)).all() and (hole.max(0) < outer.max(0)).all()


def test_slanted_polygons_as_skimage() -> None:
    """Centres of pixels are at +0.5 here, at whole numbers in skimage; points outside the image are cut off."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        ring = rng.uniform(-5, 45, (7, 2))
        runs = fill([ring], [0], 1, 30, 40)
        expected = polygon2mask((30, 40), ring[:, ::-1] - 0.5)
        assert np.array_equal(Instances.from_runs(runs, [0]).layers[0] > 0, expected)


def test_nothing() -> None:
    assert trace(Instances.empty(4, 5)) == [] and fill([], [], 0, 4, 5).count == 0
    assert trace(Instances.from_label_map(np.full((2, 3), 2), [0, 0]))[0] == []
    whole = trace(Instances.from_label_map(np.ones((2, 3), np.int64), [0]))[0]
    assert sorted(whole[0][0].tolist()) == [[0, 0], [0, 2], [3, 0], [3, 2]]

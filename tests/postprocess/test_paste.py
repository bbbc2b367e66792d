from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sartorius.postprocess import paste
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from tests.postprocess.shapes import dense_paste, random_detections


def dense(pasted: PastedMasks) -> np.ndarray:
    masks = np.zeros((pasted.count, pasted.height * pasted.width), bool)
    masks[pasted.mask, pasted.pixel] = True
    return masks.reshape(pasted.count, pasted.height, pasted.width)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_pixel_by_pixel_sampling(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paste, "_BLOCK_PIXELS", 200)  # several blocks
    d = random_detections(seed)
    limits = np.random.default_rng(seed).uniform(0.2, 0.8, len(d))
    ours = dense(paste_masks(d.boxes, d.masks, limits, d.height, d.width))
    for k in range(len(d)):
        probability = dense_paste(d.boxes[k], d.masks[k], d.height, d.width)
        clear = np.abs(probability - limits[k]) > 1e-5  # float32 may round the others either way
        np.testing.assert_array_equal(ours[k][clear], (probability > limits[k])[clear])
    assert ours.any(axis=(1, 2)).sum() > len(d) / 2


def test_agrees_with_scipy_interpolation() -> None:
    mask = np.random.default_rng(0).uniform(0, 1, (1, 28, 28)).astype(np.float32)
    box = np.array([[3.2, 5.7, 33.9, 29.1]])
    y, x = np.mgrid[6:29, 3:34] + 0.5
    at = ((y - 5.7) / 23.4 * 28 - 0.5, (x - 3.2) / 30.7 * 28 - 0.5)
    expected = map_coordinates(mask[0], at, order=1, mode="nearest") > 0.5
    ours = dense(paste_masks(box, mask, np.array([0.5]), 40, 50))[0]
    np.testing.assert_array_equal(ours[6:29, 3:34], expected)
    assert ours.sum() == expected.sum()


def test_edges_are_half_open_at_pixel_centres() -> None:
    full = np.ones((4, 7, 7), np.float16)
    boxes = np.array([[2, 3, 5, 4], [2.5, 3, 5.5, 4], [2.51, 3, 5.51, 4], [-3, -3, 99, 99]])
    masks = dense(paste_masks(boxes, full, np.full(4, 0.5), 6, 8))
    assert [np.flatnonzero(mask[3]).tolist() for mask in masks[:3]] == [[2, 3, 4], [2, 3, 4], [3, 4, 5]]
    assert masks[0].sum() == 3 and masks[3].all()


def test_boxes_without_extent_or_outside_and_none_at_all() -> None:
    boxes = np.array([[2, 2, 2, 5], [5, 5, 3, 3], [-9, -9, -2, -2], [70, 2, 80, 9], [2.6, 2, 3.4, 5]])
    pasted = paste_masks(boxes, np.ones((5, 4, 4)), np.full(5, 0.5), 10, 20)
    assert pasted.areas.tolist() == [0] * 5
    nothing = paste_masks(np.zeros((0, 4)), np.zeros((0, 28, 28)), np.zeros(0), 10, 20)
    assert nothing.count == 0 and nothing.areas.shape == (0,)


def test_select_renumbers() -> None:
    pasted = paste_masks(
        np.array([[0, 0, 2, 1], [3, 0, 6, 1], [7, 0, 8, 1]]), np.ones((3, 4, 4)), np.full(3, 0.5), 2, 9
    )
    chosen = pasted.select(np.array([False, True, True]))
    assert chosen.count == 2 and chosen.areas.tolist() == [3, 1] and chosen.pixel.tolist() == [3, 4, 5, 7]


def mean_iou(cells: rle.Runs) -> float:
    """Of each cell with itself after 28 x 28 targets and pasting at one half."""
    instances = Instances.from_runs(cells, np.zeros(cells.count))
    d = Detections.from_instances("p", instances, np.ones(len(instances)))
    pasted = paste_masks(d.boxes, d.masks, np.full(len(d), 0.5), d.height, d.width)
    pixel, cell = cells.pixels()
    size = cells.height * cells.width
    shared = np.intersect1d(pasted.mask * size + pasted.pixel, cell * size + pixel) // size
    inter = np.bincount(shared, minlength=cells.count)
    return float(np.mean(inter / (pasted.areas + cells.areas - inter)))


def test_shapes_survive_the_way_through_targets() -> None:
    y, x = np.mgrid[:120, :160]
    ellipse = ((x - 40.3) / 25) ** 2 + ((y - 50) / 11) ** 2 < 1
    ring = np.abs(np.hypot(x - 110, y - 60) - 22) < 4
    square = (x >= 5) & (x < 16) & (y >= 100) & (y < 111)
    masks = np.stack([ellipse, ring, square])
    runs = Instances.from_masks(masks, [0, 0, 0]).to_runs()
    assert mean_iou(runs) > 0.97


def test_real_cells_survive_the_way_through_targets(real_data: object) -> None:
    import pandas as pd

    table = pd.read_csv(f"{real_data}/sartorius/train.csv")
    for kind in CELL_TYPES:
        few = sorted(table.id[table.cell_type == kind].unique())[:3]
        ious = [mean_iou(rle.parse(table.annotation[table.id == p].tolist(), 520, 704)) for p in few]
        assert np.mean(ious) >= 0.97, (kind, ious)

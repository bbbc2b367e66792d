"""Scores of single cells: against dense masks, with nothing, and with modules that they are not for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sartorius.callbacks.crop_scores import COLUMNS, CropScores, cell_scores, ellipses, named, summary
from sartorius.errors import InputError
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from tests.doubles import ToyModule

HEIGHT, WIDTH = 40, 50


def dense_ellipse(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def test_ellipses_against_dense_ones() -> None:
    rng = np.random.default_rng(0)
    corner, extent = rng.uniform(-10, 45, (60, 2)), rng.uniform(0.3, 30, (60, 2))
    boxes = np.column_stack((corner, corner + extent))
    runs = ellipses(boxes, HEIGHT, WIDTH)
    assert (runs.length > 0).all()
    pixel, cell = runs.pixels()
    for k, box in enumerate(boxes):
        assert pixel[cell == k].tolist() == np.flatnonzero(dense_ellipse(box)).tolist()
    assert ellipses(np.zeros((0, 4)), HEIGHT, WIDTH).count == 0
    flat = ellipses(np.array([[3.0, 3.0, 3.0, 9.0], [60.0, 5.0, 70.0, 9.0]]), HEIGHT, WIDTH)
    assert (flat.count, len(flat.start)) == (2, 0)


def detections(masks: np.ndarray) -> Detections:
    """Each full-size mask as one of the image's size: exact when pasted."""
    count, size = len(masks), max(HEIGHT, WIDTH)
    square = np.zeros((count, size, size), np.float16)
    square[:, :HEIGHT, :WIDTH] = masks
    boxes = np.tile(np.array([0, 0, size, size], np.float32), (count, 1))
    return Detections("p", HEIGHT, WIDTH, boxes, np.ones(count, np.float32), np.zeros(count, np.int64), square)


def test_scores_against_dense_masks() -> None:
    rng = np.random.default_rng(1)
    true, found = (np.zeros((12, HEIGHT, WIDTH), bool) for _ in range(2))
    for k in range(12):  # they overlap, and so do the cells of different index
        top, left = rng.integers(0, 20, 2)
        true[k, top : top + 12, left : left + 9] = rng.random((12, 9)) < 0.8
        found[k, top + 2 : top + 13, left + 1 : left + 9] = True
    cells = Instances.from_masks(true, np.zeros(12))
    scores = cell_scores(detections(found), cells, cells.boxes, 0.5)
    assert scores.shape == (12, len(COLUMNS))
    for k in range(12):
        shared, bar = (true[k] & found[k]).sum(), dense_ellipse(cells.boxes[k])
        assert scores[k, 0] == shared / (true[k] | found[k]).sum()
        assert scores[k, 1] == 2 * shared / (true[k].sum() + found[k].sum())
        assert scores[k, 2] == (true[k] & bar).sum() / (true[k] | bar).sum()


def test_nothing_and_a_mismatch() -> None:
    empty = Instances.empty(HEIGHT, WIDTH)
    assert cell_scores(Detections.empty("p", HEIGHT, WIDTH), empty, np.zeros((0, 4)), 0.5).shape == (0, 3)
    one = Instances.from_masks(np.ones((1, HEIGHT, WIDTH), bool), [0])
    assert cell_scores(detections(np.zeros((1, HEIGHT, WIDTH))), one, one.boxes, 0.5)[0, :2].tolist() == [0, 0]
    with pytest.raises(ValueError, match="p: 0 detections, 1 cells, 1 boxes"):
        cell_scores(Detections.empty("p", HEIGHT, WIDTH), one, one.boxes, 0.5)


def test_means_are_over_cells() -> None:
    cells = pd.DataFrame([[0.9, 0.95, 0.5], [0.7, 0.8, 0.6], [0.2, 0.3, 0.4]], columns=list(COLUMNS))
    table = summary(cells.assign(cell_type=["cort", "cort", "astro"]))
    assert table.index.tolist() == ["all", "astro", "cort"]
    assert table.cells.tolist() == [3, 1, 2]
    assert table.gain["cort"] == pytest.approx((0.9 + 0.7) / 2 - (0.5 + 0.6) / 2)
    assert named(table) == pytest.approx(
        {
            "val/iou": (0.9 + 0.7 + 0.2) / 3,
            "val/dice": (0.95 + 0.8 + 0.3) / 3,
            "val/iou_ellipse": 1.5 / 3,
            "val/iou_astro": 0.2,
            "val/iou_cort": 0.8,
            "val/iou_ellipse_astro": 0.4,
            "val/iou_ellipse_cort": 0.55,
        }
    )


def test_a_module_that_finds_its_boxes_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="ToyModule is not given the boxes of cells"):
        CropScores(tmp_path, 0.5).setup(SimpleNamespace(), ToyModule(), "fit")

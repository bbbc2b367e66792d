"""Detections of windows become those of the image: each cell once, whole or stitched."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sartorius.inference.merge import merge
from sartorius.inference.stitching import stitch_fragments
from sartorius.inference.windows import FiveCrops, Tiles, Whole
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.structures.windows import Window, tiles
from tests.inference.perfect import best_ious, coded, detector

LEFT, RIGHT = Window(0, 0, 40, 60), Window(0, 40, 40, 60)  # share columns 40 to 60 of an image 40 x 100
TILES = Tiles(256, 64, margin=16, batch=1, join_iou=0.5)


def found(*cells: tuple[list[float], float] | tuple[list[float], float, int], window: Window = LEFT) -> Detections:
    """Detections of a window: full boxes in the *image's* pixels, cut off where the window ends."""
    ends = np.array([window.left, window.top, window.right, window.bottom])
    boxes = np.array([cell[0] for cell in cells], float).reshape(-1, 4)
    boxes = np.clip(boxes, ends[[0, 1, 0, 1]], ends[[2, 3, 2, 3]]) - ends[[0, 1, 0, 1]]
    types = np.array([cell[2] if len(cell) == 3 else 0 for cell in cells], np.int64)
    masks = np.ones((len(cells), 8, 8), np.float16)
    scores = np.array([cell[1] for cell in cells], np.float32)
    return Detections("w", window.height, window.width, boxes.astype(np.float32), scores, types, masks)


def merged(left: Detections, right: Detections, margin: int = 0, join_iou: float = 0.5) -> Detections:
    return merge([(LEFT, left), (RIGHT, right)], "p", 40, 100, margin=margin, join_iou=join_iou)


def as_lists(detections: Detections) -> list[tuple[list[float], float]]:
    return [
        (box, round(score, 4)) for box, score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True)
    ]


def test_a_cell_that_two_windows_see_comes_out_once() -> None:
    cell = [44, 5, 54, 12]
    result = merged(found((cell, 0.8, 1)), found((cell, 0.9, 2), ([80, 5, 90, 9], 0.3), window=RIGHT))
    assert as_lists(result) == [(cell, 0.9), ([80, 5, 90, 9], 0.3)]
    assert result.cell_types.tolist() == [2, 0]
    assert (result.image_id, result.height, result.width) == ("p", 40, 100)


def test_a_whole_view_stands_for_a_cell_whatever_the_score_of_a_cut_one() -> None:
    cell = [30, 5, 50, 12]
    assert as_lists(merged(found((cell, 0.2)), found((cell, 0.9), window=RIGHT))) == [(cell, 0.2)]


def test_the_view_further_from_the_edge_counts_up_to_the_margin() -> None:
    cell = [42, 5, 50, 12]  # 2 px from an edge of the right window, 10 from one of the left
    left, right = found((cell, 0.2)), found((cell, 0.9), window=RIGHT)
    assert as_lists(merged(left, right, margin=2)) == [(cell, 0.9)]
    assert as_lists(merged(left, right, margin=3)) == [(cell, 0.2)]


def test_a_cell_that_no_window_contains_whole_is_stitched() -> None:
    cell = [20, 5, 90, 15]
    result = merged(found((cell, 0.9, 1)), found((cell, 0.3, 2), window=RIGHT))
    pieces = (40 * 10, 50 * 10)
    assert as_lists(result) == [(cell, round((0.9 * pieces[0] + 0.3 * pieces[1]) / sum(pieces), 4))]
    assert result.cell_types.tolist() == [1]
    whole = np.zeros((1, 40, 100), bool)
    whole[0, 5:15, 20:90] = True
    assert best_ious(Instances.from_masks(whole, [0]), result).tolist() == [1.0]


def test_different_cells_stay_apart() -> None:
    left, right = found(([30, 5, 50, 12], 0.9)), found(([45, 8, 70, 15], 0.8), window=RIGHT)
    assert len(merged(left, right)) == 2  # they share 5 x 4 of 50 + 105 - 20 pixels in the overlap


def test_detections_of_one_window_are_never_joined() -> None:
    cell, near = [44, 5, 54, 12], [45, 5, 54, 12]
    result = merged(found((cell, 0.9), (near, 0.4), (cell, 0.3)), found((near, 0.8), (cell, 0.5), window=RIGHT))
    # the likeliest first: .9 with .5 (same pixels) or .8 (IoU 9/10): .72 against .45; then .4 with .5 (.18)
    assert as_lists(result) == [(cell, 0.9), (cell, 0.5), (cell, 0.3)]


def test_a_fragment_of_a_whole_cell_goes_even_where_the_masks_disagree() -> None:
    cell, fragment = [30, 5, 48, 25], [40, 10, 48, 18]  # IoU in the overlap 64 / 160, but wholly covered
    assert as_lists(merged(found((cell, 0.5)), found((fragment, 0.9), window=RIGHT))) == [(cell, 0.5)]


def test_a_fragment_that_nothing_covers_stays_unless_it_lies_in_the_margin() -> None:
    other, fragment = [42, 30, 50, 38], [40, 10, 44, 14]
    left, right = found((other, 0.5)), found((fragment, 0.9), window=RIGHT)
    assert as_lists(merged(left, right, margin=3)) == [(fragment, 0.9), (other, 0.5)]
    assert as_lists(merged(left, right, margin=4)) == [(other, 0.5)]


def test_masks_without_pixels_pass() -> None:
    left = found(([44, 5, 54, 12], 0.9))
    left.masks[:] = 0.25
    assert as_lists(merged(left, found(([44, 5, 54, 12], 0.4), window=RIGHT))) == [
        ([44, 5, 54, 12], 0.9),
        ([44, 5, 54, 12], 0.4),
    ]


def test_windows_without_detections() -> None:
    none = merged(found(), found(window=RIGHT))
    assert len(none) == 0 and none.masks.shape == (0, 8, 8) and (none.height, none.width) == (40, 100)
    cell = [70, 5, 80, 12]
    assert as_lists(merged(found(), found((cell, 0.4), window=RIGHT))) == [(cell, 0.4)]


def test_a_cell_along_many_windows() -> None:
    windows, cell = tiles(40, 400, 60, 20), [3, 10, 390, 20]
    parts = [(w, found((cell, 0.5), window=w)) for w in windows]
    assert len(parts) == 10
    assert as_lists(merge(parts, "p", 40, 400, margin=4, join_iou=0.5)) == [(cell, 0.5)]


@pytest.mark.parametrize("box", [(20, 5, 90, 15), (0, 0, 100, 40), (13, 7, 93, 8)])
def test_stitched_fragments_have_the_mask_of_the_whole_cell(box: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = box
    mask = np.zeros((1, 40, 100), bool)
    mask[0, y1:y2, x1:x2] = True
    expected = Detections.from_instances("p", Instances.from_masks(mask, [0]), [1.0], mask_size=8)
    views = merged(found((list(box), 0.5)), found(window=RIGHT)), merged(found(), found((list(box), 0.5), window=RIGHT))
    names = ("boxes", "scores", "cell_types", "masks")
    fragments = Detections("p", 40, 100, *(np.concatenate([getattr(view, name) for view in views]) for name in names))
    box_around, probability, score, cell_type = stitch_fragments(fragments, np.array([1, 1]))
    assert (box_around.tolist(), score, cell_type) == (list(box), 0.5, 0)
    np.testing.assert_allclose(probability, expected.masks[0], atol=1e-3)


@cache
def ellipses(height: int, width: int, count: int, longest: float) -> Instances:
    """Cells at any angle, with half axes of 4 to `longest` px; some overlap."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        angle, a, b = rng.uniform(0, np.pi), rng.uniform(6, longest), rng.uniform(4, 8)
        dy = np.arange(height)[:, None] + 0.5 - rng.uniform(0, height)
        dx = np.arange(width) + 0.5 - rng.uniform(0, width)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        mask[:] = (u / a) ** 2 + (v / b) ** 2 < 1
    return Instances.from_masks(masks, np.zeros(count))


@pytest.mark.parametrize(
    ("longest", "tolerance"), [(12, 0.01), (160, 0.08)], ids=["none longer than the overlap", "many longer"]
)
@pytest.mark.parametrize(
    "windows", [TILES, FiveCrops(280, 290, margin=16, batch=1, join_iou=0.5)], ids=["tiles", "five"]
)
def test_drawn_cells(windows: Tiles | FiveCrops, longest: float, tolerance: float) -> None:
    truth = ellipses(450, 470, 40, longest)
    result = windows.detect(detector(truth), coded(450, 470), "p")
    whole = best_ious(truth, Whole().detect(detector(truth), coded(450, 470), "p"))
    assert len(result) == len(truth)
    np.testing.assert_allclose(best_ious(truth, result), whole, atol=tolerance)


def test_cells_across_the_corner_of_four_tiles() -> None:
    masks = np.zeros((3, 448, 448), bool)  # tiles meet between rows and columns 192 and 256
    masks[0, 150:300, 220:228] = masks[0, 220:228, 150:300] = True  # a cross that no tile sees whole
    masks[1, 180:230, 180:230] = True
    masks[2, 235:250, 235:250] = True
    truth = Instances.from_masks(masks, [0, 1, 2])
    result = TILES.detect(detector(truth), coded(448, 448), "p")
    assert sorted(result.cell_types.tolist()) == [0, 1, 2]
    np.testing.assert_allclose(best_ious(truth, result), [1, 1, 1], atol=0.05)


@pytest.mark.parametrize("shape", [(100, 704), (520, 90), (60, 50)])
def test_images_smaller_than_a_tile(shape: tuple[int, int]) -> None:
    truth, seen = ellipses(*shape, 20, 12), []
    result = TILES.detect(detector(truth, seen), coded(*shape), "p")
    assert seen[0] == (1, min(256, shape[0]), min(256, shape[1]))
    assert len(result) == len(truth) and best_ious(truth, result).min() > 0.95


def test_a_image_without_cells() -> None:
    truth = Instances.empty(520, 704)
    result = TILES.detect(detector(truth), coded(520, 704), "p")
    assert (len(result), result.height, result.width, result.image_id) == (0, 520, 704, "p")


def test_whole_is_what_the_detector_says() -> None:
    only = Detections.empty("x", 3, 4)
    assert Whole().detect(lambda image: only, torch.zeros(1, 3, 4), "p") is only
    assert TILES.detect(lambda image: only, torch.zeros(1, 3, 4), "p") is only


def test_real_cells(real_data: Path) -> None:
    """The longest and the most crowded: one cell comes out for each, as like it as without tiles."""
    table = pd.read_csv(real_data / "annotations" / "train_annotations.csv.gz")
    for image_id in ("93ba6784a818", "576c680c66c7"):
        rows = table[table.id == image_id]
        types = rows.cell_type.map(CELL_TYPES.index)
        truth = Instances.from_rles(rows.annotation.tolist(), types, 520, 704)
        result = TILES.detect(detector(truth), coded(520, 704), image_id)
        whole = Detections.from_instances(image_id, truth, np.ones(len(truth)))
        assert len(result) == len(truth)
        assert best_ious(truth, result).mean() == pytest.approx(best_ious(truth, whole).mean(), abs=0.01)

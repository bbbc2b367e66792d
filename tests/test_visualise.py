from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sartorius.cells import CELL_TYPES
from sartorius.instances import Instances
from sartorius.visualise import cell_colours, draw_comparison, draw_overlay, outlines


def squares(n: int, height: int = 64, width: int = 80) -> Instances:
    """n squares of 4 pixels on a grid, 6 pixels apart."""
    label_map = np.zeros((height, width), np.uint16)
    for k in range(n):
        y, x = 6 * (k // 12) + 2, 6 * (k % 12) + 2
        label_map[y : y + 4, x : x + 4] = k + 1
    return Instances.from_label_map(label_map, np.arange(n) % 3)


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(100, 150, (64, 80)).astype(np.uint8)


def test_no_cells_leave_the_picture_grey(picture: NDArray[np.uint8]) -> None:
    drawn = draw_overlay(picture, Instances.empty(64, 80), np.zeros(0), CELL_TYPES)
    assert drawn.shape == (128, 160, 3)
    assert drawn.dtype == np.uint8
    assert (drawn == drawn[..., :1]).all()


def test_a_cell_is_coloured_where_it_is(picture: NDArray[np.uint8]) -> None:
    cells = squares(1)
    plain = draw_overlay(picture, Instances.empty(64, 80), scale=1)
    drawn = draw_overlay(picture, cells, None, (), scale=1, labels=False)
    assert np.array_equal((drawn != plain).any(axis=2), cells.layers[0] > 0)
    assert np.array_equal(drawn[2, 2], cell_colours(cells.boxes)[1])  # the outline is opaque


def test_overlapping_cells_are_both_outlined() -> None:
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:12, 2:12] = masks[1, 6:18, 6:18] = True
    cells = Instances.from_masks(masks, [0, 1])
    drawn = draw_overlay(np.full((20, 20), 128, np.uint8), cells, labels=False, scale=1)
    colours = cell_colours(cells.boxes)
    assert (drawn[2, 2:12] == colours[1]).all()
    assert (drawn[6, 6:18] == colours[2]).all()


@pytest.mark.parametrize("n", [1, 79, 80, 81, 120])
def test_labels_stay_inside(picture: NDArray[np.uint8], n: int) -> None:
    cells = squares(n)
    drawn = draw_overlay(picture, cells, np.linspace(0, 1, n), CELL_TYPES)
    unlabelled = draw_overlay(picture, cells, labels=False)
    assert drawn.shape == unlabelled.shape == (128, 160, 3)
    assert (drawn != unlabelled).any()


def test_the_comparison_holds_both_sides(picture: NDArray[np.uint8]) -> None:
    drawn = draw_comparison(picture, squares(5), squares(3), np.ones(3), CELL_TYPES, title="p  0.5")
    assert drawn.shape == (2 * 64 + 40, 2 * 2 * 80 + 8, 3)
    assert np.array_equal(drawn[40:, :160], draw_overlay(picture, squares(5), labels=False))
    assert np.array_equal(drawn[40:, 168:], draw_overlay(picture, squares(3), np.ones(3), CELL_TYPES))


def test_outlines_are_the_cells_without_their_insides() -> None:
    label_map = np.zeros((8, 8), int)
    label_map[1:5, 1:5] = 1
    label_map[1:5, 5:8] = 2  # touches cell 1 and the picture's edge
    expected = label_map > 0
    expected[2:4, 2:4] = expected[2:4, 6:7] = False
    assert np.array_equal(outlines(label_map), expected)
    assert not outlines(np.zeros((3, 3), int)).any()


def test_neighbours_differ_in_colour() -> None:
    colours = cell_colours(squares(120).boxes).astype(int)
    assert colours.shape == (121, 3)
    assert not colours[0].any()
    for k in range(1, 120):
        if k % 12:
            assert np.abs(colours[k] - colours[k + 1]).sum() > 60
    assert cell_colours(np.zeros((0, 4), np.float32)).shape == (1, 3)


def test_sizes_must_agree(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="must have one size"):
        draw_overlay(picture, Instances.empty(10, 10))
    with pytest.raises(ValueError, match="2 scores for 1 cells"):
        draw_overlay(picture, squares(1), [0.1, 0.2])


def test_a_flat_picture_is_no_division_by_zero() -> None:
    assert draw_overlay(np.full((64, 80), 7, np.uint8), squares(2)).shape == (128, 160, 3)

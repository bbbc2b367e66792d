from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.instances import Instances
from sartorius.visualise.overlays import (
    captioned,
    cell_colours,
    draw_boxes,
    draw_comparison,
    draw_map,
    draw_overlay,
    draw_sheet,
    grey_limits,
    hatch,
    outlines,
)


def squares(n: int, height: int = 64, width: int = 80) -> Instances:
    """n squares of 4 pixels on a grid, 6 pixels apart."""
    label_map = np.zeros((height, width), np.uint16)
    for k in range(n):
        y, x = 6 * (k // 12) + 2, 6 * (k % 12) + 2
        label_map[y : y + 4, x : x + 4] = k + 1
    return Instances.from_label_map(label_map, np.arange(n) % 3)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(100, 150, (64, 80)).astype(np.uint8)


def test_no_cells_leave_the_image_grey(image: NDArray[np.uint8]) -> None:
    drawn = draw_overlay(image, Instances.empty(64, 80), np.zeros(0), CELL_TYPES)
    assert drawn.shape == (128, 160, 3)
    assert drawn.dtype == np.uint8
    assert (drawn == drawn[..., :1]).all()


def test_a_cell_is_coloured_where_it_is(image: NDArray[np.uint8]) -> None:
    cells = squares(1)
    plain = draw_overlay(image, Instances.empty(64, 80), scale=1)
    drawn = draw_overlay(image, cells, None, (), scale=1, labels=False)
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
def test_labels_stay_inside(image: NDArray[np.uint8], n: int) -> None:
    cells = squares(n)
    drawn = draw_overlay(image, cells, np.linspace(0, 1, n), CELL_TYPES)
    unlabelled = draw_overlay(image, cells, labels=False)
    assert drawn.shape == unlabelled.shape == (128, 160, 3)
    assert (drawn != unlabelled).any()


def test_the_comparison_holds_both_sides(image: NDArray[np.uint8]) -> None:
    drawn = draw_comparison(image, squares(5), squares(3), np.ones(3), CELL_TYPES, title="p  0.5")
    assert drawn.shape == (2 * 64 + 40, 2 * 2 * 80 + 8, 3)
    assert np.array_equal(drawn[40:, :160], draw_overlay(image, squares(5), labels=False))
    assert np.array_equal(drawn[40:, 168:], draw_overlay(image, squares(3), np.ones(3), CELL_TYPES))
    ignored = np.zeros((64, 80), bool)
    ignored[:, 40:] = True
    striped = draw_comparison(image, squares(5), squares(3), np.ones(3), CELL_TYPES, title="p  0.5", ignored=ignored)
    changed = (striped != drawn).any(axis=2)
    assert changed[40:, 80:160].mean() > 0.2 and not changed[:, :80].any() and not changed[:, 160:].any()


def test_outlines_are_the_cells_without_their_insides() -> None:
    label_map = np.zeros((8, 8), int)
    label_map[1:5, 1:5] = 1
    label_map[1:5, 5:8] = 2  # touches cell 1 and the image's edge
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


def test_sizes_must_agree(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="must have one size"):
        draw_overlay(image, Instances.empty(10, 10))
    with pytest.raises(ValueError, match="2 scores for 1 cells"):
        draw_overlay(image, squares(1), [0.1, 0.2])


def test_a_flat_image_is_no_division_by_zero() -> None:
    assert draw_overlay(np.full((64, 80), 7, np.uint8), squares(2)).shape == (128, 160, 3)


def test_limits_of_several_images_are_percentiles_of_all() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(low, low + 40, (30, 50)).astype(np.uint8) for low in (20, 120)]
    together = np.concatenate([image.ravel() for image in images])
    assert np.abs(np.array(grey_limits(*images)) - np.percentile(together, (0.5, 99.5))).max() <= 1
    assert grey_limits(np.zeros((0, 4), np.uint8)) == (0, 255)
    drawn = draw_overlay(images[0], Instances.empty(30, 50), scale=1, limits=(0, 255))
    np.testing.assert_array_equal(drawn[..., 0], images[0])


def test_boxes_lie_on_their_outermost_pixels() -> None:
    canvas = np.zeros((20, 24, 3), np.uint8)
    draw_boxes(canvas, np.array([[2, 3, 8, 9]], np.float32), np.array([[255, 0, 0]], np.uint8), 2)
    expected = np.zeros((20, 24), bool)
    expected[6:18, 4:16] = True
    expected[7:17, 5:15] = False
    np.testing.assert_array_equal(canvas[..., 0] == 255, expected)
    draw_boxes(canvas, np.zeros((0, 4), np.float32), np.zeros((0, 3), np.uint8), 2)


def test_stripes_stay_inside_their_region() -> None:
    canvas, region = np.zeros((40, 48, 3), np.uint8), np.zeros((20, 24), bool)
    region[4:14, 6:20] = True
    hatch(canvas, region, 2)
    marked = canvas.any(axis=2)
    assert not marked[~region.repeat(2, axis=0).repeat(2, axis=1)].any()
    assert marked[8, 12:40].all() and 0.2 < marked[10:26, 14:38].mean() < 0.4
    hatch(canvas, np.zeros((20, 24), bool), 2)


def test_maps_run_from_dark_to_light() -> None:
    drawn = draw_map(np.array([[0.0, 0.5, 1.0, 9.0]], np.float32), 0, 1, 3).astype(int)
    assert drawn.shape == (3, 12, 3)
    brightness = drawn[1, ::3].sum(axis=1)
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]


def test_sheets_align_rows_and_columns() -> None:
    tiles = [np.full((h, w, 3), 10 * k, np.uint8) for k, (h, w) in enumerate([(10, 20), (14, 8), (6, 6)])]
    sheet = draw_sheet(tiles, 2)
    assert sheet.shape == (8 + 14 + 8 + 6 + 8, 8 + 20 + 8 + 8 + 8, 3)
    assert (sheet[8:18, 8:28] == 0).all() and (sheet[8:22, 36:44] == 10).all() and (sheet[30:36, 8:14] == 20).all()
    assert (sheet[:8] == 255).all()
    assert draw_sheet(tiles[:1], 4).shape == (26, 36, 3)


def test_captions_are_as_wide_as_their_text() -> None:
    tile = np.full((10, 20, 3), 7, np.uint8)
    drawn = captioned(tile, ["a name that is longer than the image", "b"])
    assert drawn.shape[0] == 10 + 2 * 18 + 6 and drawn.shape[1] > 150
    assert (drawn[42:, :20] == 7).all()
    assert captioned(np.zeros((5, 400, 3), np.uint8), ["a"]).shape == (29, 400, 3)

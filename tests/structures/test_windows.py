"""Windows cover every pixel, stay inside the image, have one size, and share what they should."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartorius.errors import InputError
from sartorius.structures.windows import Window, blocks, five_crops, group_by_block, sharing_pairs, tiles


def covered(windows: list[Window], height: int, width: int) -> np.ndarray:
    """How many windows see each pixel; fails for a window that reaches outside."""
    count = np.zeros((height, width), int)
    for window in windows:
        assert min(window.top, window.left) >= 0 and window.bottom <= height and window.right <= width
        count[window.rows, window.columns] += 1
    return count


def test_tiles_of_a_image_of_the_competition() -> None:
    found = tiles(520, 704, 256, 64)
    assert sorted({window.top for window in found}) == [0, 192, 520 - 256]
    assert sorted({window.left for window in found}) == [0, 192, 384, 704 - 256]
    assert found == [Window(y, x, 256, 256) for y in (0, 192, 264) for x in (0, 192, 384, 448)]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_tiles_cover_and_overlap(height: int, width: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    found = tiles(height, width, size, overlap)
    assert covered(found, height, width).min() >= 1
    assert len(set(found)) == len(found)
    assert {(window.height, window.width) for window in found} == {(min(size, height), min(size, width))}
    for axis in (sorted({window.top for window in found}), sorted({window.left for window in found})):
        assert all(0 < b - a <= size - overlap for a, b in itertools.pairwise(axis))


def test_a_image_of_one_tile_or_less() -> None:
    assert tiles(256, 256, 256, 64) == [Window(0, 0, 256, 256)]
    assert tiles(1, 3, 256, 64) == [Window(0, 0, 1, 3)]
    assert tiles(100, 257, 256, 64) == [Window(0, 0, 100, 256), Window(0, 1, 100, 256)]


@pytest.mark.parametrize(("size", "overlap"), [(8, 8), (8, 9), (8, -1), (0, 0)])
def test_tiles_that_cannot_be(size: int, overlap: int) -> None:
    with pytest.raises(InputError, match=f"tiles of {size} px that share {overlap} px"):
        tiles(20, 20, size, overlap)


def test_five_crops() -> None:
    found = five_crops(520, 704, 300, 400)
    assert [(window.top, window.left) for window in found] == [(0, 0), (0, 304), (220, 0), (220, 304), (110, 152)]
    assert covered(found, 520, 704).min() == 1
    assert five_crops(520, 704, 600, 400) == [Window(0, x, 520, 400) for x in (0, 304, 152)]
    assert five_crops(10, 10, 10, 12) == [Window(0, 0, 10, 10)]
    with pytest.raises(InputError, match="crops of 0 x 5 px"):
        five_crops(10, 10, 0, 5)


def test_what_two_windows_share() -> None:
    first = Window(0, 0, 10, 10)
    assert first.shared(Window(6, 8, 10, 10)) == Window(6, 8, 4, 2)
    assert first.shared(Window(0, 10, 10, 10)) is None
    assert first.shared(first) == first


def test_margins_lie_inside_the_image() -> None:
    assert Window(0, 5, 10, 10).without(2, 20, 15) == Window(0, 7, 8, 8)  # not at the top, nor on the right
    assert Window(0, 0, 10, 10).without(2, 10, 10) == Window(0, 0, 10, 10)


@pytest.mark.parametrize("windows", [tiles(300, 410, 64, 20), five_crops(100, 90, 60, 60), tiles(9, 9, 16, 2), []])
def test_pairs_of_windows_that_share_pixels(windows: list[Window]) -> None:
    pairs = [(a, b) for a, b in itertools.combinations(range(len(windows)), 2) if windows[a].shared(windows[b])]
    assert sharing_pairs(windows) == pairs


def test_pairs_of_many_windows_take_no_comparison_of_each_with_each() -> None:
    count = len(tiles(20_000, 20_000, 256, 64))
    pairs = sharing_pairs(tiles(20_000, 20_000, 256, 64))
    assert count > 10_000
    assert len(pairs) < 5 * count  # the next one, and three of the row below


def test_blocks_share_no_pixel() -> None:
    covered = np.zeros((130, 75), int)
    for block in blocks(130, 75, 32):
        covered[block.rows, block.columns] += 1
    assert (covered == 1).all()


def test_points_are_grouped_by_their_block() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 50, 200), rng.integers(0, 70, 200)
    expected = [
        [k for k in range(200) if block.top <= rows[k] < block.bottom and block.left <= columns[k] < block.right]
        for block in blocks(50, 70, 16)
    ]
    assert [index.tolist() for index in group_by_block(rows, columns, 70, 16)] == [group for group in expected if group]
    assert list(group_by_block(rows[:0], columns[:0], 70, 16)) == []


def test_a_window_grows_within_the_image() -> None:
    assert Window(4, 20, 10, 10).grown(8, 100, 35) == Window(0, 12, 22, 23)

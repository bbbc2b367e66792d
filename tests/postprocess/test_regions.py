from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sartorius.postprocess.regions import fill_holes, keep_largest_piece


def random_map(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(5, 40, 50)), (0, 1.2, 1.2))
    return np.where(noise.max(axis=0) > 0.25, noise.argmax(axis=0) + 1, 0).astype(np.uint16)


@pytest.mark.parametrize("seed", range(5))
def test_largest_piece_agrees_with_labelling_each_cell(seed: int) -> None:
    label_map = random_map(seed)
    ours = keep_largest_piece(label_map)
    for k in range(1, 6):
        pieces, n = ndimage.label(label_map == k, np.ones((3, 3)))
        areas = np.bincount(pieces.ravel())[1:]
        assert n > 1
        assert (ours == k).sum() == areas.max() and ndimage.label(ours == k, np.ones((3, 3)))[1] == 1
        assert (label_map[ours == k] == k).all()


@pytest.mark.parametrize("seed", range(5))
def test_holes_agree_with_filling_each_cell(seed: int) -> None:
    label_map = random_map(seed)
    label_map[5:9, 5:9] = 1
    label_map[6, 6] = 0
    expected = label_map.copy()
    for k in range(1, 6):
        filled = ndimage.binary_fill_holes(label_map == k)  # also covers other cells inside: those stay
        holes, n = ndimage.label(label_map == 0)
        for hole in range(1, n + 1):
            around = label_map[ndimage.binary_dilation(holes == hole)]
            if filled[holes == hole].all() and set(around.tolist()) == {0, k}:
                expected[holes == hole] = k
    np.testing.assert_array_equal(fill_holes(label_map), expected)
    assert expected[6, 6] == 1


def test_background_between_two_cells_or_at_the_border_stays() -> None:
    label_map = np.array([[1, 1, 2, 1, 0], [1, 0, 2, 1, 1], [1, 1, 2, 1, 1]], np.uint16)
    np.testing.assert_array_equal(fill_holes(label_map), label_map)


@pytest.mark.parametrize("function", [keep_largest_piece, fill_holes])
def test_empty_and_full(function: object) -> None:
    for value in (0, 1):
        flat = np.full((4, 5), value, np.uint16)
        np.testing.assert_array_equal(function(flat), flat)  # type: ignore[operator]

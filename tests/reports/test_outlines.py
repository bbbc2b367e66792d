"""Paths of cells, drawn again by another program, cover the cells."""

from __future__ import annotations

import re

import cv2
import numpy as np

from sartorius.reports.outlines import outline
from sartorius.structures.instances import Instances

PAIR = re.compile(r"(-?\d+(?:\.\d+)?)[ ]?(-?\d+(?:\.\d+)?)")


def redrawn(path: str, shape: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: the path's rings through pixel centres; a pixel on or in an odd number of them is inside."""
    mask = np.zeros(shape, np.uint8)
    start = np.zeros(2)
    for ring in re.findall(r"([Mm])([^lhz]*)(?:l([^z]*)|h0)z", path):
        head = np.array(PAIR.fullmatch(ring[1]).groups(), float)  # type: ignore[union-attr]
        start = head - 0.5 if ring[0] == "M" else start + head
        steps = np.array(PAIR.findall(ring[2]), float).reshape(-1, 2)
        points = np.concatenate(([start], start + np.cumsum(steps, axis=0))).round().astype(np.int32)
        one = cv2.fillPoly(np.zeros(shape, np.uint8), [points.reshape(-1, 1, 2)], 1)
        hole = mask[one > 0].mean() > 0.99
        mask[one > 0] = 0 if hole else 1
    return mask > 0


def cells_of(*masks: np.ndarray) -> Instances:
    return Instances.from_masks(np.array(masks, bool), np.zeros(len(masks), np.int64))


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return x**2 + y**2 <= radius**2


def test_discs_come_back() -> None:
    for radius in (2, 5, 9):
        mask = disc(24, radius)
        again = redrawn(outline(cells_of(mask), 0), mask.shape)
        assert (again & mask).sum() / (again | mask).sum() > 0.9


def test_a_square_is_its_four_corners() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:6, 3:10] = True
    assert outline(cells_of(mask), 0) == "M3.5 2.5l0 3 6 0 0-3z"


def test_one_pixel_is_a_dot_in_its_middle() -> None:
    mask = np.zeros((4, 5), bool)
    mask[3, 1] = True
    assert outline(cells_of(mask), 0) == "M1.5 3.5h0z"


def test_pieces_and_holes_belong_to_their_cell() -> None:
    ring, pieces = disc(24, 9) & ~disc(24, 4), np.zeros((24, 24), bool)
    pieces[:3, :3] = pieces[20:, 18:] = True
    for mask in (ring, pieces):
        path = outline(cells_of(mask), 0)
        assert path.count("M") == 1 and path.count("m") == 1 and path.count("z") == 2
    again = redrawn(outline(cells_of(pieces), 0), pieces.shape)
    np.testing.assert_array_equal(again, pieces)
    assert not redrawn(outline(cells_of(ring), 0), ring.shape)[12, 12]


def test_joined_paths_are_taken_apart_at_m() -> None:
    cells = cells_of(disc(24, 3), disc(24, 8) & ~disc(24, 5))
    both = outline(cells, 0) + outline(cells, 1)
    assert ["M" + part for part in both.split("M")[1:]] == [outline(cells, 0), outline(cells, 1)]


def test_a_cell_without_pixels_has_no_path() -> None:
    assert outline(Instances(np.zeros((1, 3, 3), np.uint16), np.zeros(1, np.int64)), 0) == ""

"""Cleaning, against scipy on whole images and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from sartorius.data.cleaning import Cleaning, CleaningReport, drop_pieces, fill_holes
from sartorius.errors import InputError
from sartorius.structures.instances import Instances


def blob(seed: int, density: float = 0.55) -> np.ndarray:
    return np.random.default_rng(seed).random((30, 40)) < density


@pytest.mark.parametrize("seed", range(8))
def test_fill_holes_is_scipys_on_the_padded_mask(seed: int) -> None:
    mask = blob(seed)
    expected = ndimage.binary_fill_holes(np.pad(mask, 1))[1:-1, 1:-1]
    np.testing.assert_array_equal(fill_holes(mask), expected)
    assert expected.sum() > mask.sum()


def test_open_rings_stay_open() -> None:
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    assert fill_holes(ring).all()
    ring[0, 2] = False
    np.testing.assert_array_equal(fill_holes(ring), ring)
    assert fill_holes(np.zeros((0, 0), bool)).shape == (0, 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.6, 1.0])
def test_drop_pieces_against_skimage(seed: int, share: float) -> None:
    mask = blob(seed, 0.3)
    pieces = label(mask, connectivity=2)
    areas = {k: int((pieces == k).sum()) for k in range(1, pieces.max() + 1)}
    largest = min(k for k, area in areas.items() if area == max(areas.values()))
    kept = [k for k, area in areas.items() if k == largest or area >= share * mask.sum()]
    np.testing.assert_array_equal(drop_pieces(mask, share), np.isin(pieces, kept))


def make_image() -> Instances:
    """Cell 0: a ring around cell 1. Cell 2: a block and a stray pixel. Cell 3: a speck. Cell 4: without fault."""
    masks = np.zeros((5, 40, 50), bool)
    masks[0, 2:12, 2:12] = True
    masks[0, 4:10, 4:10] = False
    masks[1, 5:9, 5:9] = True
    masks[2, 20:26, 0:10] = True
    masks[2, 30, 30] = True
    masks[3, 35, 2:5] = True
    masks[4, 30:40, 40:50] = True
    return Instances.from_masks(masks, [0, 0, 1, 1, 2])


def mask_of(instances: Instances, k: int) -> np.ndarray:
    return (instances.layers == k + 1).any(axis=0)


def test_repairs_and_reports_by_cell_type() -> None:
    before, report = make_image(), CleaningReport(("shsy5y", "astro", "cort"))
    after = Cleaning(holes=True, piece_share=0.1, min_area=10)(before, report)
    assert after.areas.tolist() == [100, 16, 60, 100]
    assert after.cell_types.tolist() == [0, 0, 1, 2]
    assert len(after.layers) == 2  # the filled ring now overlaps the cell inside it
    np.testing.assert_array_equal(mask_of(after, 1), mask_of(before, 1))
    np.testing.assert_array_equal(mask_of(after, 3), mask_of(before, 4))
    frame = report.frame()
    assert frame.loc["shsy5y"].to_dict() == {
        "cells": 2, "holes_filled": 1, "pixels_filled": 36,
        "pieces_dropped": 0, "pixels_dropped": 0, "cells_dropped": 0,
    }  # fmt: skip
    assert frame.loc["astro", ["pieces_dropped", "pixels_dropped", "cells_dropped"]].tolist() == [1, 1, 1]
    assert frame.loc["cort"].tolist() == [1, 0, 0, 0, 0, 0]


def test_nothing_configured_changes_nothing() -> None:
    before = make_image()
    assert Cleaning(holes=False)(before) is before
    empty = Instances.empty(8, 9)
    assert len(Cleaning(min_area=50)(empty)) == 0


def test_hole_open_to_the_edge_of_the_image_is_not_filled() -> None:
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 0:5, 2:8] = True
    mask[0, 0:3, 4:6] = False
    before = Instances.from_masks(mask, [0])
    assert Cleaning()(before).areas.tolist() == before.areas.tolist()


def test_cells_without_pixels_go() -> None:
    instances = Instances(np.zeros((1, 4, 4), np.uint16), np.array([0, 1]))
    assert len(Cleaning()(instances)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_random_cells_against_whole_image_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((12, 60, 70), bool)
    for mask in masks:
        y, x = rng.integers(0, 35), rng.integers(0, 40)
        mask[y : y + 25, x : x + 30] = rng.random((25, 30)) < 0.6
    after = Cleaning(holes=True)(Instances.from_masks(masks, np.zeros(12)))
    for k, mask in enumerate(masks):
        np.testing.assert_array_equal(mask_of(after, k), ndimage.binary_fill_holes(np.pad(mask, 1))[1:-1, 1:-1])


@pytest.mark.parametrize("bad", [{"piece_share": 1.5}, {"piece_share": -0.1}, {"min_area": -1}])
def test_bad_settings(bad: dict[str, float]) -> None:
    (key, value), *_ = bad.items()
    with pytest.raises(InputError, match=rf"cleaning\.{key}: expected a number .*, got {value}"):
        Cleaning(**bad)  # type: ignore[arg-type]

"""Holes opened again, and the order of the steps after mask NMS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.postprocess import Postprocess
from sartorius.postprocess.finalise import STEPS
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.detections import Detections
from tests.postprocess.shapes import dense_paste, detections, random_detections

LOOSE = Postprocess(score=0.0, mask=0.5, box_nms=1.0, mask_nms=1.0, min_area=0)


def dented(value: float = 0.6) -> Detections:
    """A full box of 16 x 16 with a dip in its middle and one at its rim, each 2 x 2 cells of 2 px."""
    one = detections([[10, 10, 26, 26]], [0.9], [1])
    masks = one.masks.copy()
    masks[0, 3:5, 3:5] = value
    masks[0, 0:2, 6:8] = value
    return replace(one, masks=masks)


def test_enclosed_dips_are_opened_and_the_rim_stays() -> None:
    one = dented()
    probability = dense_paste(one.boxes[0], one.masks[0], 40, 60)
    inside, core = probability > 0.5, probability > 0.7
    expected = inside & ~(ndimage.binary_fill_holes(core) & ~core)
    assert 0 < inside.sum() - expected.sum() <= 4 * 4
    final = replace(LOOSE, reopen_holes={"astro": 0.7, "default": 0})(one)
    np.testing.assert_array_equal(final.instances.layers[0] == 1, expected)


@pytest.mark.parametrize("reopen_holes", [None, 0, 0.5, {"cort": 0.9, "default": 0}, 1.0])
def test_nothing_to_open(reopen_holes: object) -> None:
    one = dented()
    final = replace(LOOSE, reopen_holes=reopen_holes)(one)  # type: ignore[arg-type]
    np.testing.assert_array_equal(final.instances.layers, LOOSE(one).instances.layers)


def test_pixels_of_others_are_no_holes() -> None:
    """A better cell in the middle of another is neither opened nor a reason to open."""
    both = detections([[10, 10, 26, 26], [16, 16, 20, 20]], [0.5, 0.9], [1, 1])
    final = replace(LOOSE, reopen_holes=0.7)(both)
    np.testing.assert_array_equal(final.instances.layers, LOOSE(both).instances.layers)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="postprocess.reopen_holes.astro: expected a number from 0 to 1, got 2"):
        replace(LOOSE, reopen_holes={"astro": 2})
    with pytest.raises(InputError, match="postprocess.reopen_holes has no value for cell type 'shsy5y'"):
        replace(LOOSE, reopen_holes={"astro": 0.7})(dented())
    for order in (STEPS[1:], (*STEPS, "overlaps"), ("watershed", *STEPS[1:])):
        with pytest.raises(InputError, match="postprocess.order: expected each of overlaps, largest_piece"):
            replace(LOOSE, order=order)


def test_area_before_overlaps_looks_at_whole_masks() -> None:
    """Both have 100 pixels; the second loses half of them to the first."""
    both = detections([[10, 10, 20, 20], [15, 10, 25, 20]], [0.9, 0.5])
    late = replace(LOOSE, min_area=60)
    early = replace(late, order=["min_area", "overlaps", "largest_piece", "fill_holes", "reopen_holes"])
    assert late(both).instances.areas.tolist() == [100]
    assert early(both).instances.areas.tolist() == [100, 100 - 50]


def test_holes_before_overlaps_are_filled_though_another_cell_lies_in_them() -> None:
    ring = detections([[10, 10, 26, 26], [16, 16, 20, 20]], [0.9, 0.5])
    masks = ring.masks.copy()
    masks[0, 2:6, 2:6] = 0
    ring = replace(ring, masks=masks)
    late = replace(LOOSE, fill_holes=True)
    early = replace(late, order=["fill_holes", "overlaps", "largest_piece", "reopen_holes", "min_area"])
    hole = 16 * 16 - int((dense_paste(ring.boxes[0], ring.masks[0], 40, 60) > 0.5).sum())
    assert late(ring).instances.areas.tolist() == [16 * 16 - hole, 16], "the hole touches two cells"
    assert early(ring).instances.areas.tolist() == [16 * 16] and hole > 16


@pytest.mark.parametrize("seed", range(3))
def test_layers_first_give_the_same_cells(seed: int) -> None:
    """With cleaning off, taking the masks apart into layers before overlap removal changes nothing."""
    d = random_detections(seed, 60)
    post = Postprocess(score=0.2, mask=0.45, box_nms=1.0, mask_nms=0.4, min_area=20)
    apart = replace(post, order=["fill_holes", "largest_piece", "overlaps", "reopen_holes", "min_area"])
    np.testing.assert_array_equal(post(d).instances.layers, apart(d).instances.layers)
    assert len(paste_masks(d.boxes[:0], d.masks[:0], np.zeros(0), 50, 70).pixel) == 0
    nothing = d.select([])
    assert len(apart(nothing)) == len(post(nothing)) == 0

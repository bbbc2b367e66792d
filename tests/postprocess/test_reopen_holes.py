"""Holes opened again, and the order of the steps after mask NMS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.postprocess import Postprocess
from sartorius.postprocess.candidates import Candidates
from sartorius.postprocess.paste import paste_masks
from sartorius.postprocess.step import Step
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import pipeline
from tests.postprocess.shapes import dense_paste, detections, random_detections

LOOSE = pipeline()


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
    final = pipeline(reopen_holes={"astro": 0.7, "default": 0})(one)
    np.testing.assert_array_equal(final.instances.layers[0] == 1, expected)


@pytest.mark.parametrize("reopen_holes", [None, 0, 0.5, {"cort": 0.9, "default": 0}, 1.0])
def test_nothing_to_open(reopen_holes: object) -> None:
    one = dented()
    final = pipeline(reopen_holes=reopen_holes)(one)
    np.testing.assert_array_equal(final.instances.layers, LOOSE(one).instances.layers)


def test_pixels_of_others_are_no_holes() -> None:
    """A better cell in the middle of another is neither opened nor a reason to open."""
    both = detections([[10, 10, 26, 26], [16, 16, 20, 20]], [0.5, 0.9], [1, 1])
    final = pipeline(reopen_holes=0.7)(both)
    np.testing.assert_array_equal(final.instances.layers, LOOSE(both).instances.layers)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="reopen_holes.threshold.astro: expected a number from 0 to 1, got 2"):
        pipeline(reopen_holes={"astro": 2})
    with pytest.raises(InputError, match="postprocess.reopen_holes.threshold has no value for cell type 'shsy5y'"):
        pipeline(reopen_holes={"astro": 0.7})(dented())


def test_area_before_overlaps_looks_at_whole_masks() -> None:
    """Both have 100 pixels; the second loses half of them to the first."""
    both = detections([[10, 10, 20, 20], [15, 10, 25, 20]], [0.9, 0.5])
    late = pipeline(min_area=60)
    early = pipeline(min_area=60, last=["min_area", "overlaps"])
    assert late(both).instances.areas.tolist() == [100]
    assert early(both).instances.areas.tolist() == [100, 100 - 50]


def test_holes_before_overlaps_are_filled_though_another_cell_lies_in_them() -> None:
    ring = detections([[10, 10, 26, 26], [16, 16, 20, 20]], [0.9, 0.5])
    masks = ring.masks.copy()
    masks[0, 2:6, 2:6] = 0
    ring = replace(ring, masks=masks)
    late = pipeline(fill_holes=True)
    early = pipeline(fill_holes=True, last=["fill_holes", "overlaps", "min_area"])
    hole = 16 * 16 - int((dense_paste(ring.boxes[0], ring.masks[0], 40, 60) > 0.5).sum())
    assert late(ring).instances.areas.tolist() == [16 * 16 - hole, 16], "the hole touches two cells"
    assert early(ring).instances.areas.tolist() == [16 * 16] and hole > 16


class InLayers(Step):
    """Takes the masks apart into layers and changes nothing else."""

    def __call__(self, candidates: Candidates) -> Candidates:
        return replace(candidates, masks=candidates.layers())


def replace_masks(post: Postprocess) -> Postprocess:
    """The same steps, over layers from mask NMS on."""
    order = [*post.steps]
    order.insert(order.index("overlaps"), "in_layers")
    return Postprocess(order, **post.steps, in_layers=InLayers())


@pytest.mark.parametrize("seed", range(3))
def test_layers_first_give_the_same_cells(seed: int) -> None:
    """With cleaning off, taking the masks apart into layers before overlap removal changes nothing."""
    d = random_detections(seed, 60)
    settings = {"score": 0.2, "mask": 0.45, "mask_nms": 0.4, "min_area": 20}
    post = pipeline(**settings)
    apart = replace_masks(post)
    np.testing.assert_array_equal(post(d).instances.layers, apart(d).instances.layers)
    assert len(paste_masks(d.boxes[:0], d.masks[:0], np.zeros(0), 50, 70).pixel) == 0
    nothing = d.select([])
    assert len(apart(nothing)) == len(post(nothing)) == 0

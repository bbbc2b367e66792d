from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, nms

from sartorius.postprocess.nms import box_nms, mask_intersections, mask_nms, suppress
from sartorius.postprocess.paste import PastedMasks, paste_masks
from tests.postprocess.shapes import random_detections


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("agnostic", [True, False])
def test_box_nms_agrees_with_torchvision(seed: int, agnostic: bool) -> None:
    d = random_detections(seed, 120).sorted()
    boxes, scores = torch.from_numpy(d.boxes), torch.from_numpy(d.scores)
    expected = nms(boxes, scores, 0.4) if agnostic else batched_nms(boxes, scores, torch.from_numpy(d.cell_types), 0.4)
    keep = box_nms(d.boxes, d.cell_types, np.full(len(d), 0.4), agnostic)
    assert np.flatnonzero(keep).tolist() == sorted(expected.tolist())
    assert 1 < keep.sum() < len(d)


def test_each_box_answers_to_its_own_threshold() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 8, 10]])  # IoU 0.8 with the first
    assert box_nms(boxes, np.zeros(3, int), np.array([0.0, 0.9, 0.5])).tolist() == [True, True, False]
    assert box_nms(boxes, np.zeros(3, int), np.full(3, 0.8)).all(), "an IoU equal to the threshold stays"
    assert box_nms(boxes[[0, 0]], np.zeros(2, int), np.ones(2)).all(), "a threshold of 1 drops nothing"
    assert box_nms(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)).shape == (0,)


def test_a_dropped_item_drops_nothing() -> None:
    assert suppress(3, np.array([1, 0]), np.array([2, 1])).tolist() == [True, False, True]
    none = np.zeros(0, int)
    assert suppress(0, none, none).shape == (0,) and suppress(2, none, none).all()


def dense(pasted: PastedMasks) -> np.ndarray:
    masks = np.zeros((pasted.count, pasted.height * pasted.width), np.int64)
    masks[pasted.mask, pasted.pixel] = 1
    return masks


@pytest.mark.parametrize("overlap", ["iou", "iom"])
@pytest.mark.parametrize("seed", range(4))
def test_mask_nms_agrees_with_dense_masks(seed: int, overlap: str) -> None:
    d = random_detections(seed, 80).sorted()
    pasted = paste_masks(d.boxes, d.masks, np.full(len(d), 0.5), d.height, d.width)
    limits = np.random.default_rng(seed).uniform(0.05, 0.6, len(d))
    masks = dense(pasted)
    shared, areas = masks @ masks.T, masks.sum(axis=1)
    i, j, pixels = mask_intersections(pasted)
    upper = np.triu(shared, 1)
    assert sorted(zip(i, j, pixels, strict=True)) == [
        (a, b, upper[a, b]) for a, b in zip(*np.nonzero(upper), strict=True)
    ]
    keep = np.ones(len(d), bool)
    for b in range(len(d)):
        for a in range(b):
            whole = areas[a] + areas[b] - shared[a, b] if overlap == "iou" else min(areas[a], areas[b])
            if keep[a] and shared[a, b] > limits[b] * whole:
                keep[b] = False
    np.testing.assert_array_equal(mask_nms(pasted, limits, overlap), keep)  # type: ignore[arg-type]
    assert 1 < keep.sum() < len(d)


def test_iom_drops_a_fragment_that_iou_keeps() -> None:
    pasted = paste_masks(np.array([[0, 0, 20, 20], [2, 2, 5, 5]]), np.ones((2, 4, 4)), np.full(2, 0.5), 30, 30)
    assert mask_nms(pasted, np.full(2, 0.5)).all()
    assert mask_nms(pasted, np.full(2, 0.5), "iom").tolist() == [True, False]


def test_nothing_pasted() -> None:
    none = np.zeros(0, np.int64)
    assert mask_nms(PastedMasks(none, none, 0, 5, 5), np.zeros(0)).shape == (0,)
    assert mask_nms(PastedMasks(none, none, 2, 5, 5), np.zeros(2)).all()

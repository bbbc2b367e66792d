"""PQ, AJI and AJI+ of the densest image, beside the loops over masks that the field's code uses.

The peer is HoVer-Net's evaluation (Graham et al. 2019), rewritten: a full-size mask a cell, and for each annotated cell
its intersections with the predictions that it meets. Both sides get label maps without overlaps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.metrics.functional import Intersections
from sartorius.metrics.instance_scores import overlap_row, scores_per_image

LabelMap = NDArray[np.int64]


def ours(predicted: LabelMap, true: LabelMap) -> list[float]:
    """PQ, AJI and AJI+ from sparse intersections."""
    shared = Intersections.of(predicted, true)
    scores = scores_per_image(shared.row(0)[None], overlap_row(0, shared)[None])
    return [float(scores[key][0]) for key in ("pq", "aji", "aji_plus")]


def peer(predicted: LabelMap, true: LabelMap) -> list[float]:
    """The same with a full-size mask a cell; labels are 1 ... N without gaps."""
    masks, true_masks = ([side == k + 1 for k in range(side.max())] for side in (predicted, true))
    shared, union = np.zeros((2, len(true_masks), len(masks)))
    for j, mask in enumerate(true_masks):
        for i in np.unique(predicted[mask]):
            if i:
                shared[j, i - 1] = np.logical_and(mask, masks[i - 1]).sum()
                union[j, i - 1] = np.logical_or(mask, masks[i - 1]).sum()
    iou = shared / np.maximum(union, 1)
    matched = iou[iou > 0.5]
    pq = 2 * matched.sum() / sum(iou.shape)
    closest = np.flatnonzero(iou.max(axis=1) > 0)
    pairs = [(closest, iou[closest].argmax(axis=1)), linear_sum_assignment(-iou)]
    results = [float(pq)]
    for j, i in pairs:
        j, i = j[iou[j, i] > 0], i[iou[j, i] > 0]
        rest = sum(true_masks[k].sum() for k in set(range(len(true_masks))) - set(j.tolist()))
        rest += sum(masks[k].sum() for k in set(range(len(masks))) - set(i.tolist()))
        results.append(float(shared[j, i].sum() / (union[j, i].sum() + rest)))
    return results


def sides(sample: images.Annotated) -> tuple[LabelMap, LabelMap]:
    """Flat label maps of the cells moved by 2 px, as predictions, and of the cells."""
    flat = sample.instances().layers.max(axis=0).astype(np.int64)
    _, numbered = np.unique(flat, return_inverse=True)
    true = numbered.reshape(flat.shape)
    moved = np.zeros_like(true)
    moved[2:, 2:] = true[:-2, :-2]
    _, numbered = np.unique(moved, return_inverse=True)
    return numbered.reshape(flat.shape), true


def rows() -> Iterator[Row]:
    """Milliseconds for the densest image."""
    sample = images.densest()
    predicted, true = sides(sample)
    np.testing.assert_allclose(ours(predicted, true), peer(predicted, true), rtol=1e-9)
    same = expect(ours(predicted, true)[1] > 0, "PQ, AJI and AJI+ to 1e-9")
    times = side_by_side(lambda: ours(predicted, true), lambda: peer(predicted, true))
    what = f"PQ, AJI, AJI+ from maps, {true.max()} {sample.source} cells"
    yield Row(what, "ms", *times, "HoVer-Net's loops over masks", same, at_least=20)

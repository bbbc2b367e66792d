"""Predictions where nobody has labelled: the one rule by which they are neither right nor wrong.

A prediction that has more than half of its pixels among those of no label is left out of every score, as if it had not
been made. None of them could be a hit: an IoU of 0.50 with a labelled cell takes half of its pixels on that cell.
"""

from __future__ import annotations

import numpy as np

from sartorius.structures.arrays import Bools, Floats
from sartorius.structures.rle import Runs

_HIT = 0.5  # IoU of boxes from which on COCO may call one right


def left_out(predictions: Runs, ignored: Bools | None) -> Bools:
    """Mark the predictions that are neither right nor wrong, bool [N]; none where `ignored` is None.

    ignored: bool [H, W], pixels that nobody has labelled, of no labelled cell; of the size of the predictions' image.
    """
    if ignored is None:
        return np.zeros(predictions.count, bool)
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(ignored, dtype=np.int64)))
    inside = before[predictions.start + predictions.length] - before[predictions.start]
    return 2 * np.bincount(predictions.cell, inside, predictions.count) > predictions.areas


def boxes_left_out(boxes: Floats, cell_boxes: Floats, ignored: Bools | None) -> Bools:
    """Apply the rule to boxes [N, 4] without masks, x1 y1 x2 y2 rounded to whole pixels: bool [N].

    A box that may be a hit of one of the labelled cells' boxes [M, 4] is kept: a thin cell leaves most of its box to
    others.
    """
    if ignored is None:
        return np.zeros(len(boxes), bool)
    height, width = ignored.shape
    integral = np.zeros((height + 1, width + 1), np.int64)
    integral[1:, 1:] = ignored.cumsum(0, dtype=np.int64).cumsum(1)
    x1, y1, x2, y2 = np.rint(boxes).astype(np.int64).clip(0, [width, height, width, height]).T
    inside = integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1]
    chosen = 2 * inside > (x2 - x1) * (y2 - y1)
    a, b = boxes[chosen, None].astype(np.float64), np.asarray(cell_boxes, np.float64)[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    shared, areas = sides.prod(axis=-1), [(of[..., 2:] - of[..., :2]).prod(axis=-1) for of in (a, b)]
    chosen[chosen] = (shared < _HIT * (areas[0] + areas[1] - shared)).all(axis=1)
    return chosen

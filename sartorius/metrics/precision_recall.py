"""Precision and recall of cells over their score: the same matches as the competition's score, one threshold at a time.

All images are pooled: images with many cells weigh more than in the competition's mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sartorius.structures import rle
from sartorius.structures.arrays import Floats
from sartorius.structures.rle import Runs


def hits(predictions: Runs, truth: Runs, percents: Sequence[int]) -> NDArray[np.bool_]:
    """Which of N predictions hit a cell: bool [N, T], an IoU above percent / 100 for each of `percents`, from 50 on.

    predictions share no pixel, so that at most one of them hits a cell, and their number is that of the true positives
    in `functional.image_row`: a prediction that hits two overlapping cells counts once. Raises ValueError below 50
    percent, where that does not hold.
    """
    if min(percents, default=50) < 50:
        raise ValueError(f"IoU thresholds of 50 percent and more expected, got {list(percents)}")
    i, j, pixels = rle.intersections(predictions, truth)
    union = predictions.areas[i] + truth.areas[j] - pixels
    hit = np.zeros((predictions.count, len(percents)), bool)
    for k, percent in enumerate(percents):
        hit[i[100 * pixels > percent * union], k] = True
    return hit


@dataclass(frozen=True)
class Curve:
    """Precision and recall when predictions below a score are left out: float64 [K] each, scores falling.

    K is 0 where there is no prediction.
    """

    scores: Floats
    precision: Floats
    recall: Floats


def curve(scores: ArrayLike, hit: ArrayLike, cells: int, points: int) -> Curve:
    """The curve of N predictions of any number of images with so many cells, thinned to about `points` places.

    scores: [N] in 0..1. hit: bool [N]. Predictions of one score come in together. Recall is 0 without cells. A thinned
    curve keeps its two ends.
    """
    values = np.asarray(scores, np.float64)
    order = np.argsort(-values, kind="stable")
    values, true = values[order], np.cumsum(np.asarray(hit, bool)[order])
    ends = np.flatnonzero(np.diff(values, append=-np.inf))  # the last prediction of each score
    if len(ends) > points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).round().astype(int))]
    return Curve(values[ends], true[ends] / (ends + 1), true[ends] / max(cells, 1))

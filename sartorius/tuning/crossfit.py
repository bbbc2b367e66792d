"""The gain of tuned thresholds on the images they were tuned on, and on images left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sartorius.metrics.functional import average_precision_per_image
from sartorius.structures.arrays import Floats, Ints
from sartorius.tuning.scorer import Scorer, scorer_of
from sartorius.tuning.search import Searcher
from sartorius.tuning.space import ByType

FINAL = "final"  # the name of the search on all images
SCORED = ("untuned", "tuned", "cross_fitted")


@dataclass(frozen=True)
class Tuned:
    """Thresholds before and after, and the scores of P images under them.

    scores: float64 [P] each, `untuned`, `tuned` (by thresholds of all images) and, where there were folds,
    `cross_fitted` (by thresholds of the other folds). of_fold: the thresholds tuned without each fold.
    """

    images: tuple[str, ...]
    start: ByType
    thresholds: ByType
    scores: Mapping[str, Floats]
    of_fold: Sequence[ByType]


def tune(searcher: Searcher, start: ByType, folds: Ints | None) -> Tuned:
    """Tune on all images of the searcher's tables, and once without each fold.

    folds: the fold of each image, int64 [P], 0 to F-1; None leaves out cross-fitting. A search gets
    the names of its own images only.
    """
    tables = searcher.tables
    images = np.array(tables.images, dtype=object)
    everything = scorer_of(tables, tables.images)
    final = searcher.best(FINAL, tables.images, start)
    scores = {"untuned": _scores(everything, start), "tuned": _scores(everything, final)}
    of_fold: list[ByType] = []
    if folds is not None:
        scores["cross_fitted"] = np.zeros(len(images))
        for fold in range(int(folds.max()) + 1):
            outside, inside = images[folds != fold].tolist(), images[folds == fold].tolist()
            best = searcher.best(f"without_fold{fold}", outside, start)
            scores["cross_fitted"][folds == fold] = _scores(scorer_of(tables, inside), best)
            of_fold.append(best)
    return Tuned(tables.images, start, final, scores, of_fold)


def _scores(scorer: Scorer, thresholds: ByType) -> Floats:
    return average_precision_per_image(scorer.rows(thresholds))

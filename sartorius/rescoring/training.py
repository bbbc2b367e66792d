"""Training of the false-positive filter, cross-fitted, so that its gain is known before it is used.

Every choice is made without the images that it is scored on: the threshold of a fold is chosen on out-of-fold
predictions of the other folds only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.metrics.bootstrap import paired_bootstrap
from sartorius.metrics.functional import average_precision_per_image, competition_map
from sartorius.rescoring.examples import Example, rows_of
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.rescoring.trees import Trees
from sartorius.structures.arrays import Bools, Floats, Ints

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

NewRegressor = Callable[[], "HistGradientBoostingRegressor"]


def fit_trees(examples: Sequence[Example], regressor: NewRegressor) -> Trees:
    """Fit trees that predict the IoU of a cell to these images. Raises InputError where they hold no cell."""
    features = np.concatenate([example.features for example in examples])
    if not len(features):
        raise InputError(f"no cell in {len(examples)} images to train the filter on; lower postprocess.score")
    return Trees.of(regressor().fit(features, np.concatenate([example.iou for example in examples])))


def out_of_fold(examples: Sequence[Example], folds: Ints, regressor: NewRegressor) -> list[Floats]:
    """Predict the IoU of each image's cells by trees fitted without its fold; folds int64 [P]."""
    result: list[Floats] = [np.zeros(0)] * len(examples)
    for fold in np.unique(folds).tolist():
        trees = fit_trees([example for example, k in zip(examples, folds, strict=True) if k != fold], regressor)
        for index in np.flatnonzero(folds == fold).tolist():
            result[index] = trees.predict(examples[index].features)
    return result


def best_threshold(examples: Sequence[Example], expected: Sequence[Floats], thresholds: Sequence[float]) -> float:
    """Choose the threshold with the largest competition mAP on these images, the lowest of equally good ones."""
    tried = sorted(thresholds)
    rows = [[e.row(iou >= threshold) for threshold in tried] for e, iou in zip(examples, expected, strict=True)]
    scores = np.mean([average_precision_per_image(np.array(of_image)) for of_image in rows], axis=0)
    return float(tried[int(np.argmax(scores))])


def cross_fitted(
    examples: Sequence[Example], folds: Ints, thresholds: Sequence[float], regressor: NewRegressor
) -> Ints:
    """Make rows int64 [P, 13] of the filtered images, each by trees and a threshold fitted without its fold.

    Index k of a row is the position of its image. Takes folds x folds fits. Raises InputError for fewer than 3 folds:
    the two others at least are needed to choose a threshold.
    """
    if len(np.unique(folds)) < 3:
        raise InputError(f"{len(np.unique(folds))} folds hold images; the filter needs 3 or more to be cross-fitted")
    kept: list[Bools] = [np.zeros(0, dtype=bool)] * len(examples)
    for fold in np.unique(folds).tolist():
        inside = folds != fold
        training = [example for example, chosen in zip(examples, inside, strict=True) if chosen]
        threshold = best_threshold(training, out_of_fold(training, folds[inside], regressor), thresholds)
        trees = fit_trees(training, regressor)
        for index in np.flatnonzero(~inside).tolist():
            kept[index] = trees.predict(examples[index].features) >= threshold
    return rows_of(examples, kept)


def fit(
    examples: Sequence[Example],
    folds: Ints,
    thresholds: Sequence[float],
    regressor: NewRegressor,
    cell_type_names: Sequence[str],
) -> FalsePositiveFilter:
    """Fit the filter to all images: the threshold to out-of-fold predictions, the trees to all cells."""
    threshold = best_threshold(examples, out_of_fold(examples, folds, regressor), thresholds)
    return FalsePositiveFilter(fit_trees(examples, regressor), threshold, tuple(cell_type_names))


def unfiltered(examples: Sequence[Example]) -> Ints:
    """Make rows int64 [P, 13] with every cell kept."""
    return rows_of(examples, [np.ones(len(e.areas), dtype=bool) for e in examples])


def gain(plain: Ints, filtered: Ints, bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise rows for the report: unfiltered and cross_fitted mAP, and their paired difference.

    bootstrap: samples, seed and level of the difference's interval.
    """
    after, before = average_precision_per_image(filtered), average_precision_per_image(plain)
    difference = paired_bootstrap(after, before, **bootstrap)
    return {
        "images": len(plain),
        "unfiltered": {"competition_map": competition_map(plain), "predictions": int(plain[:, -2].sum())},
        "cross_fitted": {"competition_map": competition_map(filtered), "predictions": int(filtered[:, -2].sum())},
        "difference": {"mean": difference.mean, "interval": [difference.low, difference.high]},
    }

"""Training of the second-level filter: out of fold, so that what it is worth is known before it is used.

Every choice is made without the images that it is scored on: for each fold the cut-off comes from predictions, out of
fold themselves, on the other folds only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.metrics.functional import ROW_LENGTH, average_precision_per_image, true_positives
from sartorius.postprocess.finalise import Finalised
from sartorius.rescoring.cell_features import cell_features
from sartorius.rescoring.filter import SecondLevel
from sartorius.rescoring.trees import Trees
from sartorius.structures import rle
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

Grow = Callable[[], "HistGradientBoostingRegressor"]


@dataclass(frozen=True)
class Example:
    """An image's N cells: features float64 [N, F]; and what the score needs of them and of the true cells.

    pairs: (i, j, shared pixels) of cells and true cells that meet, areas and true_areas: int64, pixels.
    """

    image_id: str
    features: Floats
    pairs: tuple[Ints, Ints, Ints]
    areas: Ints
    true_areas: Ints

    @classmethod
    def of(cls, detections: Detections, finalised: Finalised, truth: Runs) -> Example:
        """From an image's cells and its annotation; ValueError for sizes that differ."""
        runs = finalised.instances.to_runs()
        pairs = rle.intersections(runs, truth)
        return cls(detections.image_id, cell_features(detections, finalised), pairs, runs.areas, truth.areas)

    @cached_property
    def iou(self) -> Floats:
        """The best IoU of each cell with a true one, float64 [N]; 0 where it meets none."""
        i, j, shared = self.pairs
        best = np.zeros(len(self.areas))
        np.maximum.at(best, i, shared / (self.areas[i] + self.true_areas[j] - shared))
        return best

    def row(self, keep: NDArray[np.bool_]) -> Ints:
        """The image's row of `metrics.functional`, index 0, with only the cells of `keep` [N]."""
        i, j, shared = (part[keep[self.pairs[0]]] for part in self.pairs)
        row = np.zeros(ROW_LENGTH, np.int64)
        row[1:-2] = true_positives(i, j, shared, self.areas, self.true_areas)
        row[-2:] = np.count_nonzero(keep), np.count_nonzero(self.true_areas)
        return row


def grow_trees(examples: Sequence[Example], grow: Grow) -> Trees:
    """Trees that predict the IoU of a cell, grown on these images. Raises InputError where they hold no cell."""
    features = np.concatenate([example.features for example in examples])
    if not len(features):
        raise InputError(f"no cell in {len(examples)} images to train the filter on; lower postprocess.score")
    return Trees.of(grow().fit(features, np.concatenate([example.iou for example in examples])))


def out_of_fold(examples: Sequence[Example], folds: Ints, grow: Grow) -> list[Floats]:
    """The expected IoU of each image's cells by trees that were grown without its fold; folds int64 [P]."""
    result: list[Floats] = [np.zeros(0)] * len(examples)
    for fold in np.unique(folds).tolist():
        trees = grow_trees([example for example, k in zip(examples, folds, strict=True) if k != fold], grow)
        for index in np.flatnonzero(folds == fold).tolist():
            result[index] = trees.predict(examples[index].features)
    return result


def best_cut_off(examples: Sequence[Example], expected: Sequence[Floats], cut_offs: Sequence[float]) -> float:
    """The cut-off with the largest competition mAP on these images, the lowest of equally good ones."""
    tried = sorted(cut_offs)
    rows = [[e.row(iou >= cut) for cut in tried] for e, iou in zip(examples, expected, strict=True)]
    scores = np.mean([average_precision_per_image(np.array(of_image)) for of_image in rows], axis=0)
    return float(tried[int(np.argmax(scores))])


def cross_fitted(examples: Sequence[Example], folds: Ints, cut_offs: Sequence[float], grow: Grow) -> Ints:
    """Rows int64 [P, 13] of the filtered images, each by trees and a cut-off that its fold had no part in.

    Index k of a row is the position of its image. Takes folds x folds growths. Raises InputError for fewer than 3
    folds: those left over must have two at least for a cut-off of their own.
    """
    if len(np.unique(folds)) < 3:
        raise InputError(f"{len(np.unique(folds))} folds hold images; the filter needs 3 or more to be cross-fitted")
    rows = np.zeros((len(examples), ROW_LENGTH), np.int64)
    for fold in np.unique(folds).tolist():
        inside = folds != fold
        training = [example for example, kept in zip(examples, inside, strict=True) if kept]
        cut_off = best_cut_off(training, out_of_fold(training, folds[inside], grow), cut_offs)
        trees = grow_trees(training, grow)
        for index in np.flatnonzero(~inside).tolist():
            rows[index] = examples[index].row(trees.predict(examples[index].features) >= cut_off)
    rows[:, 0] = np.arange(len(rows))
    return rows


def fit(
    examples: Sequence[Example], folds: Ints, cut_offs: Sequence[float], grow: Grow, cell_type_names: Sequence[str]
) -> SecondLevel:
    """The filter of all images: the cut-off from predictions out of fold, the trees from all."""
    cut_off = best_cut_off(examples, out_of_fold(examples, folds, grow), cut_offs)
    return SecondLevel(grow_trees(examples, grow), cut_off, tuple(cell_type_names))


def unfiltered(examples: Sequence[Example]) -> Ints:
    """Rows int64 [P, 13] with every cell kept."""
    rows = np.array([e.row(np.ones(len(e.areas), dtype=bool)) for e in examples], np.int64).reshape(-1, ROW_LENGTH)
    rows[:, 0] = np.arange(len(rows))
    return rows

"""The competition's score, exactly: one integer row an image, everything else is arithmetic on rows.

A prediction hits a cell when their IoU is strictly above a threshold, of 0.50, 0.55, ... 0.95. Predictions and
cells are matched one to one. An image's precision at a threshold is TP / (TP + FP + FN), its average precision
the mean over thresholds, and the competition's mAP the mean over images. Cell types play no part.

A row is int64 [13]: image index, true positives at the ten thresholds, predictions, cells. Rows of several
processes are concatenated, deduplicated by image and averaged in float64, so the score does not depend on
how images are distributed. No array is cells x cells or cells x height x width: pairs are kept sparse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from sartorius.structures import rle
from sartorius.structures.arrays import AnyInts, Floats, Ints
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

Cells = Runs | Instances | AnyInts
Pairs = tuple[Ints, Ints, Ints]

# Integers, so that an IoU of exactly one half is not above 0.50 by a rounding error.
THRESHOLD_PERCENT: Ints = np.arange(50, 100, 5)
THRESHOLDS: tuple[float, ...] = tuple(percent / 100 for percent in THRESHOLD_PERCENT.tolist())
ROW_LENGTH = 1 + len(THRESHOLDS) + 2


def image_row(index: int, predictions: Cells, truth: Cells) -> Ints:
    """Return one image's row, int64 [13]: (index, true positives at THRESHOLDS, number of predictions, of cells).

    Both sides may be runs, instances, a label map [H, W] (0 is background, gaps in the numbering are allowed) or
    layers [L, H, W]; cells of one side may overlap. Cells without pixels are not counted. Where one prediction
    exceeds a threshold with two overlapping cells, one of them counts as found and the other as missed.
    Raises ValueError when the two sides have different image sizes.
    """
    (i, j, pixels), prediction_areas, cell_areas = _overlaps(predictions, truth)
    row = np.empty(ROW_LENGTH, dtype=np.int64)
    row[0] = index
    row[1:-2] = true_positives(i, j, pixels, prediction_areas, cell_areas)
    row[-2:] = np.count_nonzero(prediction_areas), np.count_nonzero(cell_areas)
    return row


def true_positives(i: Ints, j: Ints, pixels: Ints, prediction_areas: Ints, cell_areas: Ints) -> Ints:
    """Count matched pairs at each of THRESHOLDS, int64 [10], from the sparse intersections of one image.

    Pair k: prediction i[k] and cell j[k] share pixels[k] > 0 pixels; areas are in pixels. The matching is
    one to one and as large as possible.
    """
    union = prediction_areas[i] + cell_areas[j] - pixels
    close = 100 * pixels > THRESHOLD_PERCENT[0] * union
    i, j, pixels, union = i[close], j[close], pixels[close], union[close]
    hits = 100 * pixels[:, None] > THRESHOLD_PERCENT * union[:, None]  # [pairs, 10]
    if np.unique(i).size == i.size and np.unique(j).size == j.size:
        return hits.sum(axis=0)
    return np.array([_matching(i[hit], j[hit]).size for hit in hits.T], dtype=np.int64)


@dataclass(frozen=True)
class CellMatches:
    """The matching of N predictions with M cells of an image at an IoU above 0.50, and each one's IoU.

    cell: int64 [N], the cell that each prediction is matched with, -1 for a false alarm. prediction: int64 [M], the
    other way round, -1 for a missed cell. iou: float64 [N], of each prediction with its cell, or for a false alarm the
    highest with any; cell_iou: float64 [M], likewise; 0 where nothing is near.
    """

    cell: Ints
    prediction: Ints
    iou: Floats
    cell_iou: Floats


def match_cells(predictions: Cells, truth: Cells) -> CellMatches:
    """Match predictions with cells at an IoU above 0.50; there are as many pairs as `image_row` counts.

    Where a prediction is above the threshold with several cells, it is matched with the closest of them. Takes
    what `image_row` takes, and raises as it does.
    """
    (i, j, pixels), prediction_areas, cell_areas = _overlaps(predictions, truth)
    union = prediction_areas[i] + cell_areas[j] - pixels
    ratio = pixels / union
    hit = np.flatnonzero(100 * pixels > THRESHOLD_PERCENT[0] * union)
    hit = hit[np.argsort(-ratio[hit], kind="stable")]
    pairs = hit[_matching(i[hit], j[hit])]
    cell, prediction = np.full(prediction_areas.size, -1), np.full(cell_areas.size, -1)
    iou, cell_iou = np.zeros(prediction_areas.size), np.zeros(cell_areas.size)
    np.maximum.at(iou, i, ratio)
    np.maximum.at(cell_iou, j, ratio)
    cell[i[pairs]], prediction[j[pairs]] = j[pairs], i[pairs]
    iou[i[pairs]], cell_iou[j[pairs]] = ratio[pairs], ratio[pairs]
    return CellMatches(cell, prediction, iou, cell_iou)


def _matching(i: Ints, j: Ints) -> Ints:
    """Choose pairs (i[k], j[k]) of a largest one-to-one matching, as indices; of a star the first pair."""
    rows, first_of_row, row = np.unique(i, return_index=True, return_inverse=True)
    columns, first_of_column, column = np.unique(j, return_index=True, return_inverse=True)
    if columns.size == i.size:
        return first_of_row
    if rows.size == i.size:
        return first_of_column
    number = csr_matrix((np.arange(1, i.size + 1), (row, column)), shape=(rows.size, columns.size))
    partner = maximum_bipartite_matching(number, perm_type="column")
    taken = np.flatnonzero(partner >= 0)
    return np.asarray(number[taken, partner[taken]]).ravel().astype(np.int64) - 1


def _overlaps(predictions: Cells, truth: Cells) -> tuple[Pairs, Ints, Ints]:
    """Return sparse intersections (i, j, pixels) and the areas of both sides."""
    left, right = _as_runs(predictions), _as_runs(truth)
    return rle.intersections(left, right), left.areas, right.areas


def _as_runs(cells: Cells) -> Runs:
    if isinstance(cells, Runs):
        return cells
    # Counting joint identifiers pixel by pixel took three times as long as finding the runs first.
    return cells.to_runs() if isinstance(cells, Instances) else rle.from_layers(cells)


def deduplicate(rows: Ints) -> Ints:
    """Sort rows by image index, the first of each image kept: int64 [P, 13].

    A distributed sampler repeats images to fill the last batch; they must count once.
    """
    rows = np.asarray(rows, dtype=np.int64).reshape(-1, ROW_LENGTH)
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


def precision_per_image(rows: Ints) -> Floats:
    """Return TP / (TP + FP + FN) of each row at each threshold, float64 [P, 10], in the order of the rows.

    1 for an image without cells and without predictions, 0 when only one of the two is missing.
    """
    hits = rows[:, 1:-2].astype(np.float64)
    total = rows[:, -2:].sum(axis=1, keepdims=True) - hits
    return np.divide(hits, total, out=np.ones_like(hits), where=total > 0)


def average_precision_per_image(rows: Ints) -> Floats:
    """Return the mean over thresholds of each row's precision, float64 [P]; the competition averages it over images."""
    return precision_per_image(rows).mean(axis=1)


def competition_map(rows: Ints) -> float:
    """Return the competition's score: the mean over images of the mean over thresholds; NaN without images."""
    return float(average_precision_per_image(rows).mean()) if len(rows) else float("nan")


def pooled_precision(rows: Ints) -> Floats:
    """Return TP / (TP + FP + FN) at each threshold with the counts of all images summed first, float64 [10].

    This is not the competition's score: images with many cells weigh more. NaN without images.
    """
    if not len(rows):
        return np.full(len(THRESHOLDS), np.nan)
    return precision_per_image(rows.sum(axis=0, keepdims=True))[0]


def mean_by_group(scores: Floats, groups: Sequence[str]) -> Mapping[str, float]:
    """Return the mean of the images' scores [P] of each group (cell type) that occurs, in order of first appearance."""
    names = np.asarray(groups, dtype=object)
    return {name: float(scores[names == name].mean()) for name in dict.fromkeys(groups)}

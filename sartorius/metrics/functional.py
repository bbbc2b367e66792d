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
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

from sartorius.metrics.unlabelled import left_out
from sartorius.structures import rle
from sartorius.structures.arrays import AnyInts, Bools, Floats, Ints
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

Cells = Runs | Instances | AnyInts

# Integers, so that an IoU of exactly one half is not above 0.50 by a rounding error.
THRESHOLD_PERCENT: Ints = np.arange(50, 100, 5)
THRESHOLDS: tuple[float, ...] = tuple(percent / 100 for percent in THRESHOLD_PERCENT.tolist())
ROW_LENGTH = 1 + len(THRESHOLDS) + 2


@dataclass(frozen=True)
class Intersections:
    """The pairs of N predictions and M cells of an image that share pixels; cells of one side may overlap.

    Pair k: prediction i[k] and cell j[k] share pixels[k] > 0 pixels, int64 [P]. prediction_areas: int64 [N] and
    cell_areas: int64 [M], in pixels; 0 for an empty one, which is in no pair and is not counted anywhere, as one that
    is left out. left_out: how many are, see `metrics.unlabelled`.
    """

    i: Ints
    j: Ints
    pixels: Ints
    prediction_areas: Ints
    cell_areas: Ints
    left_out: int = 0

    @classmethod
    def of(cls, predictions: Cells, truth: Cells, ignored: Bools | None = None) -> Intersections:
        """Intersect the cells of both sides; see `image_row` for what they may be."""
        left, right = _as_runs(predictions), _as_runs(truth)
        i, j, pixels = rle.intersections(left, right)
        if ignored is None:
            return cls(i, j, pixels, left.areas, right.areas)
        out = left_out(left, ignored)
        counted = ~out[i]
        areas = np.where(out, 0, left.areas)
        return cls(i[counted], j[counted], pixels[counted], areas, right.areas, int(out.sum()))

    @cached_property
    def union(self) -> Ints:
        """The pixels of either of each pair, int64 [P]."""
        return self.prediction_areas[self.i] + self.cell_areas[self.j] - self.pixels

    @cached_property
    def iou(self) -> Floats:
        """The IoU of each pair, float64 [P]."""
        return self.pixels / self.union

    def row(self, index: int) -> Ints:
        """Return the row of the image, see `image_row`."""
        row = np.empty(ROW_LENGTH, dtype=np.int64)
        row[0] = index
        row[1:-2] = true_positives(self.i, self.j, self.pixels, self.prediction_areas, self.cell_areas)
        row[-2:] = np.count_nonzero(self.prediction_areas), np.count_nonzero(self.cell_areas)
        return row

    def matched_pairs(self) -> Ints:
        """Match at an IoU above 0.50, as indices of pairs: as many as possible, then with the largest sum of IoUs."""
        hit = np.flatnonzero(100 * self.pixels > THRESHOLD_PERCENT[0] * self.union)
        return hit[best_pairs(self.i[hit], self.j[hit], hit.size + 1 + self.iou[hit])]


def image_row(index: int, predictions: Cells, truth: Cells, ignored: Bools | None = None) -> Ints:
    """Return one image's row, int64 [13]: (index, true positives at THRESHOLDS, number of predictions, of cells).

    Both sides may be runs, instances, a label map [H, W] (0 is background, gaps in the numbering are allowed) or
    layers [L, H, W]; cells of one side may overlap. Cells without pixels are not counted. Where one prediction
    exceeds a threshold with two overlapping cells, one of them counts as found and the other as missed.
    ignored: bool [H, W], pixels that nobody has labelled; predictions mostly there are not counted.
    Raises ValueError when the two sides have different image sizes.
    """
    return Intersections.of(predictions, truth, ignored).row(index)


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

    Where several matchings are as large, the one of the largest sum of IoUs. Takes what `image_row` takes, and raises
    as it does.
    """
    return matches_of(Intersections.of(predictions, truth))


def matches_of(shared: Intersections) -> CellMatches:
    """Match as `match_cells` does."""
    i, j, ratio, pairs = shared.i, shared.j, shared.iou, shared.matched_pairs()
    cell, prediction = np.full(shared.prediction_areas.size, -1), np.full(shared.cell_areas.size, -1)
    iou, cell_iou = np.zeros(cell.size), np.zeros(prediction.size)
    np.maximum.at(iou, i, ratio)
    np.maximum.at(cell_iou, j, ratio)
    cell[i[pairs]], prediction[j[pairs]] = j[pairs], i[pairs]
    iou[i[pairs]], cell_iou[j[pairs]] = ratio[pairs], ratio[pairs]
    return CellMatches(cell, prediction, iou, cell_iou)


def best_pairs(i: Ints, j: Ints, gain: Floats) -> Ints:
    """Choose one-to-one pairs (i[k], j[k]) with the largest sum of gain[k] > 0, as indices."""
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    certain, open_pairs = np.flatnonzero(alone), np.flatnonzero(~alone)
    if not open_pairs.size:
        return certain
    rows, row = np.unique(i[open_pairs], return_inverse=True)
    columns, column = np.unique(j[open_pairs], return_inverse=True)
    single = float(gain.max()) + 1  # the cost of a row without partner, which takes a column of its own
    cost = np.concatenate((single - gain[open_pairs], np.full(rows.size, single)))
    place = np.arange(rows.size)
    where = (np.concatenate((row, place)), np.concatenate((column, columns.size + place)))
    left, right = min_weight_full_bipartite_matching(csr_matrix((cost, where)))
    paired = right < columns.size
    key = row * columns.size + column
    order = np.argsort(key)
    chosen = order[np.searchsorted(key[order], (left * columns.size + right)[paired])]
    return np.concatenate((certain, open_pairs[chosen]))


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

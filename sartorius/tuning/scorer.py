"""The score of many images at given thresholds: of all images at once, from counts, or by the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sartorius.metrics.functional import ROW_LENGTH, THRESHOLD_PERCENT, image_row
from sartorius.postprocess import Postprocess, steps
from sartorius.structures.arrays import AnyInts, Bools, Floats, Ints, Ints32
from sartorius.structures.instances import MAX_CELLS
from sartorius.tuning.overlap_table import CandidateTable, OverlapTable
from sartorius.tuning.space import ByType, setting_of_class, with_thresholds
from sartorius.tuning.tables import Tables

# The steps whose result counts can give, in the order in which they can; the others are optional beside these two.
_COUNTED = (
    steps.ThresholdTypes,
    steps.Score,
    steps.MaxDetections,
    steps.BoxNMS,
    steps.PasteMasks,
    steps.MaskNMS,
    steps.Overlaps,
    steps.MinArea,
)
_NEEDED = {steps.PasteMasks, steps.Overlaps}
_WITHOUT: dict[type, float] = {
    steps.Score: 0.0,
    steps.BoxNMS: 1.0,
    steps.MaskNMS: 1.0,
    steps.MinArea: 0.0,
}  # the threshold that drops nothing


class Scorer(Protocol):
    """Rows int64 [P, 13] of `metrics.functional`, numbered by image, of fixed images at the thresholds given."""

    def rows(self, thresholds: ByType) -> Ints:
        """`thresholds`: each searchable setting by name, float64 [K], a value for each cell type."""


def scorer_of(tables: Tables, images: Sequence[str]) -> Scorer:
    """Choose the fast scorer, or the pipeline where a step changes shapes or counts do not tell its result."""
    return CountScorer(tables, images) if countable(tables.post) else PipelineScorer(tables, images)


def countable(post: Postprocess) -> bool:
    """Check that all steps are of the classes that `CountScorer` knows, each once, in its order."""
    kinds = [type(step) for step in post.steps.values()]
    places = [_COUNTED.index(kind) if kind in _COUNTED else -1 for kind in kinds]
    return -1 not in places and all(a < b for a, b in pairwise(places)) and set(kinds) >= _NEEDED


class PipelineScorer:
    """Runs the whole post-processing and the metric: slow, and what the fast scorer must agree with."""

    def __init__(self, tables: Tables, images: Sequence[str]) -> None:
        self.tables, self.images = tables, tuple(images)

    def rows(self, thresholds: ByType) -> Ints:
        """See `Scorer`."""
        decide = with_thresholds(self.tables.post, self.tables.cell_type_names, thresholds)
        tables = self.tables
        rows = [
            image_row(k, decide(tables.load(name)).instances, tables.truth(name), tables.ignored(name))
            for k, name in enumerate(self.images)
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, ROW_LENGTH)


class CountScorer:
    """From counts, without a loop over images or cells; rows equal those of the pipeline.

    Changing a mask threshold joins the cached overlap tables of the images anew, all other thresholds do not.
    """

    def __init__(self, tables: Tables, images: Sequence[str]) -> None:
        self.tables, self.images = tables, tuple(images)
        parts = [tables.candidates[image_id] for image_id in self.images]
        self.name_of = setting_of_class(tables.post)
        limit = tables.post.find(steps.MaxDetections)
        self.max_detections = MAX_CELLS if limit is None else limit.count
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        self.offset = np.cumsum(sizes) - sizes
        self.image_index = np.repeat(np.arange(len(parts)), sizes)
        self.scores = _joined(parts, lambda part: part.scores)
        self.kind = _joined(parts, lambda part: part.kind).astype(np.int64)
        self.box_i = _joined(parts, lambda part: part.box_i, self.offset)
        self.box_j = _joined(parts, lambda part: part.box_j, self.offset)
        self.box_shared = _joined(parts, lambda part: part.box_shared)
        self.box_union = _joined(parts, lambda part: part.box_union)
        self.cells = np.array([part.cells for part in parts], dtype=np.int64)
        self._mask: Floats | None = None

    def rows(self, thresholds: ByType) -> Ints:
        """See `Scorer`."""
        table = self._table(thresholds[self.name_of[steps.PasteMasks]])
        keep = self._first_ones(self.scores >= self._limit(steps.Score, thresholds).astype(np.float32))
        close = self.box_shared > self._limit(steps.BoxNMS, thresholds)[self.box_j] * self.box_union
        keep = survivors(keep, self.box_i[close], self.box_j[close])
        close = table.mask_shared > self._limit(steps.MaskNMS, thresholds)[table.mask_j] * table.mask_whole
        keep = survivors(keep, table.mask_i[close], table.mask_j[close])
        return self._count(table, keep, self._limit(steps.MinArea, thresholds))

    def _limit(self, kind: type, thresholds: ByType) -> Floats:
        """Look up the threshold of a class of step for each candidate, float64 [N]."""
        if kind not in self.name_of:
            return np.full(len(self.kind), _WITHOUT[kind])
        return thresholds[self.name_of[kind]][self.kind]

    def _table(self, mask: Floats) -> OverlapTable:
        """Join the overlap tables of all images, numbered through."""
        if self._mask is None or not np.array_equal(mask, self._mask):
            parts = [self.tables.overlaps(image_id, mask) for image_id in self.images]
            self._joined_table, self._mask = join(parts, self.offset), mask.copy()
        return self._joined_table

    def _first_ones(self, keep: Bools) -> Bools:
        """Keep only the best `max_detections` kept candidates of each image."""
        total = np.cumsum(keep)
        if len(keep):
            before: Ints = (total - keep)[np.minimum(self.offset, len(keep) - 1)]
            keep = keep & (total - before[self.image_index] <= self.max_detections)
        return keep

    def _count(self, table: OverlapTable, keep: Bools, min_area: Floats) -> Ints:
        """Count rows int64 [P, 13] of the kept masks [N] after overlap removal and the limit of areas [N]."""
        count = len(keep)
        winner = np.full(len(table.pixels), count, dtype=np.int64)  # `count`: none
        if count:
            np.minimum.reduceat(np.where(keep[table.cover], table.cover, count), table.first, out=winner)
        areas = np.bincount(winner, weights=table.pixels, minlength=count + 1).astype(np.int64)
        final = np.zeros(count + 1, dtype=bool)
        final[:count] = (areas[:count] > 0) & (areas[:count] >= min_area)
        level = self._levels(table, winner, areas, final)
        hits = np.zeros((len(self.images), len(THRESHOLD_PERCENT) + 1), dtype=np.int64)
        hit = np.flatnonzero(level)
        np.add.at(hits, (self.image_index[hit], level[hit]), 1)
        rows = np.zeros((len(self.images), ROW_LENGTH), dtype=np.int64)
        rows[:, 0] = np.arange(len(rows))
        rows[:, 1:-2] = hits[:, :0:-1].cumsum(axis=1)[:, ::-1]
        if table.ignored.any():  # as `metrics.unlabelled`
            final[:count] &= 2 * np.bincount(winner, table.ignored, count + 1)[:count] <= areas[:count]
        rows[:, -2] = np.bincount(self.image_index[final[:count]], minlength=len(rows))
        rows[:, -1] = self.cells
        return rows

    def _levels(self, table: OverlapTable, winner: Ints, areas: Ints, final: Bools) -> Ints:
        """Count the IoU thresholds, of ten, that each candidate [N] exceeds with a true cell; 0 unless it is final.

        Final cells share no pixel, so a true cell has at most one of them with an IoU above one half: a candidate is
        matched wherever it exceeds the threshold with any cell.
        """
        owner = winner[table.truth_region]
        inside = final[owner]
        owner, cell = owner[inside], table.truth_cell[inside].astype(np.int64)
        width = int(cell.max(initial=0)) + 1
        key, at, pair = np.unique(owner * width + cell, return_index=True, return_inverse=True)
        shared = np.bincount(pair, weights=table.truth_pixels[inside], minlength=len(key)).astype(np.int64)
        k = key // width
        union = areas[k] + table.true_areas[inside][at] - shared
        level = np.zeros(len(final) - 1, dtype=np.int64)
        exceeded = (100 * shared[:, None] > THRESHOLD_PERCENT * union[:, None]).sum(axis=1)
        np.maximum.at(level, k, exceeded)
        return level


def survivors(keep: Bools, i: AnyInts, j: AnyInts) -> Bools:
    """Suppress greedily, as `nms.suppress`, among the items of bool [N] that are kept; pairs i < j in any order.

    In rounds over the undecided pairs: an item without a better rival left stays and drops its own. There are as many
    rounds as the longest chain of rivals has links, mostly two or three.
    """
    keep = keep.copy()
    while len(i):
        undecided = keep[i] & keep[j]
        i, j = i[undecided], j[undecided]
        rivalled = np.zeros(len(keep), dtype=bool)
        rivalled[j] = True
        keep[j[~rivalled[i]]] = False
    return keep


def join(parts: Sequence[OverlapTable], offset: Ints) -> OverlapTable:
    """Join the tables of images, with `offset` [P] candidates before each; true cells keep their numbers."""
    values = {field.name: [vars(part)[field.name] for part in parts] for field in fields(OverlapTable)}
    regions = _starts(values["pixels"])
    shifts = dict.fromkeys(("mask_i", "mask_j", "cover"), offset)
    shifts |= {"first": _starts(values["cover"]), "truth_region": regions}
    return OverlapTable(**{name: _shifted(arrays, shifts.get(name)) for name, arrays in values.items()})


def _starts(arrays: Sequence[Ints32]) -> Ints:
    sizes = np.array([len(array) for array in arrays], dtype=np.int64)
    return np.cumsum(sizes) - sizes


def _shifted(arrays: Sequence[NDArray[Any]], shift: Ints | None) -> NDArray[Any]:
    joined = np.concatenate([np.zeros(0, np.int32), *arrays])
    return joined if shift is None else joined + np.repeat(shift, [len(array) for array in arrays]).astype(np.int32)


def _joined(
    parts: Sequence[CandidateTable], get: Callable[[CandidateTable], NDArray[Any]], shift: Ints | None = None
) -> NDArray[Any]:
    arrays = [get(part) for part in parts]
    if shift is None:
        return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
    return _shifted(arrays, shift)

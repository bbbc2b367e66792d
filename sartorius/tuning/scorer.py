"""The score of many images at given thresholds: of all images at once, from counts, or by the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sartorius.metrics.functional import ROW_LENGTH, THRESHOLD_PERCENT, image_row
from sartorius.postprocess.finalise import Postprocess
from sartorius.structures.arrays import Bools, Ints
from sartorius.tuning.claims import Candidates, Claims
from sartorius.tuning.space import ByType
from sartorius.tuning.tables import Tables


class Scorer(Protocol):
    """Rows int64 [P, 13] of `metrics.functional`, numbered by image, of fixed images at the thresholds given."""

    def rows(self, thresholds: ByType) -> Ints:
        """`thresholds`: each of the five by name, float64 [K], a value for each cell type."""


def scorer_of(tables: Tables, images: Sequence[str]) -> Scorer:
    """The fast scorer, or the pipeline where cleaning moves pixels or areas count before overlaps go."""
    post = tables.post
    cleaned = post.largest_piece or post.fill_holes or post.reopen_holes is not None
    late = post.order.index("overlaps") < post.order.index("min_area")
    return CountScorer(tables, images) if late and not cleaned else PipelineScorer(tables, images)


class PipelineScorer:
    """Runs the whole post-processing and the metric: slow, and what the fast scorer must agree with."""

    def __init__(self, tables: Tables, images: Sequence[str]) -> None:
        self.tables, self.images = tables, tuple(images)

    def rows(self, thresholds: ByType) -> Ints:
        """See `Scorer`."""
        decide = with_thresholds(self.tables.post, self.tables.cell_type_names, thresholds)
        rows = [
            image_row(k, decide(self.tables.load(image_id)).instances, self.tables.truth(image_id))
            for k, image_id in enumerate(self.images)
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, ROW_LENGTH)


def with_thresholds(post: Postprocess, names: Sequence[str], thresholds: ByType) -> Postprocess:
    """`post` with these thresholds for the named cell types; its values for types not named stay."""
    changed: dict[str, Any] = {}
    for field, values in thresholds.items():
        old = getattr(post, field)
        rest = dict(old) if not isinstance(old, int | float) else {"default": old}
        changed[field] = rest | {
            name: int(value) if value.is_integer() and field == "min_area" else value
            for name, value in zip(names, values.tolist(), strict=True)
        }
    return replace(post, **changed)


class CountScorer:
    """From candidates and claims, without a loop over images or cells; rows equal those of the pipeline.

    Changing a mask threshold joins the cached claims of the images anew, all other thresholds do not.
    """

    def __init__(self, tables: Tables, images: Sequence[str]) -> None:
        self.tables, self.images = tables, tuple(images)
        parts = [tables.candidates[image_id] for image_id in self.images]
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
        self._mask: NDArray[np.float64] | None = None

    def rows(self, thresholds: ByType) -> Ints:
        """See `Scorer`."""
        limit = {name: values[self.kind] for name, values in thresholds.items()}
        claims = self._claims(thresholds["mask"])
        keep = self._first_ones(self.scores >= limit["score"].astype(np.float32))
        close = self.box_shared > limit["box_nms"][self.box_j] * self.box_union
        keep = survivors(keep, self.box_i[close], self.box_j[close])
        close = claims.mask_shared > limit["mask_nms"][claims.mask_j] * claims.mask_whole
        keep = survivors(keep, claims.mask_i[close], claims.mask_j[close])
        return self._count(claims, keep, limit["min_area"])

    def _claims(self, mask: NDArray[np.float64]) -> Claims:
        """The claims of all images as one, numbered through."""
        if self._mask is None or not np.array_equal(mask, self._mask):
            parts = [self.tables.claims(image_id, mask) for image_id in self.images]
            self._joined_claims, self._mask = join(parts, self.offset), mask.copy()
        return self._joined_claims

    def _first_ones(self, keep: Bools) -> Bools:
        """Of the kept candidates only the best `max_detections` of each image."""
        total = np.cumsum(keep)
        if len(keep):
            before: Ints = (total - keep)[np.minimum(self.offset, len(keep) - 1)]
            keep = keep & (total - before[self.image_index] <= self.tables.post.max_detections)
        return keep

    def _count(self, claims: Claims, keep: Bools, min_area: NDArray[np.float64]) -> Ints:
        """Rows int64 [P, 13] of the kept masks [N] after overlap removal and the limit of areas [N]."""
        count = len(keep)
        winner = np.full(len(claims.pixels), count, dtype=np.int64)  # `count`: nobody
        if count:
            np.minimum.reduceat(np.where(keep[claims.claimant], claims.claimant, count), claims.first, out=winner)
        areas = np.bincount(winner, weights=claims.pixels, minlength=count + 1).astype(np.int64)
        final = np.zeros(count + 1, dtype=bool)
        final[:count] = (areas[:count] > 0) & (areas[:count] >= min_area)
        level = self._levels(claims, winner, areas, final)
        hits = np.zeros((len(self.images), len(THRESHOLD_PERCENT) + 1), dtype=np.int64)
        found = np.flatnonzero(level)
        np.add.at(hits, (self.image_index[found], level[found]), 1)
        rows = np.zeros((len(self.images), ROW_LENGTH), dtype=np.int64)
        rows[:, 0] = np.arange(len(rows))
        rows[:, 1:-2] = hits[:, :0:-1].cumsum(axis=1)[:, ::-1]
        rows[:, -2] = np.bincount(self.image_index[final[:count]], minlength=len(rows))
        rows[:, -1] = self.cells
        return rows

    def _levels(self, claims: Claims, winner: Ints, areas: Ints, final: Bools) -> Ints:
        """How many of the ten IoU thresholds each candidate [N] exceeds with a true cell; 0 unless it is final.

        The cells that are left share no pixel, so a true cell has at most one of them with an IoU above one half:
        matching one to one comes down to whether a candidate exceeds the threshold with any cell.
        """
        owner = winner[claims.truth_patch]
        inside = final[owner]
        owner, cell = owner[inside], claims.truth_cell[inside].astype(np.int64)
        width = int(cell.max(initial=0)) + 1
        key, at, pair = np.unique(owner * width + cell, return_index=True, return_inverse=True)
        shared = np.bincount(pair, weights=claims.truth_pixels[inside], minlength=len(key)).astype(np.int64)
        k = key // width
        union = areas[k] + claims.true_areas[inside][at] - shared
        level = np.zeros(len(final) - 1, dtype=np.int64)
        exceeded = (100 * shared[:, None] > THRESHOLD_PERCENT * union[:, None]).sum(axis=1)
        np.maximum.at(level, k, exceeded)
        return level


def survivors(keep: Bools, i: NDArray[np.integer], j: NDArray[np.integer]) -> Bools:
    """Greedy suppression, as `nms.suppress`, among the items of bool [N] that are kept; pairs i < j in any order.

    In rounds over the pairs that are undecided: whoever has no better rival left stays and drops its own. As many
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


def join(parts: Sequence[Claims], offset: Ints) -> Claims:
    """Claims of images, with `offset` [P] candidates before each, as one; true cells keep the numbers they have."""
    values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Claims)}
    patches = _starts(values["pixels"])
    shifts = dict.fromkeys(("mask_i", "mask_j", "claimant"), offset)
    shifts |= {"first": _starts(values["claimant"]), "truth_patch": patches}
    return Claims(**{name: _shifted(arrays, shifts.get(name)) for name, arrays in values.items()})


def _starts(arrays: Sequence[NDArray[np.int32]]) -> Ints:
    sizes = np.array([len(array) for array in arrays], dtype=np.int64)
    return np.cumsum(sizes) - sizes


def _shifted(arrays: Sequence[NDArray[Any]], shift: Ints | None) -> NDArray[Any]:
    joined = np.concatenate([np.zeros(0, np.int32), *arrays])
    return joined if shift is None else joined + np.repeat(shift, [len(array) for array in arrays]).astype(np.int32)


def _joined(
    parts: Sequence[Candidates], get: Callable[[Candidates], NDArray[Any]], shift: Ints | None = None
) -> NDArray[Any]:
    arrays = [get(part) for part in parts]
    if shift is None:
        return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
    return _shifted(arrays, shift)

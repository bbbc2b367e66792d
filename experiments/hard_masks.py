"""Join two sets of hard masks of one image, without scores, as plain submission files of two models have them.

A cell that both have gets the mean of their shapes: signed distances to the outlines are averaged, and the mask is
where the mean is positive (Rohlfing & Maurer, Shape-based averaging, IEEE TIP 16(1), 2007). Unlike a vote of two this
has something between union and intersection. A cell of one set only stays, goes or is added by the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, Ints
from sartorius.structures.checks import fractions
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

Box = tuple[int, int, int, int]  # x1, y1, x2, y2, half-open
Field = tuple[Box, NDArray[np.float64]]  # signed distances within a box
_MARGIN = 6  # px around a cell within which it may grow
_MAX_OFFSET = 4.0  # px


@dataclass(frozen=True)
class JoinRule:
    """A rule that joins two sets of masks; the first is taken as the better one.

    Args:
        match_iou: cells of the two sets with at least this IoU are one cell, one to one, the closest first, 0..1.
        confirmed_only: drop a cell of the first set that the second set has not.
        add: take the cells that only the second set has, where they are free.
        free_share: a cell of the second set is free where the first covers at most this share of it, 0..1.
        weight: of the second set's shape in a cell that both have, 0..1; 0 keeps the first set's shape.
        offset: pixels by which every outline moves outwards; negative shrinks.
        smooth: sigma of the Gauss filter of the signed distances, pixels; 0 leaves outlines as they are.
    """

    match_iou: float
    confirmed_only: bool
    add: bool
    free_share: float
    weight: float
    offset: float
    smooth: float

    def __post_init__(self) -> None:
        fractions("", match_iou=self.match_iou, free_share=self.free_share, weight=self.weight)
        if abs(self.offset) > _MAX_OFFSET or not 0 <= self.smooth <= _MAX_OFFSET:
            raise InputError(
                f"offset={self.offset}, smooth={self.smooth}: expected at most {_MAX_OFFSET:g} pixels, smooth from 0"
            )

    def __call__(self, first: Runs, second: Runs) -> Runs:
        """The joined cells, overlap-free: cells that both have, then the first set's, then the second set's.

        A pixel that several claim goes to the one in front. Cells that lose all their pixels are left out. Either set
        may be empty, and may hold overlaps. Raises ValueError for images of two sizes.
        """
        pairs = match(first, second, self.match_iou)
        ours, theirs = _Cells.of(first), _Cells.of(second)
        fields = [self._mean(ours, theirs, a, b) for a, b in pairs.tolist()]
        if not self.confirmed_only:
            alone = np.setdiff1d(np.flatnonzero(first.areas), pairs[:, 0])
            fields += [ours.field(k) for k in alone.tolist()]
        if self.add:
            added = np.setdiff1d(np.flatnonzero(free_cells(first, second, self.free_share)), pairs[:, 1])
            fields += [theirs.field(k) for k in added.tolist()]
        return self._paste(fields, first.height, first.width)

    def _mean(self, ours: _Cells, theirs: _Cells, a: int, b: int) -> Field:
        """Weighted mean of the signed distances of one cell of each set."""
        window = ours.window(ours.box(a), theirs.box(b))
        first = ours.distances(a, window)
        if self.weight == 0:
            return window, first
        return window, (1 - self.weight) * first + self.weight * theirs.distances(b, window)

    def _paste(self, fields: list[Field], height: int, width: int) -> Runs:
        label_map = np.zeros((height, width), np.int64)
        for number, ((x1, y1, x2, y2), distance) in enumerate(fields, start=1):
            if self.smooth:
                distance = ndimage.gaussian_filter(distance, self.smooth, mode="nearest")
            there = label_map[y1:y2, x1:x2]
            there[(distance + self.offset > 0) & (there == 0)] = number
        kept = np.unique(label_map)
        kept = kept[kept > 0]
        new = np.zeros(len(fields) + 1, np.int64)
        new[kept] = np.arange(1, len(kept) + 1)
        return rle.from_layers(new[label_map], len(kept))


def match(first: Runs, second: Runs, match_iou: float) -> Ints:
    """Cells that both sets have: (cell of the first, cell of the second), int64 [P, 2], closest first, one to one."""
    i, j, shared = rle.intersections(first, second)
    iou = shared / (first.areas[i] + second.areas[j] - shared)
    order = np.argsort(-iou, kind="stable")
    order = order[iou[order] >= match_iou]
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if a not in taken[0] and b not in taken[1]:
            pairs.append((a, b))
            taken[0].add(a)
            taken[1].add(b)
    return np.array(pairs, np.int64).reshape(-1, 2)


def free_cells(first: Runs, second: Runs, free_share: float) -> Bools:
    """Which cells of the second set [N] have pixels of which the first set's cells cover at most `free_share`."""
    _, j, shared = rle.intersections(first, second)
    covered = np.bincount(j, weights=shared, minlength=second.count)
    return np.asarray((second.areas > 0) & (covered <= free_share * second.areas))


@dataclass(frozen=True)
class _Cells:
    """A set's cells, measured one by one in windows around them."""

    instances: Instances

    @classmethod
    def of(cls, runs: Runs) -> _Cells:
        return cls(Instances.from_runs(runs, np.zeros(runs.count, np.int64)))

    def box(self, k: int) -> Box:
        x1, y1, x2, y2 = self.instances.boxes[k].astype(int).tolist()
        return x1, y1, x2, y2

    def window(self, *boxes: Box) -> Box:
        """The box around boxes with the margin, inside the image."""
        low, high = np.min(boxes, axis=0)[:2] - _MARGIN, np.max(boxes, axis=0)[2:] + _MARGIN
        x1, y1 = np.maximum(low, 0).tolist()
        x2, y2 = np.minimum(high, (self.instances.width, self.instances.height)).tolist()
        return x1, y1, x2, y2

    def field(self, k: int) -> Field:
        window = self.window(self.box(k))
        return window, self.distances(k, window)

    def distances(self, k: int, window: Box) -> NDArray[np.float64]:
        """Signed distances, px, of the window's pixel centres to the outline of cell k: positive inside."""
        x1, y1, x2, y2 = window
        top, left, mask = self.instances.crop_mask(k)
        inside = np.zeros((y2 - y1, x2 - x1), bool)
        inside[top - y1 : top - y1 + mask.shape[0], left - x1 : left - x1 + mask.shape[1]] = mask
        if inside.all():  # no background in sight to measure to
            return np.full(inside.shape, float(max(inside.shape)))
        depth, height = ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
        return np.where(inside, depth - 0.5, 0.5 - height)

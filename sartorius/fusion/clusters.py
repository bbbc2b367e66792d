"""Clusters of several members' detections that are the same cell.

Greedy by score as in weighted boxes fusion (Solovyev, Wang, Gabruseva 2021): the best detection that belongs to no
cell yet starts one. Two differences, for crowded cells: masks must agree, not only boxes; and a detection is compared
with the one that started the cell, not with a running mean, and goes to the cell that it agrees with most, once a
member.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sartorius.fusion.pool import Pool
from sartorius.postprocess.paste import PastedMasks
from sartorius.structures.arrays import AnyFloats, Floats, Floats32, Ints

_TOUCHING = 1e-6  # IoU of boxes; those below share no pixel


@dataclass(frozen=True)
class Clusters:
    """K cells. seed: int64 [K], the detection that started each, ascending.

    rows: int64 [R], detections of the cells one after the other, at most one a member and cell, the seed first. cell:
    int64 [R], the cell of each row. Detections in no cell are a member's duplicates of one.
    """

    seed: Ints
    rows: Ints
    cell: Ints

    def __len__(self) -> int:
        return len(self.seed)

    @cached_property
    def first(self) -> Ints:
        """Where the rows of each cell begin, int64 [K]."""
        return np.searchsorted(self.cell, np.arange(len(self)))

    @cached_property
    def sizes(self) -> Ints:
        """Rows of each cell, int64 [K]."""
        return np.bincount(self.cell, minlength=len(self))

    @cached_property
    def several(self) -> Ints:
        """The cells that more than one member found, ascending."""
        return np.flatnonzero(self.sizes > 1)

    def sums(self, values: AnyFloats) -> Floats:
        """Sum values [R, ...] over each cell, float64 [K, ...]."""
        exact = values.astype(np.float64)
        return np.add.reduceat(exact, self.first, axis=0) if len(self) else exact


class Stamp:
    """One mask drawn on an empty image, to count what others share with it."""

    def __init__(self, pasted: PastedMasks) -> None:
        self.pasted, self.areas = pasted, pasted.areas
        self.first = np.cumsum(self.areas) - self.areas
        self.canvas = np.zeros(pasted.height * pasted.width, dtype=bool)

    def ious(self, pixels: Ints, others: Ints) -> Floats:
        """Compute the IoU of a mask, flat pixels [A], with masks `others` [P] of `pasted`, none empty: float64 [P]."""
        areas, starts = self.areas[others], np.cumsum(self.areas[others]) - self.areas[others]
        at = np.arange(int(areas.sum())) + np.repeat(self.first[others] - starts, areas)
        self.canvas[pixels] = True
        shared = np.add.reduceat(self.canvas[self.pasted.pixel[at]].astype(np.int64), starts)
        self.canvas[pixels] = False
        return shared / (areas + len(pixels) - shared)

    def pixels(self, k: int) -> Ints:
        """Return the flat pixels of mask k."""
        return self.pasted.pixel[self.first[k] : self.first[k] + self.areas[k]]


def cluster(
    pool: Pool, box_iou: float, mask_iou: float, seeds: Ints | None = None, class_agnostic: bool = True
) -> Clusters:
    """Cluster a pool: detections whose IoU with a cell's seed is at least `box_iou` and, of the masks, `mask_iou`.

    seeds: these detections are the seeds (ascending), instead of the best ones that are left. class_agnostic: also
    detections of another cell type than the seed's. Detections without pixels are in no cell.
    """
    types = pool.detections.cell_types
    stamp, boxes = Stamp(pool.pasted), pool.detections.boxes.T.copy()
    visible = stamp.areas > 0
    taken, is_seed = ~visible, np.zeros(len(pool), dtype=bool)
    is_seed[seeds if seeds is not None else []] = True
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for k in range(len(pool)) if seeds is None else np.sort(seeds).tolist():
        if seeds is None and taken[k]:
            continue
        is_seed[k] = True
        near = np.flatnonzero(_box_ious(boxes, k) >= max(box_iou, _TOUCHING))
        near = near[visible[near] & ~is_seed[near]]
        if not class_agnostic:
            near = near[types[near] == types[k]]
        if len(near):
            iou = stamp.ious(stamp.pixels(k), near)
            close = iou >= mask_iou
            taken[near[close]] = True
            pairs.append((np.full(int(close.sum()), k), near[close], iou[close]))
    seed, other, iou = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return _assigned(pool.member, np.flatnonzero(is_seed & visible), seed, other, iou)


def _box_ious(boxes: Floats32, k: int) -> Floats32:
    """Compute the IoU of box k with all boxes, given as [4, N]."""
    x1, y1, x2, y2 = boxes
    shared = np.minimum(x2, x2[k]) - np.maximum(x1, x1[k])
    np.maximum(shared, 0, out=shared)
    shared *= np.maximum(np.minimum(y2, y2[k]) - np.maximum(y1, y1[k]), 0)
    areas = (x2 - x1) * (y2 - y1)
    return shared / (areas + areas[k] - shared)


def _assigned(member: Ints, seeds: Ints, seed: Ints, other: Ints, iou: Floats) -> Clusters:
    """Assign each detection to the seed of highest IoU; of a member's several at one seed the closest."""
    order = np.lexsort((seed, -iou, other))
    order = order[np.unique(other[order], return_index=True)[1]]
    cell, rows = np.searchsorted(seeds, seed[order]), other[order]
    cell, rows = np.concatenate((np.arange(len(seeds)), cell)), np.concatenate((seeds, rows))
    closeness = np.concatenate((np.full(len(seeds), 2.0), iou[order]))  # the seed before all others
    order = np.lexsort((rows, -closeness, member[rows], cell))
    owner = cell[order] * (int(member.max(initial=0)) + 1) + member[rows[order]]
    order = order[np.unique(owner, return_index=True)[1]]
    order = order[np.lexsort((-closeness[order], cell[order]))]
    return Clusters(seeds, rows[order], cell[order])

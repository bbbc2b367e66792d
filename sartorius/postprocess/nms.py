"""Non-maximum suppression of boxes and of pasted masks, exact, without a matrix of all pairs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from sartorius.postprocess.paste import PastedMasks
from sartorius.structures.arrays import AnyFloats, Bools, Ints

Overlap = Literal["iou", "iom"]


def suppress(count: int, i: Ints, j: Ints) -> Bools:
    """Suppress greedily among `count` items, best first; returns which of them stay, bool [count].

    Pair k: item i[k] < j[k] drops item j[k] as long as it stays itself. Pairs in any order.
    """
    keep = np.ones(count, dtype=bool)
    order = np.argsort(i, kind="stable")
    i, j = i[order], j[order]
    rivals, start = np.unique(i, return_index=True)
    for rival, losers in zip(rivals.tolist(), np.split(j, start[1:]), strict=False):
        if keep[rival]:
            keep[losers] = False
    return keep


def box_nms(boxes: AnyFloats, cell_types: Ints, thresholds: AnyFloats, class_agnostic: bool = True) -> Bools:
    """Suppress boxes [N, 4], best first; returns which of them stay, bool [N].

    A box is dropped when its IoU with a better one that stays is above its own threshold [N]; of the same cell type
    only, unless `class_agnostic`.
    """
    x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T.copy()
    areas, keep = (x2 - x1) * (y2 - y1), np.ones(len(x1), dtype=bool)
    # A threshold of 1 drops nothing, since an IoU is never above it: cheap for detections that NMS was applied to.
    if not len(keep) or np.min(thresholds) >= 1:
        return keep
    for k in range(len(keep)):
        if not keep[k]:
            continue  # a dropped box drops nothing, so that many copies of a box cost little
        rest = slice(k + 1, None)
        shared = np.minimum(x2[rest], x2[k]) - np.maximum(x1[rest], x1[k])
        np.maximum(shared, 0, out=shared)
        shared *= np.maximum(np.minimum(y2[rest], y2[k]) - np.maximum(y1[rest], y1[k]), 0)
        close = shared > thresholds[rest] * (areas[k] + areas[rest] - shared)
        if not class_agnostic:
            close &= cell_types[rest] == cell_types[k]
        keep[rest] &= ~close
    return keep


def mask_intersections(pasted: PastedMasks) -> tuple[Ints, Ints, Ints]:
    """Count the pixels that pairs i < j of masks share: (i, j, shared pixels), each int64 [P]."""
    # Only pixels of several masks matter, and they are few.
    covers = np.bincount(pasted.pixel, minlength=pasted.height * pasted.width)
    contested = np.flatnonzero(covers[pasted.pixel] > 1)
    _, column = np.unique(pasted.pixel[contested], return_inverse=True)
    row = pasted.mask[contested]
    shape = (pasted.count, int(column.max(initial=-1)) + 1)
    member = csr_array((np.ones(len(row), dtype=np.int32), (row, column)), shape=shape)
    shared = (member @ member.T).tocoo()
    upper = shared.row < shared.col
    return shared.row[upper].astype(np.int64), shared.col[upper].astype(np.int64), shared.data[upper].astype(np.int64)


def mask_nms(
    pasted: PastedMasks, thresholds: AnyFloats, overlap: Overlap = "iou", cell_types: Ints | None = None
) -> Bools:
    """Suppress pasted masks, best first; returns which of them stay, bool [count].

    A mask is dropped when its overlap with a better one that stays is above its own threshold [count]: intersection
    over union (`iou`), or over the smaller of the two areas (`iom`), which also drops fragments inside a large mask.
    cell_types: int64 [count], and only one of the same type drops a mask; None is class-agnostic.
    """
    i, j, shared = mask_intersections(pasted)
    areas = pasted.areas
    whole = areas[i] + areas[j] - shared if overlap == "iou" else np.minimum(areas[i], areas[j])
    close = shared > thresholds[j] * whole
    if cell_types is not None:
        close &= cell_types[i] == cell_types[j]
    return suppress(pasted.count, i[close], j[close])

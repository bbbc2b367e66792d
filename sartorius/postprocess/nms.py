"""Non-maximum suppression of boxes and of pasted masks, exact, without a matrix of all pairs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sartorius.postprocess.paste import PastedMasks

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Overlap = Literal["iou", "iom"]
_BLOCK_PAIRS = 1 << 18  # box pairs compared at once: some 10 MB


def suppress(count: int, i: Ints, j: Ints) -> NDArray[np.bool_]:
    """Greedy suppression, bool [count]: which of `count` items, best first, stay.

    Pair k says that item i[k] < j[k] drops item j[k] as long as it stays itself. Pairs in any order.
    """
    keep = np.ones(count, dtype=bool)
    order = np.argsort(i, kind="stable")
    i, j = i[order], j[order]
    rivals, start = np.unique(i, return_index=True)
    for rival, losers in zip(rivals.tolist(), np.split(j, start[1:]), strict=False):
        if keep[rival]:
            keep[losers] = False
    return keep


def box_nms(boxes: Floats, cell_types: Ints, thresholds: Floats, class_agnostic: bool = True) -> NDArray[np.bool_]:
    """Which boxes [N, 4], best first, stay: bool [N].

    A box goes when its IoU with a better one that stays is above its own threshold [N]; of the same cell type only,
    unless `class_agnostic`.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    step = max(1, _BLOCK_PAIRS // max(count, 1))
    # A threshold of 1 drops nothing, an IoU is never above it: a cheap way out for the folders that come out of NMS.
    if not count or np.min(thresholds) >= 1:
        return np.ones(count, dtype=bool)
    pairs = [_close_boxes(boxes, start, min(start + step, count), thresholds) for start in range(0, count, step)]
    i, j = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    if not class_agnostic:
        same = cell_types[i] == cell_types[j]
        i, j = i[same], j[same]
    return suppress(count, i, j)


def _close_boxes(boxes: NDArray[np.float64], start: int, stop: int, thresholds: Floats) -> tuple[Ints, Ints]:
    """Pairs of a box in start..stop and a later one whose IoU is above the later one's threshold."""
    block, rest = boxes[start:stop, None], boxes[None, start:]
    shared = np.minimum(block[..., 2], rest[..., 2]) - np.maximum(block[..., 0], rest[..., 0])
    np.maximum(shared, 0, out=shared)
    shared *= np.maximum(np.minimum(block[..., 3], rest[..., 3]) - np.maximum(block[..., 1], rest[..., 1]), 0)
    areas = (boxes[start:, 2] - boxes[start:, 0]) * (boxes[start:, 3] - boxes[start:, 1])
    union = areas[: stop - start, None] + areas - shared
    i, j = np.nonzero(shared > thresholds[start:] * union)
    later = i < j
    return i[later] + start, j[later] + start


def mask_intersections(pasted: PastedMasks) -> tuple[Ints, Ints, Ints]:
    """Pairs i < j of masks that share pixels: (i, j, shared pixels), each int64 [P]."""
    # Only pixels that several masks claim matter, and they are few.
    claims = np.bincount(pasted.pixel, minlength=pasted.height * pasted.width)
    contested = np.flatnonzero(claims[pasted.pixel] > 1)
    _, column = np.unique(pasted.pixel[contested], return_inverse=True)
    row = pasted.mask[contested]
    shape = (pasted.count, int(column.max(initial=-1)) + 1)
    member = csr_array((np.ones(len(row), dtype=np.int32), (row, column)), shape=shape)
    shared = (member @ member.T).tocoo()
    upper = shared.row < shared.col
    return shared.row[upper].astype(np.int64), shared.col[upper].astype(np.int64), shared.data[upper].astype(np.int64)


def mask_nms(pasted: PastedMasks, thresholds: Floats, overlap: Overlap = "iou") -> NDArray[np.bool_]:
    """Which pasted masks, best first, stay: bool [count].

    A mask goes when its overlap with a better one that stays is above its own threshold [count]: intersection over
    union (`iou`), or over the smaller of the two areas (`iom`), which also drops fragments inside a large mask.
    """
    i, j, shared = mask_intersections(pasted)
    areas = pasted.areas
    whole = areas[i] + areas[j] - shared if overlap == "iou" else np.minimum(areas[i], areas[j])
    close = shared > thresholds[j] * whole
    return suppress(pasted.count, i[close], j[close])

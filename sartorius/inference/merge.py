"""One set of detections from those of overlapping windows: each cell once, and in one piece.

Two detections of different windows are the same cell when their masks agree within what both windows see. What stands
for a cell is the view that keeps the most distance from its window's edges inside the image; only a cell that every
window cuts is put together from its pieces. Detections of one window are never joined with each other: how many of
them are too many is for post-processing to say, here as without windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sartorius.inference.stitching import unite
from sartorius.inference.views import Pairs, Views
from sartorius.structures.arrays import Bools, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.windows import Window

TOUCHING = 2  # px: a mask that ends nearer than this to an inner edge of its window is taken as cut by it


def merge(
    parts: Sequence[tuple[Window, Detections]], image_id: str, height: int, width: int, *, margin: int, join_iou: float
) -> Detections:
    """Detections of an image, best score first, from each window's own, in that window's pixels.

    margin: a view is trusted fully at this distance, px, from the edges of its window inside the image; what is cut
    and lies in the margin altogether is left to the neighbour. join_iou: see `Views.pairs`. `parts` holds one window at
    least; windows without detections may be among them.
    """
    views = Views(parts, image_id, height, width)
    clearance, pairs = views.clearance, views.pairs()
    cut = clearance < TOUCHING
    gone = cut & ((views.areas_without(margin) == 0) | _seen_whole(pairs, cut, views.runs.areas, join_iou))
    group = _groups(pairs, views, gone, join_iou)
    trust = np.minimum(clearance, max(margin, TOUCHING))
    chosen = _first_of_each(group, views.detections.scores, trust)
    chosen = chosen[~gone[chosen]]
    return _united(views, group, chosen[cut[chosen]]).select(chosen).sorted()


def _seen_whole(pairs: Pairs, cut: Bools, areas: Ints, join_iou: float) -> Bools:
    """Which detections [N] are fragments: all that they show lies in another window, and most of it in a whole cell."""
    inside = pairs.areas_i == areas[pairs.i]
    fragment = cut[pairs.i] & ~cut[pairs.j] & inside & (pairs.shared >= join_iou * pairs.areas_i)
    result = np.zeros(len(areas), dtype=bool)
    result[pairs.i[fragment]] = True
    return result


def _groups(pairs: Pairs, views: Views, gone: Bools, join_iou: float) -> Ints:
    """The cell of each detection, int64 [N], as the index of one of its detections.

    The likeliest pairs are joined first, and no cell gets two detections of one window.
    """
    iou, scores = pairs.iou, views.detections.scores.astype(np.float64)
    same = np.flatnonzero((pairs.i < pairs.j) & (iou >= join_iou) & ~gone[pairs.i] & ~gone[pairs.j])
    i, j = pairs.i[same], pairs.j[same]
    order = np.argsort(-iou[same] * scores[i] * scores[j], kind="stable")
    group, windows = list(range(len(views))), [1 << owner for owner in views.owner.tolist()]
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        a, b = _root(group, a), _root(group, b)
        if not windows[a] & windows[b]:
            group[b] = a
            windows[a] |= windows[b]
    return np.array([_root(group, k) for k in range(len(group))], dtype=np.int64)


def _root(group: list[int], k: int) -> int:
    while group[k] != k:
        group[k] = group[group[k]]
        k = group[k]
    return k


def _first_of_each(group: Ints, scores: NDArray[np.float32], trust: NDArray[np.float64]) -> Ints:
    """The most trusted detection of each group, the better score first where several are trusted alike."""
    order = np.lexsort((-scores, -trust, group))
    return order[np.unique(group[order], return_index=True)[1]]


def _united(views: Views, group: Ints, chosen: Ints) -> Detections:
    """The detections with each of `chosen`, which stand for cells that no window sees whole, as the whole cell."""
    found, areas = views.detections, views.runs.areas
    boxes, masks, scores, types = found.boxes.copy(), found.masks.copy(), found.scores.copy(), found.cell_types.copy()
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[chosen])
    last = np.searchsorted(group[order], group[chosen], side="right")
    for k, begin, end in zip(chosen.tolist(), first.tolist(), last.tolist(), strict=True):
        if end - begin > 1:
            pieces = order[begin:end]
            boxes[k], masks[k], scores[k], types[k] = unite(found.select(pieces), areas[pieces])
    return replace(found, boxes=boxes, masks=masks, scores=scores, cell_types=types)

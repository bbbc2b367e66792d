"""Merge the detections of overlapping windows into one set: each cell once, and in one piece.

Detections of different windows are one cell when their masks agree within the pixels that both windows share. The
detection furthest from its window's edges inside the image represents the cell; only a cell that every window cuts is
stitched from its fragments. Detections of one window are never merged with each other: duplicates within a window are
left to post-processing, here as without windows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sartorius.inference.stitching import stitch_fragments
from sartorius.inference.window_detections import Pairs, WindowDetections
from sartorius.structures.arrays import Bools, Floats, Ints, Scores
from sartorius.structures.detections import Detections
from sartorius.structures.windows import Window

TOUCHING = 2  # px: a mask that ends nearer than this to an inner edge of its window counts as cut by it


def merge(
    parts: Iterable[tuple[Window, Detections]], image_id: str, height: int, width: int, *, margin: int, join_iou: float
) -> Detections:
    """Merge each window's detections, in its own pixels, into those of the image, best score first.

    margin: a detection is trusted fully at this distance, px, from its window's edges inside the image; one that is cut
    and lies in the margin altogether is left to the neighbour. join_iou: IoU from which two are one cell. `parts` holds
    one window at least; windows without detections may be among them.
    """
    everything = WindowDetections(parts, image_id, height, width)
    clearance, pairs = everything.clearance, everything.pairs()
    cut = clearance < TOUCHING
    dropped = cut & ((everything.areas_without(margin) == 0) | _fragments(pairs, cut, everything.runs.areas, join_iou))
    group = _groups(pairs, everything, dropped, join_iou)
    trust = np.minimum(clearance, max(margin, TOUCHING))
    chosen = _first_of_each(group, everything.detections.scores, trust)
    chosen = chosen[~dropped[chosen]]
    return _stitched(everything, group, chosen, cut).sorted()


def _fragments(pairs: Pairs, cut: Bools, areas: Ints, join_iou: float) -> Bools:
    """Tell which detections [N] are fragments: wholly inside another window, and mostly inside an uncut cell there."""
    inside = pairs.areas_i == areas[pairs.i]
    fragment = cut[pairs.i] & ~cut[pairs.j] & inside & (pairs.shared >= join_iou * pairs.areas_i)
    result = np.zeros(len(areas), dtype=bool)
    result[pairs.i[fragment]] = True
    return result


def _groups(pairs: Pairs, everything: WindowDetections, dropped: Bools, join_iou: float) -> Ints:
    """Assign each detection to a cell, int64 [N], numbered by one of its detections.

    The likeliest pairs are joined first, and no cell gets two detections of one window.
    """
    iou, scores = pairs.iou, everything.detections.scores.astype(np.float64)
    same = np.flatnonzero((pairs.i < pairs.j) & (iou >= join_iou) & ~dropped[pairs.i] & ~dropped[pairs.j])
    i, j = pairs.i[same], pairs.j[same]
    order = np.argsort(-iou[same] * scores[i] * scores[j], kind="stable")
    group = list(range(len(everything)))
    windows: dict[int, set[int]] = {}
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        a, b = _root(group, a), _root(group, b)
        of_a, of_b = (windows.setdefault(k, {int(everything.owner[k])}) for k in (a, b))
        if of_a.isdisjoint(of_b):
            group[b] = a
            of_a |= of_b
    return np.array([_root(group, k) for k in range(len(group))], dtype=np.int64)


def _root(group: list[int], k: int) -> int:
    while group[k] != k:
        group[k] = group[group[k]]
        k = group[k]
    return k


def _first_of_each(group: Ints, scores: Scores, trust: Floats) -> Ints:
    """Choose the most trusted detection of each group; of equally trusted ones that with the better score."""
    order = np.lexsort((-scores, -trust, group))
    return order[np.unique(group[order], return_index=True)[1]]


def _stitched(everything: WindowDetections, group: Ints, chosen: Ints, cut: Bools) -> Detections:
    """Select `chosen`, a detection of each cell, with a stitched one in place of those that every window cuts."""
    detections, areas = everything.detections.select(chosen), everything.runs.areas
    boxes, masks, scores, types = detections.boxes, detections.masks, detections.scores, detections.cell_types
    order = np.argsort(group, kind="stable")
    places = np.flatnonzero(cut[chosen])
    first = np.searchsorted(group[order], group[chosen[places]])
    last = np.searchsorted(group[order], group[chosen[places]], side="right")
    for k, begin, end in zip(places.tolist(), first.tolist(), last.tolist(), strict=True):
        if end - begin > 1:
            fragments = order[begin:end]
            stitched = stitch_fragments(everything.detections.select(fragments), areas[fragments])
            boxes[k], masks[k], scores[k], types[k] = stitched  # in the copy that select made
    return detections

"""The field's scores of instances beside the competition's: F1, panoptic quality, aggregated Jaccard index.

F1, its precision and its recall count cells matched at an IoU above 0.50, as StarDist and Cellpose do (Cellpose's
"average precision" TP / (TP + FP + FN) is the competition's precision at a threshold). Panoptic quality: Kirillov et
al. 2019, of one class of things. Aggregated Jaccard index (AJI): Kumar et al. 2017, each cell with its closest
prediction; AJI+: Graham et al. 2019, one to one. All of them come from sparse intersections, so that overlapping cells
are compared whole; a pixel of two cells counts in each.

A plain name is the mean over images. An image without cells and predictions scores 1, one that lacks only one of the
two 0. `pooled_` sums the counts of all images first, so that images with many cells weigh more; Kirillov's PQ is this.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sartorius.metrics.functional import THRESHOLDS, Intersections, best_pairs
from sartorius.structures.arrays import Floats, Ints

MEANINGS: Mapping[str, tuple[str, str]] = {  # key: (name, definition)
    "f1": ("F1", "2 TP / (2 TP + FP + FN), cells matched at an IoU above 0.50"),
    "f1_precision": ("precision", "TP / (TP + FP): predictions that are cells"),
    "f1_recall": ("recall", "TP / (TP + FN): cells that are found"),
    "pq": ("PQ", "panoptic quality: SQ x F1"),
    "sq": ("SQ", "mean IoU of the matched cells, 0 without any"),
    "aji": ("AJI", "aggregated Jaccard index: shared / all pixels, each cell with its closest prediction"),
    "aji_plus": ("AJI+", "the same, matched one to one"),
}
AP_MEANINGS: Mapping[str, tuple[str, str]] = {  # of runs with scores
    "mask_ap": ("mask AP", "COCO average precision of the cells of a type, at an IoU of 0.50 to 0.95"),
    "mask_ap_50": ("mask AP50", "the same at an IoU of 0.50"),
    "mask_ap_75": ("mask AP75", "the same at an IoU of 0.75"),
    "mask_ap_agnostic": ("mask AP, agnostic", "mask AP of all cells, whatever their type"),
    "box_ap": ("box AP", "COCO average precision of the boxes of a type, before post-processing"),
}
OVERLAP_LENGTH = 6


def overlap_row(index: int, shared: Intersections) -> Floats:
    """Return what PQ and AJI need of one image beside its integer row, float64 [6], from its intersections.

    (image index, sum of the IoUs of pairs matched above 0.50, then pixels: AJI's shared, AJI's union, AJI+'s shared,
    AJI+'s union.) Of equally close predictions AJI takes the first.
    """
    order = np.lexsort((shared.i, -shared.iou, shared.j))
    closest = order[np.unique(shared.j[order], return_index=True)[1]]
    pairs = best_pairs(shared.i, shared.j, shared.iou)
    matched = shared.iou[shared.matched_pairs()].sum()
    return np.array([index, matched, *_aggregated(shared, closest), *_aggregated(shared, pairs)], dtype=np.float64)


def _aggregated(shared: Intersections, pairs: Ints) -> tuple[int, int]:
    """Sum the shared pixels of pairs, and their unions with the areas of all that is in no pair."""
    unpaired = np.delete(shared.prediction_areas, shared.i[pairs]), np.delete(shared.cell_areas, shared.j[pairs])
    union = shared.union[pairs].sum() + sum(areas.sum() for areas in unpaired)
    return int(shared.pixels[pairs].sum()), int(union)


def scores_per_image(rows: Ints, overlaps: Floats) -> dict[str, Floats]:
    """Return the scores of MEANINGS by key, float64 [P] in 0..1, of images in the order of the rows.

    rows: int64 [P, 13], see `functional`; overlaps: float64 [P, 6], see `overlap_row`.
    """
    hits, predictions, cells = rows[:, 1], rows[:, -2], rows[:, -1]
    _, matched, aji_shared, aji_union, plus_shared, plus_union = overlaps.T
    nothing = predictions + cells == 0
    parts = {
        "f1": (2 * hits, predictions + cells),
        "f1_precision": (hits, predictions),
        "f1_recall": (hits, cells),
        "pq": (2 * matched, predictions + cells),
        "sq": (matched, hits),
        "aji": (aji_shared, aji_union),
        "aji_plus": (plus_shared, plus_union),
    }
    return {key: np.where(nothing, 1.0, part / np.maximum(whole, 1)) for key, (part, whole) in parts.items()}


def f1_by_threshold(rows: Ints) -> Floats:
    """Return the mean over images of F1 at each of the ten thresholds, float64 [10]; NaN without images."""
    if not len(rows):
        return np.full(len(THRESHOLDS), np.nan)
    whole = rows[:, -2:].sum(axis=1, keepdims=True)
    return np.where(whole == 0, 1.0, 2 * rows[:, 1:-2] / np.maximum(whole, 1)).mean(axis=0)

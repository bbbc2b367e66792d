"""COCO average precision of masks, counting up to 2000 of them an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sartorius.metrics.coco_precision import Annotations, CocoSides, average_precision
from sartorius.metrics.unlabelled import left_out
from sartorius.structures import coco_rle
from sartorius.structures.arrays import AnyFloats, Bools, Ints
from sartorius.structures.rle import Runs


class MaskAP:
    """COCO mask AP over IoU thresholds 0.50:0.95 of scored cells, gathered image by image in one process.

    Cells may overlap on both sides. Scores only rank: a score threshold of post-processing ends the recall, and
    `postprocess.score=null` ranks all. An IoU of exactly a threshold is a hit in COCO.

    type_names: names of the cell types 0 ... K-1. max_detections: highest-scoring cells counted per image and type.
    """

    def __init__(self, type_names: Sequence[str], max_detections: int = 2000) -> None:
        self.type_names = tuple(type_names)
        self.max_detections = max_detections
        self._detections: Annotations = []
        self._cells: Annotations = []
        self._images: Annotations = []

    def update(
        self, index: int, runs: Runs, scores: AnyFloats, cell_types: Ints, true_runs: Runs, true_cell_types: Ints,
        ignored: Bools | None = None,
    ) -> None:  # fmt: skip
        """Add one image, by its index: N cells, scores [N], types [N], of which K is one that the data lack; the truth.

        Cells without pixels are left out, and those mostly in `ignored` pixels, bool [H, W], which nobody has labelled.
        """
        self._images.append({"id": index, "height": runs.width, "width": runs.height})  # as coco_rle: transposed
        found = _annotations(index, runs, cell_types, scores)
        if ignored is not None:
            counted = np.flatnonzero(~left_out(runs, ignored)[runs.areas > 0]).tolist()
            found = [found[k] for k in counted]
        self._detections += found
        self._cells += _annotations(index, true_runs, true_cell_types)

    def compute(self) -> dict[str, float | None]:
        """Return `mask_ap`, `mask_ap_50`, `mask_ap_75` (means over types) and those of each type, as `box_ap`.

        And `mask_ap_agnostic`, `mask_ap_agnostic_50` and `mask_ap_agnostic_75`, in which types play no part.
        """
        sides = CocoSides(self._cells, self._detections, self._images, len(self.type_names) + 1)
        by_type, agnostic = (sides.precision("segm", self.max_detections, together) for together in (False, True))
        return {
            **average_precision("mask_ap", by_type, self.type_names),
            **average_precision("mask_ap_agnostic", agnostic),
        }


def _annotations(index: int, runs: Runs, cell_types: Ints, scores: AnyFloats | None = None) -> Annotations:
    rows = zip(coco_rle.encode(runs), cell_types.tolist(), runs.areas.tolist(), strict=True)
    annotations = [
        {"image_id": index, "category_id": kind, "area": area, "segmentation": mask} for mask, kind, area in rows
    ]
    if scores is not None:
        annotations = [{**one, "score": float(score)} for one, score in zip(annotations, scores, strict=True)]
    return [one for one in annotations if one["area"]]

"""COCO's precision by IoU threshold and recall, and its averages; counted by faster-coco-eval, as pycocotools does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from sartorius.structures.arrays import Floats

Annotations = list[dict[str, Any]]


class CocoSides:
    """Annotated cells and detections of a set of images, as faster-coco-eval takes them.

    cells, detections: image_id, category_id 0 ... types-1, area, `bbox` or `segmentation`, and the detections' score.
    images: id, and with masks height and width, of all images, also of those without cells.
    """

    def __init__(self, cells: Annotations, detections: Annotations, images: Annotations, types: int) -> None:
        self.types = types
        self._truth = COCO()
        self._truth.dataset = {
            "images": images,
            "categories": [{"id": k, "name": str(k)} for k in range(types)],
            "annotations": [{**cell, "id": k + 1, "iscrowd": 0} for k, cell in enumerate(cells)],
        }
        self._truth.createIndex()
        # An image without detections still counts; loadRes keeps the images of the truth.
        self._found = self._truth.loadRes(detections) if cells else None

    def precision(self, kind: Literal["bbox", "segm"], max_detections: int, class_agnostic: bool = False) -> Floats:
        """Return precision [10 thresholds 0.50:0.95, 101 recalls 0:1, types], -1 for a type without cells.

        max_detections: highest-scoring ones per image and type. class_agnostic: all are of one type, [10, 101, 1].
        """
        if self._found is None:
            return np.full((10, 101, 1 if class_agnostic else self.types), -1.0)
        evaluation = COCOeval_faster(self._truth, self._found, iouType=kind)
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.useCats = not class_agnostic
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])[..., 0, 0]


def average_precision(name: str, precision: Floats, type_names: Sequence[str] = ()) -> dict[str, float | None]:
    """Return <name> (0.50:0.95), <name>_50 and <name>_75, means over types, and each of a type as ..._<type>.

    Types without cells are left out of the means; None where there is no cell at all.
    """
    parts = {name: precision, f"{name}_50": precision[:1], f"{name}_75": precision[5:6]}
    by_type = {f"{key}_{kind}": part[:, :, k] for key, part in parts.items() for k, kind in enumerate(type_names)}
    return {key: _mean(part) for key, part in {**parts, **by_type}.items()}


def _mean(precision: Floats) -> float | None:
    counted = precision[precision > -1]  # COCO writes -1 for a type without cells
    return float(counted.mean()) if counted.size else None

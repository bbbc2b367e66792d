"""COCO average precision of boxes, counting up to 2000 detections an image.

COCO's own limit of 100 an image hides half of the recall here: images have up to 790 cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sartorius.metrics.coco_precision import CocoSides, average_precision
from sartorius.metrics.gathered import ImageRows
from sartorius.metrics.unlabelled import boxes_left_out
from sartorius.structures.arrays import Bools, Floats

# Columns of the two states, float64 (image indices stay exact): image, serial number in the image, then
_DETECTION = 8  # x1, y1, x2, y2, cell type, score
_CELL = 7  # x1, y1, x2, y2, cell type


class BoxAP(ImageRows):
    """COCO box AP over thresholds 0.50:0.95 and all processes; a repeated image counts once.

    type_names: names of the cell types 0 ... K-1; they name the results. max_detections: highest-scoring boxes counted
    per image and cell type.
    """

    TABLES = {"detections": ((_DETECTION,), torch.float64), "cells": ((_CELL,), torch.float64)}  # noqa: RUF012
    detections: list[Tensor]
    cells: list[Tensor]

    def __init__(self, type_names: Sequence[str], max_detections: int = 2000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.type_names = tuple(type_names)
        self.max_detections = max_detections

    def update(
        self, index: int, boxes: ArrayLike, scores: ArrayLike, cell_types: ArrayLike, true_boxes: ArrayLike,
        true_cell_types: ArrayLike, ignored: Bools | None = None,
    ) -> None:  # fmt: skip
        """Add one image, by its index: boxes [N, 4] (x1, y1, x2, y2), scores [N], cell types [N]; and its cells'.

        ignored: bool [H, W], pixels that nobody has labelled; boxes mostly there are left out. Boxes before non-maximum
        suppression and thresholds belong here: AP ranks, it does not decide.
        """
        table = self._table(index, boxes, cell_types, scores)
        if ignored is not None:
            found, true = (np.asarray(of, np.float64).reshape(-1, 4) for of in (boxes, true_boxes))
            table = table[torch.from_numpy(~boxes_left_out(found, true, ignored)).to(table.device)]
        self.detections.append(table)
        self.cells.append(self._table(index, true_boxes, true_cell_types))

    def _table(self, index: int, boxes: ArrayLike, *columns: ArrayLike) -> Tensor:
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        table = np.column_stack((np.full(len(corners), index), np.arange(len(corners)), corners, *columns))
        # Apple's accelerator has no float64; the table is small and stays where it can be gathered exactly.
        device = self.device if self.device.type == "cuda" else "cpu"
        return torch.from_numpy(table).to(device)

    def compute(self) -> dict[str, float | None]:
        """Return `box_ap` and the rest of `coco_precision.average_precision`; None where there is no cell at all."""
        detections, cells = (_each_once(table.numpy()) for table in self._tables().values())
        places = np.unique(np.concatenate([cells[:, 0], detections[:, 0]])).astype(int).tolist()
        images = [{"id": place} for place in places]
        sides = CocoSides(_annotations(cells), _annotations(detections), images, len(self.type_names))
        precision = sides.precision("bbox", self.max_detections)
        return average_precision("box_ap", precision, self.type_names)


def _each_once(rows: Floats) -> Floats:
    return rows[np.unique(rows[:, :2], axis=0, return_index=True)[1]]


def _annotations(table: Floats) -> list[dict[str, Any]]:
    sizes = table[:, 4:6] - table[:, 2:4]
    boxes = np.concatenate([table[:, 2:4], sizes], axis=1).tolist()
    areas = sizes.prod(axis=1).tolist()
    scores = table[:, 7].tolist() if table.shape[1] == _DETECTION else [1.0] * len(table)
    rows = zip(table[:, 0].astype(int).tolist(), boxes, table[:, 6].astype(int).tolist(), areas, scores, strict=True)
    return [
        {"image_id": image_id, "bbox": box, "category_id": kind, "area": area, "score": score}
        for image_id, box, kind, area, score in rows
    ]

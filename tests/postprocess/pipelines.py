"""The usual steps of post-processing by their thresholds, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sartorius.postprocess import (
    BoxNMS,
    FillHoles,
    LargestPiece,
    MaskNMS,
    MaxDetections,
    MinArea,
    Overlaps,
    PasteMasks,
    Postprocess,
    ReopenHoles,
    Score,
    ThresholdTypes,
)
from sartorius.postprocess.saved import to_saved

LOOSE: dict[str, Any] = {"score": 0.0, "mask": 0.5, "box_nms": 1.0, "mask_nms": 1.0, "min_area": 0}
LAST = ("overlaps", "largest_piece", "fill_holes", "reopen_holes", "min_area")


def pipeline(
    *, score: Any = 0.0, mask: Any = 0.5, box_nms: Any = 1.0, mask_nms: Any = 1.0, min_area: Any = 0,
    max_detections: int = 2000, types: Any = "detection", class_agnostic: bool = True, overlap: Any = "iou",
    largest_piece: bool = False, fill_holes: bool = False, reopen_holes: Any = None, last: Sequence[str] = LAST,
) -> Postprocess:  # fmt: skip
    """The steps of conf/postprocess/default.yaml; `last` is the order of those behind mask NMS."""
    behind = {
        "overlaps": Overlaps(),
        "largest_piece": LargestPiece() if largest_piece else None,
        "fill_holes": FillHoles() if fill_holes else None,
        "reopen_holes": None if reopen_holes is None else ReopenHoles(reopen_holes),
        "min_area": MinArea(min_area),
    }
    return Postprocess(
        types=ThresholdTypes(types),
        score=Score(score),
        max_detections=MaxDetections(max_detections),
        box_nms=BoxNMS(box_nms, class_agnostic),
        mask=PasteMasks(mask),
        mask_nms=MaskNMS(mask_nms, overlap),
        **{name: behind[name] for name in last},
    )


def saved(**settings: Any) -> dict[str, Any]:
    """The plain settings of `pipeline(**settings)`, as a checkpoint or meta.json holds them."""
    return to_saved(pipeline(**settings))

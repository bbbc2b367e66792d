"""Detections of simple shapes for members of an ensemble."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sartorius.fusion.pool import MemberDetections, Pool, pool
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import saved

POST = saved(score=0.1, mask=0.5, box_nms=1.0, mask_nms=0.5, min_area=0)


def found(
    boxes: list[list[float]], scores: list[float], types: list[int] | None = None, size: int = 8, value: float = 1.0
) -> Detections:
    """Full boxes in an image of 40 x 60."""
    n = len(boxes)
    box, kinds = np.asarray(boxes, np.float32).reshape(n, 4), np.asarray(types or [0] * n, np.int64)
    masks = np.full((n, size, size), value, np.float16)
    return Detections("image_id", 40, 60, box, np.asarray(scores, np.float32), kinds, masks)


def member(detections: Detections, weight: float = 1.0, threshold: float = 0.5, typed: bool = True) -> MemberDetections:
    return MemberDetections(detections, np.full(3, weight), np.full(3, threshold), typed)


def pooled(
    *members: MemberDetections, min_score: float = 0.0, calibrate: bool = True, image_type: str = "each"
) -> Pool:
    return pool(members, min_score=min_score, calibrate=calibrate, image_type=image_type)  # type: ignore[arg-type]


def write_folder(path: Path, *images: Detections, names: tuple[str, ...] = ("shsy5y", "astro", "cort")) -> Path:
    """A folder of detections as `predict` writes it."""
    path.mkdir(parents=True)
    meta = {"format_version": 2, "cell_types": list(names), "mask_size": 8, "postprocess": POST}
    (path / "meta.json").write_text(json.dumps(meta))
    for image in images:
        image.save(path)
    return path

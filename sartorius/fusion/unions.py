"""One detection from pieces of a cell that no window saw whole."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import roi_align

from sartorius.detections import Detections

Floats = NDArray[np.float64]


def unite(pieces: Detections, areas: NDArray[np.int64]) -> tuple[Floats, NDArray[np.float16], float, int]:
    """(box [4], mask [M, M], score, cell type) of the cell that the pieces, at least one, are of.

    The box holds all boxes; a pixel's probability is the largest of any piece; the score is the mean of the pieces'
    scores, weighted with their `areas` [N] in pixels; the cell type has the largest sum of scores.
    """
    low, high = pieces.boxes[:, :2].min(axis=0), pieces.boxes[:, 2:].max(axis=0)
    box = np.concatenate((low, high)).astype(np.float64)
    # a pixel more on each side: what RoIAlign reads beyond the box is background, except at the picture's border
    left, top = np.maximum(np.floor(box[:2]).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 1, (pieces.width, pieces.height)).tolist()
    probability = np.zeros((bottom - top, right - left))
    for (x1, y1, x2, y2), mask in zip(pieces.boxes.tolist(), pieces.masks, strict=True):
        down, across = _weights(top, bottom, y1, y2, len(mask)), _weights(left, right, x1, x2, len(mask))
        np.maximum(probability, down @ mask.astype(np.float64) @ across.T, out=probability)
    region = torch.tensor([[0, *(box - (left, top, left, top))]], dtype=torch.float32)
    pixels = torch.from_numpy(probability.astype(np.float32))[None, None]
    mask = roi_align(pixels, region, pieces.mask_size, sampling_ratio=-1, aligned=True)[0, 0]
    score = float(np.average(pieces.scores, weights=areas))
    cell_type = int(np.bincount(pieces.cell_types, weights=pieces.scores).argmax())
    return box, mask.numpy().astype(np.float16), score, cell_type


def _weights(first: int, stop: int, low: float, high: float, size: int) -> Floats:
    """[pixels, size]: how much of each mask cell along one side of a box low .. high a pixel centre reads.

    Bilinear, as `postprocess.paste` pastes; nothing for centres outside the box.
    """
    centre = np.arange(first, stop) + 0.5
    at = np.clip((centre - low) * (size / (high - low)) - 0.5, 0, size - 1)
    hat = np.clip(1 - np.abs(at[:, None] - np.arange(size)), 0, None)
    return hat * ((centre >= low) & (centre < high))[:, None]

"""One detection from pieces of a cell that no window saw whole."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import roi_align

from sartorius.structures.arrays import Floats
from sartorius.structures.detections import Detections
from sartorius.structures.resample import bilinear


def unite(pieces: Detections, areas: NDArray[np.int64]) -> tuple[Floats, NDArray[np.float16], float, int]:
    """(box [4], mask [M, M], score, cell type) of the cell that the pieces, at least one, are of.

    The box holds all boxes; a pixel's probability is the largest of any piece; the score is the mean of the pieces'
    scores, weighted with their `areas` [N] in pixels; the cell type has the largest sum of scores.
    """
    low, high = pieces.boxes[:, :2].min(axis=0), pieces.boxes[:, 2:].max(axis=0)
    box = np.concatenate((low, high)).astype(np.float64)
    # a pixel more on each side: what RoIAlign reads beyond the box is background, except at the image's border
    left, top = np.maximum(np.floor(box[:2]).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 1, (pieces.width, pieces.height)).tolist()
    boxes = pieces.boxes.astype(np.float64)
    size, one = pieces.mask_size, np.ones(len(pieces))
    down = bilinear(boxes[:, 1], boxes[:, 3], top * one, bottom * one, size, bottom - top)
    across = bilinear(boxes[:, 0], boxes[:, 2], left * one, right * one, size, right - left)
    probability = (down @ pieces.masks.astype(np.float32) @ across.transpose(0, 2, 1)).max(axis=0)
    region = torch.tensor([[0, *(box - (left, top, left, top))]], dtype=torch.float32)
    pixels = torch.from_numpy(probability)[None, None]
    mask = roi_align(pixels, region, size, sampling_ratio=-1, aligned=True)[0, 0]
    score = float(np.average(pieces.scores, weights=areas))
    cell_type = int(np.bincount(pieces.cell_types, weights=pieces.scores).argmax())
    return box, mask.numpy().astype(np.float16), score, cell_type

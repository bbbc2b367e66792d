"""One detection from the fragments of a cell that no window contains whole."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import roi_align

from sartorius.structures.arrays import Floats, Ints, SoftMasks
from sartorius.structures.detections import Detections
from sartorius.structures.resample import bilinear


def stitch_fragments(fragments: Detections, areas: Ints) -> tuple[Floats, SoftMasks, float, int]:
    """Stitch at least one fragment of a cell: (box [4], mask [M, M], score, cell type).

    The box holds all boxes; a pixel's probability is the largest of any fragment; the score is the mean of the
    fragments' scores, weighted with their `areas` [N] in pixels; the cell type has the largest sum of scores.
    """
    low, high = fragments.boxes[:, :2].min(axis=0), fragments.boxes[:, 2:].max(axis=0)
    box = np.concatenate((low, high)).astype(np.float64)
    # a pixel more on each side: what RoIAlign reads beyond the box is background, except at the image's border
    left, top = np.maximum(np.floor(box[:2]).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 1, (fragments.width, fragments.height)).tolist()
    boxes = fragments.boxes.astype(np.float64)
    size, ones = fragments.mask_size, np.ones(len(fragments))
    down = bilinear(boxes[:, 1], boxes[:, 3], top * ones, bottom * ones, size, bottom - top)
    across = bilinear(boxes[:, 0], boxes[:, 2], left * ones, right * ones, size, right - left)
    probability = (down @ fragments.masks.astype(np.float32) @ across.transpose(0, 2, 1)).max(axis=0)
    region = torch.tensor([[0, *(box - (left, top, left, top))]], dtype=torch.float32)
    pixels = torch.from_numpy(probability)[None, None]
    mask = roi_align(pixels, region, size, sampling_ratio=-1, aligned=True)[0, 0]
    score = float(np.average(fragments.scores, weights=areas))
    cell_type = int(np.bincount(fragments.cell_types, weights=fragments.scores).argmax())
    return box, mask.numpy().astype(np.float16), score, cell_type

"""Boxes as codes relative to other boxes, and which of them are large enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import encode_boxes

LARGEST_GROWTH = math.log(1000 / 16)  # a decoded side is at most so many times (as a logarithm) the anchor's


class BoxCodes(nn.Module):
    """Codes of boxes [R, 4], x1 y1 x2 y2, relative to other boxes, each times its weight (Ren et al. 2015, 3.1.2).

    They are torchvision's BoxCoder's: shifts of the centre x, y over width and height, log ratios of width and height.
    That one copies its constants to the device at every call, and the host waits for the device each time.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    def encode(self, boxes: Tensor, relative_to: Tensor) -> Tensor:
        """Compute the codes of boxes [R, 4] relative to others, float32 [R, 4]."""
        codes: Tensor = encode_boxes(boxes, relative_to, self.weights)
        return codes

    def decode(self, codes: Tensor, relative_to: Tensor) -> Tensor:
        """Compute the boxes [R, 4] that have these codes [R, 4] relative to others."""
        codes = codes / self.weights
        size = relative_to[:, 2:] - relative_to[:, :2]
        centre = codes[:, :2] * size + (relative_to[:, :2] + 0.5 * size)
        half = 0.5 * (codes[:, 2:].clamp(max=LARGEST_GROWTH).exp() * size)
        return torch.cat((centre - half, centre + half), dim=1)


def large_enough(boxes: Tensor, min_size: float) -> Tensor:
    """Mark boxes [R, 4] of which both sides have at least `min_size`: bool [R]; False for NaN."""
    return (boxes[:, 2:] - boxes[:, :2] >= min_size).all(dim=1)

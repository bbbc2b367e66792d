"""Losses of dense predictions, finite whatever the truth holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_dice(logits: Tensor, target: Tensor, weight: Tensor | None = None, dice: float = 1.0) -> Tensor:
    """Mean binary cross-entropy plus `dice` times the Dice loss: a float32 scalar.

    logits, target: [..., H, W], target in 0..1 (soft targets are fine). weight: of each pixel in the cross-entropy,
    same shape. An empty tensor gives 0.
    """
    logits, target = logits.float(), target.float()
    if not logits.numel():
        return logits.sum()
    loss = F.binary_cross_entropy_with_logits(logits, target, weight)
    return loss + dice * dice_loss(logits, target) if dice else loss


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """The mean over pictures with a true pixel of 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth).

    Milletari et al. (2016), each picture [H, W] by itself: pooled sums would be those of the crowded ones, and the
    score is a mean over pictures. A picture with nothing to find is left to the cross-entropy: here it would be all or
    nothing. 0 where no picture has a true pixel.
    """
    probability = logits.float().sigmoid()
    shared, total = (probability * target).sum((-2, -1)), (probability + target).sum((-2, -1))
    filled = (target.sum((-2, -1)) > 0).float()
    return ((1 - (2 * shared + smooth) / (total + smooth)) * filled).sum() / filled.sum().clamp(min=1)


def offset_loss(offset: Tensor, target: Tensor, foreground: Tensor) -> Tensor:
    """Mean smooth-L1 distance over the pixels of cells: [B, 2, H, W] against the same, foreground [B, H, W] in 0..1.

    0 where there is no such pixel.
    """
    distance = F.smooth_l1_loss(offset.float(), target, reduction="none").sum(1)
    return (distance * foreground).sum() / foreground.sum().clamp(min=1)


def type_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the cell type over pixels of cells: [B, K, H, W] against int64 [B, H, W], -1 for none.

    0 where there is no such pixel.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)


def sum_losses(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of the terms, each times its weight (1 where absent)."""
    return torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()

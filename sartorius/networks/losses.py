"""Losses of dense predictions, finite whatever the truth holds.

`certain` marks the pixels that count, float of 0 and 1: the others add nothing and means are not over them. `samples`
are the weights of the images (or crops) of a batch, float [B]; they scale the terms of the sums and not the counts that
means are over, so that a weight of 0.5 halves its share. None is all pixels, and 1 for every image, without rounding
differently.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sartorius.networks.targets import weighted_sum


def bce_dice(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    dice: float = 1.0,
    certain: Tensor | None = None,
    samples: Tensor | None = None,
) -> Tensor:
    """Compute the mean binary cross-entropy plus `dice` times the Dice loss: a float32 scalar.

    logits, target: [B, H, W], target in 0..1 (soft targets are fine). weight: of each pixel in the cross-entropy,
    same shape, as is certain. An empty tensor gives 0.
    """
    logits, target = logits.float(), target.float()
    if not logits.numel():
        return logits.sum()
    if certain is None and samples is None:
        loss = F.binary_cross_entropy_with_logits(logits, target, weight)
    else:
        each = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        count = logits.numel() if certain is None else certain.sum().clamp(min=1)
        loss = weighted_sum(each if certain is None else each * certain, samples) / count
    return loss + dice * dice_loss(logits, target, 1.0, certain, samples) if dice else loss


def dice_loss(
    logits: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    certain: Tensor | None = None,
    samples: Tensor | None = None,
) -> Tensor:
    """Compute the mean over images with a true pixel of 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth).

    Milletari et al. (2016), each image [H, W] by itself: pooled sums would be dominated by crowded images, and the
    score is a mean over images. An image without cells is left to the cross-entropy: here it would be all or nothing.
    0 where no image has a true pixel.
    """
    probability = logits.float().sigmoid()
    if certain is not None:
        probability, target = probability * certain, target * certain
    shared, total = (probability * target).sum((-2, -1)), (probability + target).sum((-2, -1))
    filled = (target.sum((-2, -1)) > 0).float()
    return weighted_sum((1 - (2 * shared + smooth) / (total + smooth)) * filled, samples) / filled.sum().clamp(min=1)


def offset_loss(offset: Tensor, target: Tensor, foreground: Tensor, samples: Tensor | None = None) -> Tensor:
    """Compute the mean smooth-L1 distance over pixels of cells: [B, 2, H, W] each, foreground [B, H, W] in 0..1.

    0 where there is no such pixel.
    """
    distance = F.smooth_l1_loss(offset.float(), target, reduction="none").sum(1)
    return weighted_sum(distance * foreground, samples) / foreground.sum().clamp(min=1)


def type_loss(logits: Tensor, target: Tensor, samples: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy of the cell type over pixels of cells: [B, K, H, W], int64 [B, H, W], -1 for none.

    0 where there is no such pixel.
    """
    reduction = "sum" if samples is None else "none"
    total = F.cross_entropy(logits.float(), target, ignore_index=-1, reduction=reduction)
    return weighted_sum(total, samples) / (target >= 0).sum().clamp(min=1)


def sum_losses(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum the terms, each times its weight (1 where absent)."""
    return torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()

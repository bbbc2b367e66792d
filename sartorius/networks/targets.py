"""Targets of an image: its cells, the pixels that every loss ignores, and the weight of the image.

Doubtful cells are pixels that are neither cell nor background. A candidate box that stands for no cell and lies among
them is left out of a loss, as boxes in COCO's crowds are (Lin et al. 2014; detectron2's `ioa` threshold).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sartorius.networks.matching import BACKGROUND, BETWEEN
from sartorius.structures.mask_sampling import gather_masks


class RoITarget(Protocol):
    """The cells of an image: boxes float32 [N, 4] in image pixels, cell types int64 [N], and the layered map."""

    boxes: Tensor
    cell_types: Tensor
    layers: Tensor  # int32 [L, H, W]
    layer_of: Tensor  # int64 [N]
    ids: Tensor  # int64 [N], value of each cell in its layer
    ignored: Tensor | None  # bool [H, W], neither cell nor background; None for no such pixel
    weight: float  # of the image in every loss


def share_inside(region: Tensor, boxes: Tensor) -> Tensor:
    """Compute the share of each box, as far as it lies in the image, that `region` covers: float32 [N] in 0..1.

    region: bool [H, W]. boxes: float [N, 4], x1 y1 x2 y2 in half-open pixel edges. 0 for a box outside the image.
    Exact: the integral of a map of pixels is bilinear within each of them. No boxes x pixels matrix exists.
    """
    height, width = region.shape
    # float64: differences of sums up to 10^6 must leave the fractions of a small box
    integral = torch.zeros((height + 1, width + 1), dtype=torch.float64, device=region.device)
    integral[1:, 1:] = region.long().cumsum(0).cumsum(1)  # of integers: deterministic on a GPU too
    x1, y1, x2, y2 = boxes.double().unbind(1)
    (x1, x2), (y1, y2) = (
        [side.clamp(0, limit) for side in axis] for axis, limit in (((x1, x2), width), ((y1, y2), height))
    )

    def below(x: Tensor, y: Tensor) -> Tensor:
        """Read the integral from the corner of the image to (x, y)."""
        left, top = x.long().clamp(max=width - 1), y.long().clamp(max=height - 1)
        right, down = x - left, y - top
        upper = integral[top, left] * (1 - right) + integral[top, left + 1] * right
        lower = integral[top + 1, left] * (1 - right) + integral[top + 1, left + 1] * right
        return upper * (1 - down) + lower * down

    covered = below(x2, y2) - below(x1, y2) - below(x2, y1) + below(x1, y1)
    area = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    return torch.where(area > 0, covered / area.clamp(min=1e-9), area).float()


def leave_out(match: Tensor, candidates: Tensor, target: RoITarget, share: float, scale: float) -> Tensor:
    """Replace BACKGROUND by BETWEEN in the matches [C] of candidate boxes [C, 4] where the image is ignored.

    That is where more than `share` of a candidate (in pixels `scale` times the image's) lies in `target.ignored`;
    where that is None nothing is computed. A candidate that stands for a cell keeps it.
    """
    if target.ignored is None:
        return match
    doubtful = (match == BACKGROUND) & (share_inside(target.ignored, candidates / scale) > share)
    return match.masked_fill(doubtful, BETWEEN)


def cell_masks(targets: Sequence[RoITarget], cells: Sequence[Tensor], rois: Sequence[Tensor], size: int) -> Tensor:
    """Compute the mask targets of chosen cells, float32 [N, size, size] in 0..1, of all images in their order.

    cells: int64 [N_k], indices into each image's cells. rois: boxes [N_k, 4] of each image, in image pixels.
    """
    chosen = list(zip(targets, cells, strict=True))
    layer_of, ids = [t.layer_of[at] for t, at in chosen], [t.ids[at] for t, at in chosen]
    return gather_masks([t.layers for t in targets], layer_of, ids, rois, size)


def certain_bins(targets: Sequence[RoITarget], rois: Sequence[Tensor], size: int) -> Tensor | None:
    """Mark the bins of mask targets that read no ignored pixel: float32 [N, size, size] of 0 and 1, of all images.

    rois: boxes [N_k, 4] of each image, in image pixels. None where no image has ignored pixels.
    """
    if all(target.ignored is None for target in targets):
        return None
    ignored = [torch.zeros_like(t.layers[:1]) if t.ignored is None else t.ignored[None].int() for t in targets]
    first = [torch.zeros_like(boxes[:, 0], dtype=torch.int64) for boxes in rois]
    return (gather_masks(ignored, first, [layer + 1 for layer in first], rois, size) == 0).float()


def sample_weights(targets: Sequence[RoITarget], samples: Sequence[Tensor]) -> Tensor | None:
    """Get the weight of each sample of all images, float32 [N], from those [N_k, ...] of each; None where all are 1."""
    weights = image_weights(targets, samples[0].device)
    if weights is None:
        return None
    return torch.cat([weight.expand(len(part)) for weight, part in zip(weights, samples, strict=True)])


def image_weights(targets: Sequence[RoITarget], device: torch.device) -> Tensor | None:
    """Get the weight of each image in every loss, float32 [B]; None where all are 1."""
    if all(target.weight == 1.0 for target in targets):
        return None
    # filled on the device: a list would be copied to it, and waited for
    return torch.stack([torch.full((), target.weight, dtype=torch.float32, device=device) for target in targets])


def weighted_sum(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Sum the losses [N] or [N, ...] of samples, each times its weight [N]; None counts all fully."""
    if weights is not None:
        losses = losses * weights.view(-1, *[1] * (losses.ndim - 1))
    return losses.sum()

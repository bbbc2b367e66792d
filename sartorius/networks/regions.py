"""Regions for the losses of the box and mask heads: boxes with the cells that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from sartorius.networks.matching import BETWEEN, match_boxes
from sartorius.networks.targets import RoITarget, leave_out, sample_weights, weighted_sum


class Regions(NamedTuple):
    """Boxes of all images for a loss: rois float32 [R, 5] (image index, x1, y1, x2, y2 in input pixels),
    the cell that each stands for, int64 [R] (index into its image's cells, -1 for background), its label, int64 [R]
    (0 for background, cell type + 1), and the box [R, 4] of that cell (its own for background)."""

    rois: Tensor
    owner: Tensor
    label: Tensor
    wanted: Tensor


def match_regions(boxes: Tensor, target: RoITarget, foreground_iou: float, share: float, scale: float) -> Tensor:
    """Match boxes with one threshold, int64 [R]; BETWEEN for background of which more than `share` is ignored."""
    match = match_boxes(boxes, target.boxes * scale, foreground_iou, foreground_iou, rescue=False)
    return leave_out(match, boxes, target, share, scale)


def label_regions(
    boxes: Sequence[Tensor], matches: Sequence[Tensor], targets: Sequence[RoITarget], scale: float
) -> Regions:
    """Label the regions of all images from the boxes [R_k, 4] and matches [R_k] of each; those BETWEEN are left out."""
    parts = []
    for k, (image_boxes, match, target) in enumerate(zip(boxes, matches, targets, strict=True)):
        image_boxes, match = image_boxes[match != BETWEEN], match[match != BETWEEN]
        label, wanted = torch.zeros_like(match), image_boxes.clone()
        cell = match >= 0
        label[cell] = target.cell_types[match[cell]] + 1
        wanted[cell] = target.boxes[match[cell]] * scale
        parts.append(Regions(rois_of(image_boxes, k), match, label, wanted))
    return Regions(*(torch.cat(part) for part in zip(*parts, strict=True)))


def box_losses(
    logits: Tensor, codes: Tensor, regions: Regions, targets: Sequence[RoITarget], coder: BoxCoder
) -> tuple[Tensor, Tensor]:
    """Compute cross-entropy of the classes and smooth L1 of the cells' box codes, over the number of regions: scalars.

    logits [R, classes + 1]; codes [R, 4] predicted for each region's own class. Both are normalised by all regions, as
    in Fast R-CNN; beta 1/9 is torchvision's.
    """
    at = torch.nonzero(regions.label > 0).flatten()
    count, weights = max(len(regions.label), 1), sample_weights(targets, regions.rois[:, 0].long())
    wanted = coder.encode_single(regions.wanted[at], regions.rois[at, 1:])
    box = F.smooth_l1_loss(codes[at], wanted, beta=1 / 9, reduction="none")
    classification = F.cross_entropy(logits, regions.label, reduction="sum" if weights is None else "none")
    return (
        weighted_sum(classification, weights) / count,
        weighted_sum(box, None if weights is None else weights[at]) / count,
    )


def rois_of(boxes: Tensor, image_index: int) -> Tensor:
    """Convert boxes for roi_align, float32 [N, 5]: the image's index in the batch before each box [N, 4]."""
    return torch.cat((torch.full_like(boxes[:, :1], image_index), boxes), dim=1)

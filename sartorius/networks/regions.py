"""Regions for the losses of the box and mask heads: boxes with the cells that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sartorius.networks.boxes import BoxCodes
from sartorius.networks.matching import match_images
from sartorius.networks.targets import RoITarget, leave_out, sample_weights, weighted_sum


class Regions(NamedTuple):
    """Boxes of all images for a loss: rois float32 [R, 5] (image index, x1, y1, x2, y2 in input pixels),
    the cell that each stands for, int64 [R] (index into its image's cells, -1 for background), its label, int64 [R]
    (0 for background, cell type + 1), and the box [R, 4] of that cell (its own for background).

    sizes: number of regions of each image, in order. cells: of each image, which of all regions stand for a cell,
    int64, ascending.
    """

    rois: Tensor
    owner: Tensor
    label: Tensor
    wanted: Tensor
    sizes: list[int]
    cells: list[Tensor]


def match_regions(
    boxes: Sequence[Tensor], targets: Sequence[RoITarget], foreground_iou: float, share: float, scale: float
) -> list[Tensor]:
    """Match each image's boxes [R, 4] with one threshold, int64 [R]; BETWEEN for background that is ignored.

    It is where more than `share` of it lies in ignored pixels.
    """
    cells = [target.boxes * scale for target in targets]
    matches = match_images(boxes, cells, foreground_iou, foreground_iou, rescue=False)
    return [leave_out(*image, share, scale) for image in zip(matches, boxes, targets, strict=True)]


def label_regions(
    boxes: Sequence[Tensor],
    matches: Sequence[Tensor],
    cells: Sequence[Tensor],
    targets: Sequence[RoITarget],
    scale: float,
) -> Regions:
    """Label the regions of all images: their boxes [R_k, 4], matches [R_k], none of them BETWEEN, and the indices of
    those that stand for a cell, int64, ascending."""
    parts, sizes, shifted = [], [len(match) for match in matches], []
    for k, (image_boxes, match, cell, target) in enumerate(zip(boxes, matches, cells, targets, strict=True)):
        label, wanted = torch.zeros_like(match), image_boxes.clone()
        label[cell] = target.cell_types[match[cell]] + 1
        wanted[cell] = target.boxes[match[cell]] * scale
        parts.append((rois_of(image_boxes, k), match, label, wanted))
        shifted.append(cell + sum(sizes[:k]))
    rois, owner, every_label, every_wanted = (torch.cat(part) for part in zip(*parts, strict=True))
    return Regions(rois, owner, every_label, every_wanted, sizes, shifted)


def box_losses(
    logits: Tensor, codes: Tensor, regions: Regions, targets: Sequence[RoITarget], coder: BoxCodes
) -> tuple[Tensor, Tensor]:
    """Compute cross-entropy of the classes and smooth L1 of the cells' box codes, over the number of regions: scalars.

    logits [R, classes + 1]; codes [R, 4] predicted for each region's own class. Both are normalised by all regions, as
    in Fast R-CNN; beta 1/9 is torchvision's.
    """
    at, count = torch.cat(regions.cells), max(len(regions.label), 1)
    weights = sample_weights(targets, regions.label.split(regions.sizes))
    wanted = coder.encode(regions.wanted[at], regions.rois[at, 1:])
    box = F.smooth_l1_loss(codes[at], wanted, beta=1 / 9, reduction="none")
    classification = F.cross_entropy(logits, regions.label, reduction="sum" if weights is None else "none")
    return (
        weighted_sum(classification, weights) / count,
        weighted_sum(box, None if weights is None else weights[at]) / count,
    )


def rois_of(boxes: Tensor, image_index: int) -> Tensor:
    """Convert boxes for roi_align, float32 [N, 5]: the image's index in the batch before each box [N, 4]."""
    return torch.cat((torch.full_like(boxes[:, :1], image_index), boxes), dim=1)

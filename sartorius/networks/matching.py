"""Matching of candidate boxes (anchors or proposals) to cells.

torchvision computes the IoU of every cell with every anchor: 1.7 GB for 547 cells and 91,000 anchors. Here candidates
are matched in blocks, and a block meets only the cells that its band of the image touches (anchors come row by
row, so a block of them is a band). No cells x anchors matrix exists.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
BETWEEN = -2  # neither cell nor background: in no loss
BLOCK = 2048  # candidates matched at once; with 500 cells in reach, a matrix of 4 MB


def match_boxes(candidates: Tensor, cells: Tensor, foreground: float, background: float, rescue: bool) -> Tensor:
    """Match each candidate: int64 [C], an index into `cells`, or BACKGROUND, or BETWEEN.

    candidates: float [C, 4]; cells: float [N, 4]; both x1 y1 x2 y2. A candidate stands for the cell it overlaps most
    when that IoU is at least `foreground`; it is background when the IoU is below `background`. With `rescue` every
    cell also gets the candidate that overlaps it most, whatever the IoU (Ren et al. 2015, Faster R-CNN, 3.1.2).
    Without cells everything is background.
    """
    best_iou, rescued_iou = candidates.new_zeros(len(candidates)), cells.new_zeros(len(cells))
    best_cell, rescued_by = (torch.zeros_like(iou, dtype=torch.int64) for iou in (best_iou, rescued_iou))
    for first in range(0, len(candidates) if len(cells) else 0, BLOCK):
        block = candidates[first : first + BLOCK]
        near = torch.nonzero((cells[:, 1] < block[:, 3].max()) & (cells[:, 3] > block[:, 1].min())).flatten()
        if not len(near):
            continue
        iou = box_iou(block, cells[near])
        value, index = iou.max(dim=1)
        best_iou[first : first + BLOCK], best_cell[first : first + BLOCK] = value, near[index]
        value, index = iou.max(dim=0)
        better = value > rescued_iou[near]
        rescued_iou[near[better]], rescued_by[near[better]] = value[better], index[better] + first
    match = torch.where(best_iou >= foreground, best_cell, torch.full_like(best_cell, BETWEEN))
    match[best_iou < background] = BACKGROUND
    if rescue and len(candidates):
        rescued = rescued_iou > 0
        match[rescued_by[rescued]] = torch.nonzero(rescued).flatten()
    return match


def sample(match: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw random candidates for a loss: (indices of positives, indices of background), int64.

    At most `count` in all and at most `count * positive_fraction` positives; background fills the rest.
    """
    positive, negative = torch.nonzero(match >= 0).flatten(), torch.nonzero(match == BACKGROUND).flatten()
    positives = min(len(positive), int(count * positive_fraction))
    chosen = torch.randperm(len(positive), device=match.device)[:positives]
    rest = torch.randperm(len(negative), device=match.device)[: count - positives]
    return positive[chosen], negative[rest]

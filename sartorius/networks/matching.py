"""Matching of candidate boxes (anchors or proposals) to cells.

torchvision computes the IoU of every cell with every anchor: 1.7 GB for 547 cells and 91,000 anchors. Here candidates
are matched in blocks, and a block meets only the cells that its band of the image touches (anchors come row by
row, so a block of them is a band). No cells x anchors matrix exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
BETWEEN = -2  # neither cell nor background: in no loss
BLOCK = 2048  # candidates matched at once; with 500 cells in reach, a matrix of 4 MB


def match_images(
    candidates: Sequence[Tensor], cells: Sequence[Tensor], foreground: float, background: float, rescue: bool
) -> list[Tensor]:
    """Match each candidate of each image: int64 [C], an index into the image's `cells`, or BACKGROUND, or BETWEEN.

    candidates: float [C, 4] of each image; cells: float [N, 4]; both x1 y1 x2 y2. A candidate stands for the cell it
    overlaps most when that IoU is at least `foreground`; it is background when the IoU is below `background`. With
    `rescue` every cell also gets the candidate that overlaps it most, whatever the IoU (Ren et al. 2015, Faster R-CNN,
    3.1.2), the last of several cells for which it is the same one. Without cells everything is background.
    """
    reach = _cells_in_reach(candidates, cells)
    return [_match(*image, foreground, background, rescue) for image in zip(candidates, cells, reach, strict=True)]


def _match(
    candidates: Tensor, cells: Tensor, reach: Sequence[Tensor], foreground: float, background: float, rescue: bool
) -> Tensor:
    best_iou, rescued_iou = candidates.new_zeros(len(candidates)), cells.new_zeros(len(cells))
    best_cell, rescued_by = (torch.zeros_like(iou, dtype=torch.int64) for iou in (best_iou, rescued_iou))
    for number, near in enumerate(reach):
        first = number * BLOCK
        if not len(near):
            continue
        iou = box_iou(candidates[first : first + BLOCK], cells[near])
        value, index = iou.max(dim=1)
        best_iou[first : first + BLOCK], best_cell[first : first + BLOCK] = value, near[index]
        if rescue:
            value, index = iou.max(dim=0)
            earlier = rescued_iou[near]
            rescued_by[near] = torch.where(value > earlier, index + first, rescued_by[near])
            rescued_iou[near] = torch.where(value > earlier, value, earlier)
    match = torch.where(best_iou >= foreground, best_cell, BETWEEN).masked_fill(best_iou < background, BACKGROUND)
    if not (rescue and reach):
        return match
    by = torch.where(rescued_iou > 0, rescued_by, len(match))  # one beyond the last for cells that nothing overlaps
    rescued = match.new_full((len(match) + 1,), -1)
    rescued = rescued.scatter_reduce(0, by, torch.arange(len(cells), device=by.device), "amax")[:-1]
    return torch.where(rescued >= 0, rescued, match)


def _cells_in_reach(candidates: Sequence[Tensor], cells: Sequence[Tensor]) -> list[list[Tensor]]:
    """List for each block of an image's candidates the cells that its band of the image touches, int64, ascending.

    All of them where there is one block. No blocks without cells. The device is waited for once, for all images.
    """
    cumulated = [
        _touched(boxes, others).cumsum(dim=1) if len(others) and len(boxes) > BLOCK else None
        for boxes, others in zip(candidates, cells, strict=True)
    ]
    banded = [blocks[:, -1] for blocks in cumulated if blocks is not None]
    counts = iter(torch.cat(banded).tolist() if banded else ())
    reach = []
    for boxes, others, blocks in zip(candidates, cells, cumulated, strict=True):
        ranks = torch.arange(len(others), device=others.device)
        if blocks is None:
            reach.append([ranks] if len(others) and len(boxes) else [])
        else:
            reach.append([_nth(block, ranks[: next(counts)]) for block in blocks])
    return reach


def _touched(candidates: Tensor, cells: Tensor) -> Tensor:
    """Mark for each block of candidates [C, 4] the cells [N, 4] between its top and bottom: bool [blocks, N]."""
    blocks = candidates.split(BLOCK)
    top = torch.stack([block[:, 1].min() for block in blocks])
    bottom = torch.stack([block[:, 3].max() for block in blocks])
    return (cells[:, 1] < bottom[:, None]) & (cells[:, 3] > top[:, None])


def nth_true(mask: Tensor, ranks: Tensor) -> Tensor:
    """Find the True with these ranks (0 for the first) in bool [N]: `nonzero(mask)[ranks]` for ranks below its length.

    nonzero makes the host wait for the device, which alone knows that length.
    """
    return _nth(mask.cumsum(dim=0), ranks)


def _nth(cumulated: Tensor, ranks: Tensor) -> Tensor:
    return torch.searchsorted(cumulated, ranks + 1)


def sample(matches: Sequence[Tensor], count: int, positive_fraction: float) -> list[tuple[Tensor, Tensor]]:
    """Draw random candidates of each image for a loss: (indices of positives, indices of background), int64.

    At most `count` in all and at most `count * positive_fraction` positives; background fills the rest. The device is
    waited for once, for the numbers of both in all images.
    """
    drawn = []
    masks = [(match >= 0, match == BACKGROUND) for match in matches]
    for (positive, negative), numbers in zip(masks, count_true(masks), strict=True):
        positives = min(numbers[0], int(count * positive_fraction))
        chosen = torch.randperm(numbers[0], device=positive.device)[:positives]
        rest = torch.randperm(numbers[1], device=negative.device)[: count - positives]
        drawn.append((nth_true(positive, chosen), nth_true(negative, rest)))
    return drawn


def count_true(masks: Sequence[Sequence[Tensor]]) -> list[list[int]]:
    """Count the True of bool masks, the same number of them for each image, and wait for the device once."""
    counts: list[list[int]] = torch.stack([torch.stack([mask.sum() for mask in image]) for image in masks]).tolist()
    return counts

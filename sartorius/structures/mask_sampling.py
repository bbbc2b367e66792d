"""Masks in box coordinates, sampled from the label maps of `instances` as RoIAlign samples dense masks.

The value of cell k at a pixel is `layers[layer_of[k], y, x] == id`, so the target of a region is a gather of the
pixels that `torchvision.ops.roi_align(aligned=True)` would read from the cell's dense mask, and the same bilinear
weights. No mask is ever built, on the CPU or the GPU.

Boxes of whole pixels around regions that do not overlap (`sample_regions`, NumPy) need no gather: the weights of an
axis depend on the box's extent alone, so all boxes of one width are one matrix product, then all of one height.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sartorius.structures.arrays import Floats32, Ints, LabelMap

LIMIT = 2**20  # above the samples of a bin along an axis
GATHERED_AT_ONCE = 2**22  # pixels; bounds the memory of one step of the gather to some 50 MB


def gather_mask_targets(layers: Tensor, layer_of: Tensor, ids: Tensor, rois: Tensor, size: int) -> Tensor:
    """Sample masks of the cells in their regions, as RoIAlign of dense masks gives them.

    layers: integer [L, H, W] label map (int32 or wider: torch's uint16 lacks most operations). layer_of, ids:
    int64 [N], for each region the layer of its cell and the value of the cell in it. rois: float [N, 4], x1 y1 x2 y2
    in half-open pixel edges. size: M. A bin has as many samples per axis as pixels.

    Returns float32 [N, M, M] in 0..1, on the device of `layers`; [0, M, M] for no regions.
    """
    return gather_masks([layers], [layer_of], [ids], [rois], size)


def gather_masks(
    layers: Sequence[Tensor], layer_of: Sequence[Tensor], ids: Sequence[Tensor], rois: Sequence[Tensor], size: int
) -> Tensor:
    """Sample masks as `gather_mask_targets` from several images, float32 [N, M, M] of all in their order.

    Regions with as many samples a bin are gathered together. The device is waited for once, for those numbers.
    """
    image = torch.cat([torch.full_like(of, k) for k, of in enumerate(layer_of)])
    every, layer, value = torch.cat(list(rois)).to(torch.float32), torch.cat(list(layer_of)), torch.cat(list(ids))
    result = every.new_zeros((len(every), size, size))
    if not len(every):
        return result
    across, down = ((every[:, 2:] - every[:, :2]) / size).ceil().clamp(min=1).long().unbind(dim=1)
    key = (image * LIMIT + across) * LIMIT + down
    order = key.argsort(stable=True)
    start = 0
    for key_of_group, group in groupby(key[order].tolist()):
        samples, stop = divmod(key_of_group % LIMIT**2, LIMIT), start + len(list(group))
        chunk = max(1, GATHERED_AT_ONCE // (4 * size * size * samples[0] * samples[1]))
        for at in order[start:stop].split(chunk):
            map_ = layers[key_of_group // LIMIT**2]
            result[at] = _gather(map_, layer[at], value[at], every[at], size, *samples)
        start = stop
    return result


def _gather(layers: Tensor, layer_of: Tensor, ids: Tensor, rois: Tensor, size: int, across: int, down: int) -> Tensor:
    _, height, width = layers.shape
    x, x_weight = _corners(rois[:, 0], rois[:, 2], size, across, width)
    y, y_weight = _corners(rois[:, 1], rois[:, 3], size, down, height)
    index = (layer_of[:, None] * height + y)[:, :, None] * width + x[:, None, :]
    hit = layers.reshape(-1)[index] == ids[:, None, None].to(layers.dtype)
    # mean over the samples of a bin: fold the 1 / (across * down) and the bilinear weights into two sums
    rows = (hit * y_weight[:, :, None]).unflatten(1, (size, 2 * down)).sum(2)
    return (rows * x_weight[:, None, :]).unflatten(2, (size, 2 * across)).sum(3) / (across * down)


def _corners(low: Tensor, high: Tensor, size: int, samples: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return the pixels that the samples of one axis read and their weights, both [N, size * samples * 2].

    Follows torchvision's roi_align kernel: pixel centres lie at +0.5 (hence the half pixel), samples more than a
    pixel outside count nothing, samples near the border read the border pixel.
    """
    # in the kernel's own order of float32 operations, so that both round alike
    start, step = low - 0.5, ((high - 0.5) - (low - 0.5)) / size
    within = torch.arange(samples, device=low.device) + 0.5
    bins = start[:, None] + torch.arange(size, device=low.device) * step[:, None]
    at = (bins[:, :, None] + within * step[:, None, None] / samples).flatten(1)
    inside = (at >= -1.0) & (at <= limit)
    at = at.clamp(min=0.0, max=limit - 1.0)
    first = at.floor()
    second_weight = at - first
    pixel = torch.stack((first, (first + 1).clamp(max=limit - 1)), dim=-1).long()
    weight = torch.stack((1 - second_weight, second_weight), dim=-1) * inside[..., None]
    return pixel.flatten(1), weight.flatten(1)


def sample_regions(regions: LabelMap, probability: Floats32, boxes: Ints, size: int) -> Floats32:
    """Sample masks float32 [N, M, M] of `probability` within each region, 0 outside it; M is `size`.

    regions: uint16 [H, W], value k is region k - 1. probability: float32 [H, W]. boxes: int64 [N, 4], x1 y1 x2 y2 in
    half-open pixel edges, around all pixels of each region. Equal to `roi_align(aligned=True)` of the
    dense probabilities up to rounding. N may be 0.
    """
    height, width = regions.shape
    pixel = np.flatnonzero(regions)
    cell = regions.ravel()[pixel].astype(np.int64) - 1
    y, x = np.divmod(pixel, width)
    return sample_pixels(cell, y, x, probability.ravel()[pixel], boxes, height, width, size)


def sample_pixels(
    cell: Ints,
    y: Ints,
    x: Ints,
    probability: Floats32,
    boxes: Ints,
    image_height: int,
    image_width: int,
    size: int,
) -> Floats32:
    """As `sample_regions`, from the pixels of each cell, which may overlap: cell, y, x and probability, each [A]."""
    columns = _alike(boxes[:, 0], boxes[:, 2], image_width, size)
    by_width = np.concatenate([np.zeros(0, np.int64), *(cells for cells, _ in columns)])
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    # the boxes concatenated in that order; only the pixels of regions are written
    first_row, first_pixel = _starts(height, by_width), _starts(width * height, by_width)
    inside = (y - boxes[cell, 1]) * width[cell] + x - boxes[cell, 0]
    dense = np.zeros(int((width * height).sum()), np.float32)
    dense[first_pixel[cell] + inside] = probability

    lines = np.zeros((int(height.sum()), size), np.float32)  # the rows of all boxes, M values each
    for cells, weights in columns:
        rows, pixels = int(height[cells].sum()), weights.shape[1]
        row, at = int(first_row[cells[0]]), int(first_pixel[cells[0]])
        lines[row : row + rows] = dense[at : at + rows * pixels].reshape(rows, pixels) @ weights.T
    result = np.zeros((len(boxes), size, size), np.float32)
    for cells, weights in _alike(boxes[:, 1], boxes[:, 3], image_height, size):
        result[cells] = weights @ lines[first_row[cells, None] + np.arange(weights.shape[1])]
    return result


def _starts(lengths: Ints, order: Ints) -> Ints:
    """Return the start of each piece when all are concatenated in `order`."""
    starts = np.zeros(len(lengths), np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    return starts


def _alike(low: Ints, high: Ints, limit: int, size: int) -> list[tuple[Ints, Floats32]]:
    """Group boxes with the same weights along one axis: (their indices, weights [M, pixels of the extent])."""
    key = 4 * (high - low) + 2 * (low == 0) + (high == limit)
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    parts = np.split(order, first[1:])
    weights = [_bin_weights(k // 4, bool(k & 2), bool(k & 1), size) for k in keys.tolist()]
    return list(zip(parts, weights, strict=False))


def _bin_weights(extent: int, at_low_edge: bool, at_high_edge: bool, size: int) -> Floats32:
    """Return the weights float32 [M, extent] of each pixel of a box in its M bins along one axis.

    As many samples a bin as it has pixels, each shared by its two neighbours; beyond the box is nothing, but at the
    edge of the image the last pixel is repeated, as the kernel of roi_align does.
    """
    samples = -(-extent // size)
    at = (np.arange(size * samples) + 0.5) * (extent / (size * samples)) - 0.5
    at = at.clip(0 if at_low_edge else -1, extent - 1 if at_high_edge else extent)
    first = np.floor(at).astype(np.int64)
    framed = np.arange(size).repeat(samples) * (extent + 3) + first + 1  # a pixel before the box, two behind it
    weights = np.bincount(
        np.concatenate([framed, framed + 1]), np.concatenate([first + 1 - at, at - first]), size * (extent + 3)
    )
    return (weights.reshape(size, extent + 3)[:, 1 : extent + 1] / samples).astype(np.float32)

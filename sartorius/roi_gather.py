"""Mask targets of regions of interest, gathered from a layered label map (the torch side of `instances`).

The value of cell k at a pixel is `layers[layer_of[k], y, x] == id`, so the target of a region is a gather of the
pixels that `torchvision.ops.roi_align(aligned=True)` would read from the cell's dense mask, and the same bilinear
weights. No mask is ever built, on the CPU or the GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

GATHERED_AT_ONCE = 2**22  # pixels; bounds the memory of one step of the gather to some 50 MB


def gather_mask_targets(
    layers: Tensor, layer_of: Tensor, ids: Tensor, rois: Tensor, size: int, sampling_ratio: int = 0
) -> Tensor:
    """Masks of the cells in their regions, as RoIAlign of dense masks gives them.

    layers: integer [L, H, W] label map (int32 or wider: torch's uint16 lacks most operations). layer_of, ids:
    int64 [N], for each region the layer of its cell and the value of the cell in it. rois: float [N, 4], x1 y1 x2 y2
    in half-open pixel edges. size: M. sampling_ratio: samples per bin and axis, 0 for as many as the bin has pixels
    (what roi_align calls -1).

    Returns float32 [N, M, M] in 0..1, on the device of `layers`; [0, M, M] for no regions.
    """
    result = torch.zeros((len(rois), size, size), dtype=torch.float32, device=layers.device)
    if not len(rois):
        return result
    rois = rois.to(torch.float32)
    extent = rois[:, 2:] - rois[:, :2]
    if sampling_ratio > 0:
        samples = torch.full((len(rois), 2), sampling_ratio, device=rois.device, dtype=torch.int64)
    else:
        samples = (extent / size).ceil().clamp(min=1).long()
    for across, down in torch.unique(samples, dim=0).tolist():
        group = torch.nonzero((samples == samples.new_tensor([across, down])).all(dim=1)).flatten()
        chunk = max(1, GATHERED_AT_ONCE // (4 * size * size * across * down))
        for part in group.split(chunk):
            result[part] = _gather(layers, layer_of[part], ids[part], rois[part], size, across, down)
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
    """Pixels that the samples of one axis read and their weights, both [N, size * samples * 2].

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

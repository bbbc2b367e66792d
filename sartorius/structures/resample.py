"""Masks in box coordinates, resampled to other boxes.

A mask of M x M cells divides its box evenly (see `detections`). The old mask is interpolated at the centres of the new
one's cells, as `postprocess.paste` does at the centres of pixels: constant beyond the outermost centres, background
outside its box.
"""

from __future__ import annotations

import numpy as np

from sartorius.structures.arrays import AnyFloats, Floats, Floats32

_BLOCK_VALUES = 1 << 20  # values of masks at once: some 20 MB


def resample(masks: AnyFloats, old: Floats, new: Floats, size: int) -> Floats32:
    """Resample masks [N, M, M] from the boxes `old` [N, 4] to the boxes `new` [N, 4], float32 [N, size, size].

    Boxes are x1, y1, x2, y2 in pixel edges and have an extent. N may be 0.
    """
    result = np.zeros((len(masks), size, size), np.float32)
    step = max(1, _BLOCK_VALUES // (max(size, masks.shape[-1]) ** 2))
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        down = bilinear(old[part, 1], old[part, 3], new[part, 1], new[part, 3], masks.shape[-1], size)
        across = bilinear(old[part, 0], old[part, 2], new[part, 0], new[part, 2], masks.shape[-1], size)
        np.matmul(down @ masks[part].astype(np.float32), across.transpose(0, 2, 1), out=result[part])
    return result


def bilinear(old_low: Floats, old_high: Floats, new_low: Floats, new_high: Floats, cells: int, size: int) -> Floats32:
    """Return weights float32 [N, size, cells] along one axis: of each of a mask's `cells`, from old_low to old_high, in
    each of `size` new ones from new_low to new_high. All ends are float [N]."""
    bins = (np.arange(size) + 0.5) / size
    centre = new_low[:, None] + bins * (new_high - new_low)[:, None]
    at = (centre - old_low[:, None]) * (cells / (old_high - old_low))[:, None] - 0.5
    inside = (at >= -0.5) & (at < cells - 0.5)
    clipped = at.clip(0, cells - 1).astype(np.float32)[..., None]
    hat = np.abs(clipped - np.arange(cells, dtype=np.float32))
    np.subtract(1, hat, out=hat)
    np.maximum(hat, 0, out=hat)
    hat *= inside[..., None]
    return hat

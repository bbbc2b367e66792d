"""Resizing as `torch.nn.functional.interpolate` does it: bilinear, pixel centres at +0.5."""

from __future__ import annotations

import numpy as np

from sartorius.inference.scaled import _weights
from sartorius.structures.arrays import Floats32


def bilinear(
    values: Floats32, height: int, width: int, scale: float | None = None, antialias: bool = False
) -> Floats32:
    """Resize values float32 [..., H, W] to [..., height, width].

    scale: the factor, where it is not exactly that of the sizes. antialias: smooth before making smaller.
    """
    for axis, new in ((-1, width), (-2, height)):
        old = values.shape[axis]
        if new == old and scale is None:
            continue
        if antialias:
            weights, _ = _weights(old, new, slice(None))
            values = values @ weights.T if axis == -1 else weights @ values
            continue
        step, half = np.float32(old) / np.float32(new) if scale is None else np.float32(1 / scale), np.float32(0.5)
        at = (step * (np.arange(new, dtype=np.float32) + half) - half).clip(0)  # rounded to float32 as in torch
        low = np.minimum(at.astype(np.int64), old - 1)
        share = (at - low).astype(np.float32).reshape(-1, *(1,) * (-1 - axis))
        first, second = values.take(low, axis), values.take(np.minimum(low + 1, old - 1), axis)
        values = first + share * (second - first)
    return values


def mirror_to_multiple(images: Floats32, multiple: int) -> Floats32:
    """Mirror images [..., H, W] at the bottom and the right edge until H and W are multiples of `multiple`."""
    for axis in (-2, -1):
        size = images.shape[axis]
        wanted = -(-size // multiple) * multiple
        if wanted != size:
            period = max(2 * size - 2, 1)
            place = np.arange(wanted) % period
            images = images.take(np.minimum(place, period - place) if size > 1 else place, axis)
    return images

"""Images brought to the scale of a network's training, and detections brought back to the pixels of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch.nn import functional as F

from sartorius.data.dataset import Batch
from sartorius.inference.windows import Pixels
from sartorius.structures.arrays import Floats32, GreyImage
from sartorius.structures.detections import Detections
from sartorius.structures.large_image import LargeImage


def detect_scaled(detect: Callable[[Batch], list[Detections]], batch: Batch) -> list[Detections]:
    """Detect the cells of each image, resized by its target's `scale`; in its own pixels, with its pixel size."""
    images: list[Any] = [resize(image, target.scale) for image, target in zip(batch.images, batch.targets, strict=True)]
    found = detect(Batch(images, batch.targets))
    return [
        replace(resized(detections, *image.shape[-2:]), pixel_size=target.pixel_size)
        for detections, image, target in zip(found, batch.images, batch.targets, strict=True)
    ]


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the size of a resized image, pixels."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: Pixels, scale: float) -> Pixels:
    """Resize an image uint8 [1, H, W], pixel centres at +0.5; smoothed before it is made smaller.

    Regions of a LargeImage are resized when they are read; their pixels are those of the whole image but for rounding.
    """
    _, height, width = image.shape
    size = scaled_size(height, width, scale)
    if size == (height, width):
        return image
    if isinstance(image, LargeImage):
        return replace(image, height=size[0], width=size[1], read=partial(_resized_region, image, size))
    values = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    return values.round().clamp(0, 255).to(image.dtype)


def _resized_region(image: LargeImage, size: tuple[int, int], rows: slice, columns: slice) -> GreyImage:
    """Read a region of an image resized to (height, width), uint8 [h, w]."""
    down, rows = _weights(image.height, size[0], rows)
    across, columns = _weights(image.width, size[1], columns)
    values = down @ image.read(rows, columns).astype(np.float32) @ across.T
    return np.asarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _weights(old: int, new: int, part: slice) -> tuple[Floats32, slice]:
    """Make the weights [n, m] of pixels of an old axis in `part` of a new one, and tell which of them it takes.

    They are those of `F.interpolate`, bilinear with `antialias`: a triangle as wide as two pixels of the coarser axis,
    its place rounded to float32 as there.
    """
    half, step = np.float32(0.5), np.float32(old) / np.float32(new)
    reach = max(step, np.float32(1))
    centre = step * (np.arange(new, dtype=np.float32)[part] + half)
    low = (centre - reach + half).astype(int).clip(0)
    high = (centre + reach + half).astype(int).clip(max=old)
    at = np.arange(low[0], high[-1])
    triangle = (1 - np.abs(at.astype(np.float32) - centre[:, None] + half) / reach).clip(0)
    triangle *= (at >= low[:, None]) & (at < high[:, None])
    return (triangle / triangle.sum(axis=1, keepdims=True)).astype(np.float32), slice(int(low[0]), int(high[-1]))


def resized(detections: Detections, height: int, width: int) -> Detections:
    """Return detections in an image of another size; masks are in box coordinates and stay as they are."""
    if (detections.height, detections.width) == (height, width):
        return detections
    factor = np.array([width / detections.width, height / detections.height] * 2, np.float32)
    boxes = (detections.boxes * factor).clip(0, np.array([width, height] * 2, np.float32))
    return replace(detections, height=height, width=width, boxes=boxes)

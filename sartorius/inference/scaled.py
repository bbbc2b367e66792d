"""Images brought to the scale of a network's training, and detections brought back to the pixels of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch.nn import functional as F

from sartorius.data.dataset import Batch
from sartorius.inference.windows import in_memory
from sartorius.structures.detections import Detections
from sartorius.structures.large_image import Pixels


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

    Raises InputError for a LargeImage at another scale than 1.
    """
    _, height, width = image.shape
    size = scaled_size(height, width, scale)
    if size == (height, width):
        return image
    pixels = in_memory(image, "scale=")
    values = F.interpolate(pixels[None].float(), size, mode="bilinear", antialias=True)[0]
    return values.round().clamp(0, 255).to(pixels.dtype)


def resized(detections: Detections, height: int, width: int) -> Detections:
    """Return detections in an image of another size; masks are in box coordinates and stay as they are."""
    if (detections.height, detections.width) == (height, width):
        return detections
    factor = np.array([width / detections.width, height / detections.height] * 2, np.float32)
    boxes = (detections.boxes * factor).clip(0, np.array([width, height] * 2, np.float32))
    return replace(detections, height=height, width=width, boxes=boxes)

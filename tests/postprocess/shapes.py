"""Detections of simple shapes, and a naive dense post-processing to compare with."""

from __future__ import annotations

import numpy as np

from sartorius.structures.detections import Detections


def detections(
    boxes: list[list[float]], scores: list[float], types: list[int] | None = None, size: int = 8
) -> Detections:
    """Full boxes (probability 1) in an image of 40 x 60."""
    n = len(boxes)
    return Detections(
        "image_id",
        40,
        60,
        np.asarray(boxes, np.float32).reshape(n, 4),
        np.asarray(scores, np.float32),
        np.asarray(types or [0] * n, np.int64),
        np.ones((n, size, size), np.float16),
    )


def random_detections(seed: int, n: int = 40) -> Detections:
    """Blobs of random probabilities, in clusters, some reaching outside the image of 50 x 70."""
    random = np.random.default_rng(seed)
    centres = random.uniform([-3, -3], [73, 53], (max(n // 3, 1), 2))[random.integers(0, max(n // 3, 1), n)]
    centres = centres + random.normal(0, 2, (n, 2))
    halves = random.uniform(2, 9, (n, 2))
    y, x = np.mgrid[-1:1:14j, -1:1:14j]
    bumps = np.clip(1.4 - x**2 - y**2 + random.normal(0, 0.15, (n, 14, 14)), 0, 1)
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return Detections(
        f"random{seed}",
        50,
        70,
        boxes.astype(np.float32),
        random.uniform(0, 1, n).astype(np.float32),
        random.integers(0, 3, n),
        bumps.astype(np.float16),
    )


def dense_paste(box: np.ndarray, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities [H, W] pixel by pixel in float64; 0 outside the box."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    size = len(mask)
    image = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            if not (x1 <= x < x2 and y1 <= y < y2):
                continue
            u = min(max((x - x1) / (x2 - x1) * size - 0.5, 0), size - 1)
            v = min(max((y - y1) / (y2 - y1) * size - 0.5, 0), size - 1)
            i, j = min(int(u), size - 2), min(int(v), size - 2)
            a, b = u - i, v - j
            m = mask.astype(np.float64)
            top = m[j, i] * (1 - a) + m[j, i + 1] * a
            bottom = m[j + 1, i] * (1 - a) + m[j + 1, i + 1] * a
            image[row, column] = top * (1 - b) + bottom * b
    return image

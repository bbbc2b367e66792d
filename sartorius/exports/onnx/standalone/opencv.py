"""What the decoders take from OpenCV and scikit-image, in SciPy, under the same names and with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sartorius.structures.arrays import AnyInts, Ints, Ints32, Plane


def dilate(plane: NDArray[Any], kernel: NDArray[np.uint8]) -> NDArray[Any]:
    """Compute the maximum of each pixel's neighbourhood, of the size of the kernel of ones, within the plane."""
    return np.asarray(ndimage.maximum_filter(plane, kernel.shape, mode="nearest"))


def GaussianBlur(plane: Plane, size: tuple[int, int], sigma: float) -> Plane:
    """Blur a plane float32 [H, W] mirrored at its edges; the size of the kernel follows from sigma, pixels."""
    radius = (round(8 * sigma + 1) | 1) // 2
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 0):
        plane = ndimage.correlate1d(plane, weights, axis, np.float32, "mirror")
    return plane


def connectedComponents(pixels: NDArray[np.uint8], connectivity: int) -> tuple[int, Ints32]:
    """Number the 4-connected pieces of pixels above 0 row by row; returns one more than there are, and the map."""
    pieces, count = ndimage.label(pixels)
    return count + 1, pieces


def label(labels: AnyInts, connectivity: int) -> Ints:
    """Number the 8-connected pieces of equal labels above 0 row by row, int64 [H, W]."""
    height, width = labels.shape
    framed, place = np.zeros((height + 1, width + 2), labels.dtype), np.zeros((height + 1, width + 2), np.int64)
    framed[:-1, 1:-1] = labels
    inside = np.flatnonzero(framed)
    place.ravel()[inside] = np.arange(len(inside))
    flat, order = framed.ravel(), place.ravel()
    pairs = []
    for step in (1, width + 1, width + 2, width + 3):
        other = np.minimum(inside + step, flat.size - 1)
        joined = flat[inside] == flat[other]
        pairs.append(np.stack((order[inside[joined]], order[other[joined]])))
    a, b = np.concatenate(pairs, axis=1)
    _, piece = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(len(inside),) * 2), False)
    _, first, piece = np.unique(piece, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    place.ravel()[inside] = rank[piece]
    return place[:-1, 1:-1]

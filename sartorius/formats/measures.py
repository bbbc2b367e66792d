"""Measure the cells of an image as `skimage.measure.regionprops` does, all cells in one pass over their pixels.

regionprops measures a cell at a time, the convex hull alone in milliseconds; an image has hundreds of cells. The
formulas are its own: the moments are those of pixel centres, the perimeter is Benkrid and Crookes' estimator
(`skimage.measure.perimeter`, 4 neighbours), the convex area counts the pixels within the hull of the pixels' edge
middles (`skimage.morphology.convex_hull_image`), here in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.structures.arrays import AnyInts, Bools, Floats, GreyImage, Ints, Points
from sartorius.structures.instances import Instances

_ROOT2 = 2**0.5
_STEP = np.zeros(50)  # the length of a border pixel by 1 + 2 * direct + 10 * diagonal neighbours on the border
_STEP[[5, 7, 15, 17, 25, 27]] = 1
_STEP[[21, 33]] = _ROOT2
_STEP[[13, 23]] = (1 + _ROOT2) / 2


@dataclass(frozen=True)
class Measures:
    """The measurements of N cells; NaN for a cell without pixels, except its area and `touches_border`.

    area: pixels, int64 [N]. perimeter, axis_major, axis_minor: pixels, float64 [N]. centroid: float64
    [N, 2], row and column, of pixel centres at whole numbers. eccentricity, solidity: float64 [N] in 0..1.
    touches_border: bool [N], a pixel lies in the image's outermost rows or columns. intensity: mean grey level, float64
    [N] in 0..255; None without the image.
    """

    area: Ints
    perimeter: Floats
    centroid: Points
    axis_major: Floats
    axis_minor: Floats
    eccentricity: Floats
    solidity: Floats
    touches_border: Bools
    intensity: Floats | None


def measure(cells: Instances, grey: GreyImage | None = None) -> Measures:
    """Measure all cells; grey: the image, uint8 [H, W], for the mean intensity."""
    pixel, cell = cells.to_runs().pixels()
    row, column = np.divmod(pixel, max(cells.width, 1))
    count = len(cells)
    area = np.bincount(cell, minlength=count)
    size = np.where(area > 0, area, np.nan)
    centroid = np.stack([np.bincount(cell, at, count) / size for at in (row, column)], axis=1)
    major, minor = _axes(row - centroid[cell, 0], column - centroid[cell, 1], cell, size)
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(major == 0, 0, np.sqrt(1 - (minor / major) ** 2))
    edge = (row == 0) | (column == 0) | (row == cells.height - 1) | (column == cells.width - 1)
    return Measures(
        area,
        _perimeters(cells, size),
        centroid,
        major,
        minor,
        eccentricity,
        size / _convex_areas(row, column, cell, count),
        np.bincount(cell[edge], minlength=count) > 0,
        None if grey is None else np.bincount(cell, grey.reshape(-1)[pixel], count) / size,
    )


def _axes(dy: Floats, dx: Floats, cell: Ints, size: Floats) -> tuple[Floats, Floats]:
    """Return the major and minor axis of the ellipse with the same second moments, float64 [N] each."""
    a, b, c = (np.bincount(cell, of, len(size)) / size for of in (dx * dx, dy * dy, -dx * dy))
    tensor = np.nan_to_num(np.stack([a, c, c, b], axis=1).reshape(-1, 2, 2))
    low, high = np.linalg.eigvalsh(tensor).clip(0).T
    return tuple(np.where(np.isnan(size), np.nan, 4 * np.sqrt(value)) for value in (high, low))  # type: ignore[return-value]


def _perimeters(cells: Instances, size: Floats) -> Floats:
    length = np.zeros(len(size))
    for layer in cells.layers:
        padded = np.pad(layer, 1)
        flat, width = padded.reshape(-1), padded.shape[1]
        at = np.flatnonzero(flat)
        inside = [flat[at + step] == flat[at] for step in (-width, -1, 1, width)]
        at = at[~np.logical_and.reduce(inside)]
        border = np.zeros_like(flat)
        border[at] = flat[at]
        code = np.ones(len(at), np.int64)
        for step in (-width, -1, 1, width):
            code += 2 * (border[at + step] == border[at])
        for step in (-width - 1, -width + 1, width - 1, width + 1):
            code += 10 * (border[at + step] == border[at])
        length += np.bincount(border[at], _STEP[code], len(size) + 1)[1:]
    return np.where(np.isnan(size), np.nan, length)


def _convex_areas(row: Ints, column: Ints, cell: Ints, count: int) -> Floats:
    """Count the pixel centres within each cell's hull, float64 [N]; NaN without pixels.

    Coordinates are doubled, so that the middles of pixel edges are whole numbers.
    """
    starts = np.ones(len(row), bool)  # of the pixels of a cell in a row: sorted by cell, row and column
    starts[1:] = (np.diff(cell) != 0) | (np.diff(row) != 0)
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(row))[: len(first)] - 1
    y, left, right = 2 * row[first], 2 * column[first], 2 * column[last]
    points = np.stack([left - 1, y, left, y - 1, left, y + 1, right, y - 1, right, y + 1, right + 1, y], axis=1)
    ends = np.searchsorted(cell[first], np.arange(1, count + 1)).tolist()
    hulls, owner = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.int64)]
    for k, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=False)):
        if b > a:
            hull = cv2.convexHull(points[a:b].reshape(-1, 1, 2).astype(np.int32))[:, 0].astype(np.int64)
            hulls.append(np.concatenate((hull, np.roll(hull, -1, axis=0)), axis=1))
            owner.append(np.full(len(hull), k))
    return _counted(np.concatenate(hulls), np.concatenate(owner), count)


def _counted(edges: AnyInts, owner: Ints, count: int) -> Floats:
    """Count the pixel centres within convex polygons; edges: int64 [E, 4] x0, y0, x1, y1, doubled."""
    down = edges[:, 1] > edges[:, 3]
    x0, y0, x1, y1 = np.where(down[:, None], edges[:, [2, 3, 0, 1]], edges).T
    first = -(-y0 // 2)
    rows = np.where(y1 > y0, y1 // 2 - first + 1, 0)
    edge = np.repeat(np.arange(len(x0)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    height = (y1 - y0)[edge]
    x, scale = x0[edge] * height + (x1 - x0)[edge] * (2 * row - y0[edge]), 2 * height
    order = np.lexsort((row, owner[edge]))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(owner[edge][order]) != 0) | (np.diff(row[order]) != 0)
    at = np.flatnonzero(new)
    if not len(at):
        return np.full(count, np.nan)
    low = np.minimum.reduceat(-(-x // scale)[order], at)
    high = np.maximum.reduceat((x // scale)[order], at)
    area = np.bincount(owner[edge][order][at], np.maximum(high - low + 1, 0), count)
    return np.where(area > 0, area, np.nan)

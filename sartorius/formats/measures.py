"""Measure the cells of an image as `skimage.measure.regionprops` does, all cells in one pass over their runs.

regionprops measures a cell at a time, the convex hull alone in milliseconds; an image has hundreds of cells. The
formulas are its own: the moments are those of pixel centres, the perimeter is Benkrid and Crookes' estimator
(`skimage.measure.perimeter`, 4 neighbours), the convex area counts the pixels within the hull of the pixels' edge
middles (`skimage.morphology.convex_hull_image`), here in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.structures import rle
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
    # of runs, not of pixels; a column of background behind the last ends each run with its row
    runs = rle.from_layers(np.pad(cells.layers, ((0, 0), (0, 0), (0, 1))), len(cells))
    (row, column), cell, length, count = np.divmod(runs.start, runs.width), runs.cell, runs.length, len(cells)
    area = runs.areas
    size = np.where(area > 0, area, np.nan)
    middle = column + (length - 1) / 2
    centroid = np.stack([np.bincount(cell, length * at, count) / size for at in (row, middle)], axis=1)
    dy, dx = row - centroid[cell, 0], middle - centroid[cell, 1]
    moments = (length * (dx * dx + (length * length - 1) / 12), length * dy * dy, -length * dy * dx)
    major, minor = _axes(*(np.bincount(cell, of, count) / size for of in moments))
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(major == 0, 0, np.sqrt(1 - (minor / major) ** 2))
    edge = (row == 0) | (column == 0) | (row == cells.height - 1) | (column + length == cells.width)
    return Measures(
        area,
        np.where(area > 0, _perimeters(cells), np.nan),
        centroid,
        major,
        minor,
        eccentricity,
        size / _convex_areas(row, column, column + length - 1, cell, count),
        np.bincount(cell[edge], minlength=count) > 0,
        None if grey is None else np.bincount(cell, _sums(grey, row, column, length), count) / size,
    )


def _sums(grey: GreyImage, row: Ints, column: Ints, length: Ints) -> Ints:
    """Add up the grey levels of each run."""
    start = row * grey.shape[1] + column
    until = np.concatenate(([0], np.cumsum(grey, dtype=np.int64)))
    return np.asarray(until[start + length] - until[start])


def _axes(a: Floats, b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Return the major and minor axis of the ellipses with the second moments [[a, c], [c, b]], float64 [N] each."""
    tensor = np.nan_to_num(np.stack([a, c, c, b], axis=1).reshape(-1, 2, 2))
    low, high = 4 * np.sqrt(np.linalg.eigvalsh(tensor).clip(0).T)
    return np.where(np.isnan(a), np.nan, high), np.where(np.isnan(a), np.nan, low)


def _perimeters(cells: Instances) -> Floats:
    """Measure the perimeters by the neighbours of each border pixel on the border, float64 [N]."""
    lengths = np.zeros(len(cells))
    for layer in cells.layers:
        padded = np.pad(layer, 1)
        inner, width = padded[1:-1, 1:-1], padded.shape[1]
        same = (inner == padded[:-2, 1:-1]) & (inner == padded[2:, 1:-1])
        same &= (inner == padded[1:-1, :-2]) & (inner == padded[1:-1, 2:])
        padded[1:-1, 1:-1][same] = 0  # leaves the border pixels
        border = padded.reshape(-1)
        at = np.flatnonzero(border)
        label = border[at]
        code = np.ones(len(at), np.int64)
        for step in (-width, -1, 1, width):
            code += 2 * (border[at + step] == label)
        for step in (-width - 1, -width + 1, width - 1, width + 1):
            code += 10 * (border[at + step] == label)
        lengths += np.bincount(label, _STEP[code], len(cells) + 1)[1:]
    return lengths


def _convex_areas(row: Ints, left: Ints, right: Ints, cell: Ints, count: int) -> Floats:
    """Count the pixel centres within the hull of each cell's runs, float64 [N]; NaN without pixels.

    Coordinates are doubled, so that the middles of pixel edges are whole numbers.
    """
    y, left, right = 2 * row, 2 * left, 2 * right
    points = np.stack([left - 1, y, left, y - 1, left, y + 1, right, y - 1, right, y + 1, right + 1, y], axis=1)
    points = points.astype(np.int32).reshape(-1, 6, 1, 2)
    ends = np.searchsorted(cell, np.arange(1, count + 1)).tolist()
    hulls = [np.zeros((0, 1, 2), np.int32), *(cv2.convexHull(p.reshape(-1, 1, 2)) for p in _split(points, ends))]
    sizes = [len(hull) for hull in hulls[1:]]
    corners = np.concatenate(hulls)[:, 0].astype(np.int64)
    behind = np.arange(1, len(corners) + 1)
    last = np.cumsum(sizes, dtype=np.int64)
    behind[last - 1] = last - sizes
    owner = np.repeat(np.unique(cell), sizes)
    return _counted(np.concatenate((corners, corners[behind]), axis=1), owner, count)


def _split(points: AnyInts, ends: list[int]) -> list[AnyInts]:
    return [points[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=False) if b > a]


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

"""Masks of single cells in crops of their boxes: drawn, joined and parted. Nothing here is as large as the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from sartorius.data.cleaning import EIGHT
from sartorius.errors import InputError
from sartorius.formats.polygons import fill
from sartorius.structures.arrays import Bools, Ints
from sartorius.structures.instances import Instances

_DEPTHS = (64, 32, 16, 8, 4)  # sixteenths of a pixel by which a waist is narrower than the parts beside it
_SPECK = 3  # pixels; parts that are smaller belong to the part beside them


@dataclass(frozen=True)
class EditedCell:
    """One cell: `mask`, bool [h, w], fits its box, whose first row and column are `top` and `left`.

    cell_type: class index.  score: of the model, 0..1; NaN for a cell that a person drew.  accepted: by a person.
    """

    top: int
    left: int
    mask: Bools
    cell_type: int = 0
    score: float = float("nan")
    accepted: bool = False

    @property
    def bottom(self) -> int:
        """The row behind the last one."""
        return self.top + self.mask.shape[0]

    @property
    def right(self) -> int:
        """The column behind the last one."""
        return self.left + self.mask.shape[1]

    def covers(self, row: int, column: int) -> bool:
        """Whether a pixel of the image is one of the cell's."""
        inside = self.top <= row < self.bottom and self.left <= column < self.right
        return inside and bool(self.mask[row - self.top, column - self.left])

    def with_mask(self, mask: Bools, top: int, left: int) -> EditedCell:
        """Return the cell with other pixels, bool [h, w] from this row and column on, cut to their box.

        Raises InputError where there are none.
        """
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            raise InputError("a cell needs at least one pixel within the image")
        cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        return replace(self, top=top + int(rows[0]), left=left + int(columns[0]), mask=cut)


def cells_of(instances: Instances, scores: ArrayLike, accepted: bool = False) -> list[EditedCell]:
    """Take the cells with pixels out of layers, each with its score."""
    types, values = instances.cell_types.tolist(), np.asarray(scores, np.float64).tolist()
    crops = ((instances.crop_mask(k), types[k], values[k]) for k in np.flatnonzero(instances.areas).tolist())
    return [EditedCell(top, left, mask, kind, score, accepted) for (top, left, mask), kind, score in crops]


def instances_of(cells: Sequence[EditedCell], height: int, width: int) -> Instances:
    """Put cells into layers, in their order; overlaps are kept."""
    crops = [(cell.top, cell.left, cell.mask) for cell in cells]
    return Instances.from_crops(crops, [cell.cell_type for cell in cells], height, width)


def within_polygon(points: ArrayLike, height: int, width: int) -> tuple[Bools, int, int]:
    """Return the pixels within a polygon, [P, 2] rows and columns in pixel edges: mask [h, w], top and left.

    They are those whose centre is inside (even-odd rule), within the image; a mask without pixels where none is.
    """
    ring = np.asarray(points, np.float64).reshape(-1, 2)
    low = np.floor(np.clip(ring.min(axis=0, initial=np.inf), 0, (height, width))).astype(int)
    high = np.ceil(np.clip(ring.max(axis=0, initial=-np.inf), 0, (height, width))).astype(int)
    h, w = np.maximum(high - low, 0).tolist()
    return fill([(ring - low)[:, ::-1]], [0], 1, h, w).foreground(), int(low[0]), int(low[1])


def brushed(points: ArrayLike, radius: float, height: int, width: int) -> tuple[Bools, int, int]:
    """Return the pixels within `radius` of a stroke, [P, 2] rows and columns of pixels: mask [h, w], top and left."""
    from skimage.draw import line as pixels_of

    stroke = np.rint(np.asarray(points, np.float64).reshape(-1, 2)).astype(int)
    reach = int(np.ceil(radius))
    low = np.clip(stroke.min(axis=0) - reach, 0, (height, width))
    high = np.clip(stroke.max(axis=0) + reach + 1, 0, (height, width))
    free = np.ones(stroke.max(axis=0) - stroke.min(axis=0) + 2 * reach + 1, bool)
    inner = stroke - stroke.min(axis=0) + reach
    for start, end in zip(inner, [*inner[1:], inner[-1]], strict=True):
        free[pixels_of(*start, *end)] = False
    mask = ndimage.distance_transform_edt(free) <= radius
    first = low - stroke.min(axis=0) + reach
    last = first + np.maximum(high - low, 0)
    return mask[first[0] : last[0], first[1] : last[1]], int(low[0]), int(low[1])


def united(cells: Sequence[EditedCell]) -> EditedCell:
    """Join one or more cells into one; its type is that of the largest, its score the highest."""
    top, left = min(cell.top for cell in cells), min(cell.left for cell in cells)
    bottom, right = max(cell.bottom for cell in cells), max(cell.right for cell in cells)
    mask = np.zeros((bottom - top, right - left), bool)
    for cell in cells:
        mask[cell.top - top : cell.bottom - top, cell.left - left : cell.right - left] |= cell.mask
    largest = max(cells, key=lambda cell: int(cell.mask.sum()))
    known = [cell.score for cell in cells if not np.isnan(cell.score)]
    return EditedCell(top, left, mask, largest.cell_type, max(known, default=float("nan")), True)


def without(cell: EditedCell, other: EditedCell) -> EditedCell:
    """Take the pixels of another cell from a cell; raises InputError where none are left."""
    mask = cell.mask.copy()
    top, left = max(cell.top, other.top), max(cell.left, other.left)
    bottom, right = min(cell.bottom, other.bottom), min(cell.right, other.right)
    if top < bottom and left < right:
        taken = other.mask[top - other.top : bottom - other.top, left - other.left : right - other.left]
        mask[top - cell.top : bottom - cell.top, left - cell.left : right - cell.left] &= ~taken
    return cell.with_mask(mask, cell.top, cell.left)


def parted_by_line(cell: EditedCell, line: ArrayLike) -> list[EditedCell]:
    """Part a cell along a line, [P, 2] rows and columns of the image, drawn across it; P is at least 2.

    The pixels of the line go to the part that is nearest, and so do pieces that it does not meet. Raises InputError
    for a line that does not part the cell.
    """
    from skimage.draw import line as pixels_of

    points = np.floor(np.asarray(line, np.float64).reshape(-1, 2)).astype(int) - (cell.top, cell.left)
    cut: Bools = np.zeros(cell.mask.shape, bool)
    for (r0, c0), (r1, c1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        rows, columns = pixels_of(r0, c0, r1, c1)
        inside = (rows >= 0) & (rows < cut.shape[0]) & (columns >= 0) & (columns < cut.shape[1])
        cut[rows[inside], columns[inside]] = True
    pieces, _ = ndimage.label(cell.mask, EIGHT)
    parts, count = ndimage.label(cell.mask & ~cut)  # by edges, which a line of pixels that touch at corners parts
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = np.flatnonzero(sizes[1:] > _SPECK) + 1
    piece_of = ndimage.maximum(pieces, parts, large).astype(np.int64) if len(large) else large
    several = np.bincount(piece_of, minlength=1) > 1
    if not several.any():
        raise InputError("the line does not part the cell: draw it across, from one side to the other")
    return _grown(cell, np.where(np.isin(parts, large[several[piece_of]]), parts, 0))


def parted_by_shape(cell: EditedCell) -> list[EditedCell]:
    """Part a cell at its waists, by a watershed on the distance from its border.

    The deepest waists count, those of about one depth together. Raises InputError for a shape without any.
    """
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    distance = ndimage.distance_transform_edt(np.pad(cell.mask, 1))[1:-1, 1:-1]
    levels = np.rint(16 * ndimage.gaussian_filter(distance, 0.5) * cell.mask).astype(np.int32)
    for depth in _DEPTHS:
        seeds, count = ndimage.label(h_maxima(levels, depth) & cell.mask, EIGHT)
        if count > 1:
            return _grown(cell, watershed(-levels, seeds, mask=cell.mask))
    raise InputError("the cell has no waist to be parted at: draw a line across it")


def _grown(cell: EditedCell, parts: Ints) -> list[EditedCell]:
    """Give each pixel of a cell to the part, labels [h, w], that is nearest; returns the parts, by their labels."""
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    labels = np.where(cell.mask, parts[tuple(nearest)], 0)
    found = [cell.with_mask(labels == k, cell.top, cell.left) for k in np.unique(labels[labels > 0]).tolist()]
    return [replace(part, accepted=True) for part in found]

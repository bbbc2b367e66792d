"""Windows that cover an image of any size: a grid of tiles, or four corners and the centre.

Geometry only, so that training crops and inference cut images alike. All windows of an image have one size, so that
they fit into one batch; at most the size of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sartorius.errors import InputError
from sartorius.structures.arrays import Ints


@dataclass(frozen=True)
class Window:
    """Rows top .. top + height and columns left .. left + width of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """One past the last column."""
        return self.left + self.width

    @property
    def rows(self) -> slice:
        """Index of the rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Index of the columns."""
        return slice(self.left, self.right)

    def shared(self, other: Window) -> Window | None:
        """Return the window that both cover; None where they share no pixel."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        height, width = min(self.bottom, other.bottom) - top, min(self.right, other.right) - left
        return Window(top, left, height, width) if height > 0 and width > 0 else None

    def inner_edges(self, height: int, width: int) -> tuple[bool, bool, bool, bool]:
        """Return flags of top, left, bottom and right: True inside an image of this size, False on its border."""
        return self.top > 0, self.left > 0, self.bottom < height, self.right < width

    def without(self, margin: int, height: int, width: int) -> Window:
        """Return the window without the `margin` pixels nearest to each edge that lies inside an image of this size."""
        top, left, bottom, right = (margin * inner for inner in self.inner_edges(height, width))
        return Window(self.top + top, self.left + left, self.height - top - bottom, self.width - left - right)

    def grown(self, margin: int, height: int, width: int) -> Window:
        """Return the window with `margin` more pixels on each side, as far as an image of this size reaches."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom, right = min(self.bottom + margin, height), min(self.right + margin, width)
        return Window(top, left, bottom - top, right - left)


def tiles(height: int, width: int, size: int, overlap: int) -> list[Window]:
    """List square tiles of `size` px that cover the image, row by row; neighbours share at least `overlap` px.

    The last row and column are shifted back inside the image. Raises InputError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise InputError(
            f"tiles of {size} px that share {overlap} px: the overlap must be at least 0 and below the size"
        )
    tops, lefts = (_starts(length, size, overlap) for length in (height, width))
    return [Window(top, left, min(size, height), min(size, width)) for top in tops for left in lefts]


def blocks(height: int, width: int, size: int) -> list[Window]:
    """List square blocks of `size` px that share no pixel, row by row; the last row and column may be smaller."""
    tops, lefts = range(0, height, size), range(0, width, size)
    return [Window(top, left, min(size, height - top), min(size, width - left)) for top in tops for left in lefts]


def group_by_block(rows: Ints, columns: Ints, width: int, size: int) -> Iterator[Ints]:
    """Yield the indices of the points [N] that lie in one block, ascending, of each block that has any, row by row.

    rows, columns: int64 [N], in an image of `width` pixels. size: of the blocks, see `blocks`.
    """
    place = rows // size * (width // size + 1) + columns // size
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order])) + 1
    yield from np.split(order, starts) if len(order) else ()


def sharing_pairs(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """List the pairs i < j of windows that share pixels, ascending; each is compared with those of its rows alone."""
    edges = np.array([(w.top, w.left, w.bottom, w.right) for w in windows], np.int64).reshape(-1, 4)
    order = np.argsort(edges[:, 0], kind="stable")
    tops, pairs = edges[order, 0], []
    for place, i in enumerate(order.tolist()):
        _, left, bottom, right = edges[i]
        below = order[place + 1 : np.searchsorted(tops, bottom)]
        for j in below[(edges[below, 1] < right) & (edges[below, 3] > left)].tolist():
            pairs.append((min(i, j), max(i, j)))
    return sorted(pairs)


def five_crops(height: int, width: int, crop_height: int, crop_width: int) -> list[Window]:
    """List the four corners and the centre, without repetition: fewer than five where a crop is as large as the image.

    Raises InputError for a crop without extent.
    """
    if min(crop_height, crop_width) < 1:
        raise InputError(f"crops of {crop_height} x {crop_width} px (height x width): expected at least 1 x 1")
    crop_height, crop_width = min(crop_height, height), min(crop_width, width)
    below, right = height - crop_height, width - crop_width
    places = [(0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)]
    return [Window(top, left, crop_height, crop_width) for top, left in dict.fromkeys(places)]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Return the first pixel of each tile along one side of the image."""
    last = max(length - size, 0)
    return [*range(0, last, size - overlap), last]

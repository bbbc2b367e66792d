"""Regions of an image that somebody has labelled: what lies outside them is unknown, and teaches nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from sartorius.data.annotation_rows import read_text_table
from sartorius.errors import InputError, raise_all
from sartorius.metrics.unlabelled import left_out
from sartorius.structures.arrays import Bools
from sartorius.structures.rle import Runs

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in half-open pixel edges

_COLUMNS = ("id", "x1", "y1", "x2", "y2")
_BAND = 2**22  # pixels whose distances are measured at once: some 100 MB


@dataclass(frozen=True)
class PartlyLabelled:
    """The cells of an image that is labelled in parts.

    kept: bool [N], cells that teach. ignored: bool [H, W], unknown pixels, of no kept cell. outside, cut: how many of
    the others lie mostly outside what is labelled, and how many end at its edge.
    """

    kept: Bools
    ignored: Bools
    outside: int
    cut: int


def partly_labelled(cells: Runs, labelled: Bools) -> PartlyLabelled:
    """Split the cells of an image by what is labelled of it, bool [H, W].

    A cell that lies mostly outside is unknown, as its surroundings are. So is one that ends at the edge without
    crossing it: whether the rest was cut off cannot be seen, and its shape would be taught wrong. One that crosses the
    edge and lies mostly inside is a cell, with all of its pixels.
    """
    unknown = ~labelled
    outside = left_out(cells, unknown)
    pixel, cell = cells.pixels()
    edge = ndimage.binary_dilation(unknown).reshape(-1)
    touching = np.bincount(cell[edge[pixel]], minlength=cells.count) > 0
    crossing = np.bincount(cell[unknown.reshape(-1)[pixel]], minlength=cells.count) > 0
    cut = touching & ~crossing
    kept = ~outside & ~cut
    flat = unknown.reshape(-1).copy()
    flat[pixel[~kept[cell]]] = True
    flat[pixel[kept[cell]]] = False
    return PartlyLabelled(kept, flat.reshape(labelled.shape), int(outside.sum()), int(cut.sum()))


def near_labels(foreground: Bools, reach: float) -> Bools:
    """Mark pixels with a labelled one, bool [H, W], at most `reach` pixels away (Euclidean, of their centres).

    Exact, and in bands: memory does not grow with the height of the image.
    """
    height, width = foreground.shape
    halo = int(np.floor(reach))
    rows = max(_BAND // max(width, 1) - 2 * halo, 2 * halo + 1)
    near = np.zeros(foreground.shape, bool)
    for top in range(0, height, rows):
        first = max(top - halo, 0)
        band = foreground[first : top + rows + halo]
        if band.any():
            within = ndimage.distance_transform_edt(~band) <= reach
            near[top : top + rows] = within[top - first : top - first + rows]
    return near


@dataclass(frozen=True)
class Rectangles:
    """Labelled rectangles: of each image, by name, their rows in the csv file `path` and corners."""

    path: Path
    rows: Mapping[str, Sequence[tuple[int, Rectangle]]]

    def fill(self, name: str, height: int, width: int) -> Bools:
        """Mark the pixels in the rectangles of an image, bool [H, W].

        What reaches beyond the image is cut; raises InputError for a rectangle that lies beside it.
        """
        labelled = np.zeros((height, width), bool)
        for row, (x1, y1, x2, y2) in self.rows[name]:
            if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
                raise InputError(
                    f"{self.path} row {row}: x1={x1} y1={y1} x2={x2} y2={y2} lies beside the image of "
                    f"{width}x{height} pixels; give corners in pixels, from its upper left corner"
                )
            labelled[max(y1, 0) : y2, max(x1, 0) : x2] = True
        return labelled


def read_rectangles(path: Path) -> Rectangles:
    """Read a csv with the columns id, x1, y1, x2, y2: whole pixels, half-open, a row a labelled rectangle.

    Raises InputError naming the bad rows.
    """
    table = read_text_table(path, _COLUMNS)
    found: dict[str, list[tuple[int, Rectangle]]] = defaultdict(list)
    problems = []
    for row, (name, *corners) in zip(table["row"], table[list(_COLUMNS)].itertuples(index=False), strict=True):
        try:
            x1, y1, x2, y2 = (int(text) for text in corners)
        except ValueError:
            problems.append(f"{path} row {row}: corners '{', '.join(corners)}', expected four whole numbers of pixels")
            continue
        if x2 <= x1 or y2 <= y1:
            problems.append(f"{path} row {row}: x1={x1} y1={y1} x2={x2} y2={y2}, expected x1 < x2 and y1 < y2")
        found[str(name)].append((int(row), (x1, y1, x2, y2)))
    raise_all(problems)
    return Rectangles(path, dict(found))

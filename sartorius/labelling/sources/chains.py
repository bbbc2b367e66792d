"""Outlines from pixel to pixel of a cell, as Cellpose writes them: the pixels belong to the cell.

ImageJ and QuPath outline cells along the edges of pixels, where such points would lose a row and a column of each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.structures.arrays import Bools, Points
from sartorius.structures.instances import Instances

NOTE = "images whose outlines go from pixel to pixel, as Cellpose writes them; these pixels belong to the cells"


def are_chains(rings: Sequence[Points]) -> bool:
    """Whether all rings go from one pixel to a neighbour, and some of them to one across a corner.

    No edge of a pixel does that, and outlines that are drawn by hand have longer steps.
    """
    steps = [np.abs(np.diff(ring, axis=0, append=ring[:1])) for ring in rings if len(ring)]
    whole = all((ring == np.rint(ring)).all() for ring in rings)
    return whole and all((step <= 1).all() for step in steps) and any((step == 1).all(axis=1).any() for step in steps)


def fill_chains(rings: Sequence[Points], height: int, width: int) -> Instances:
    """Fill a ring a cell [P, 2] x, y, all of type 0; raises InputError for one that leaves the image."""
    crops = (within(np.asarray(ring, np.int32).reshape(-1, 2), height, width) for ring in rings)
    return Instances.from_crops(crops, [0] * len(rings), height, width)


def within(points: NDArray[Any], height: int, width: int) -> tuple[int, int, Bools]:
    """Return the pixels of an outline and within it, int32 [P, 2] x, y: top row, left column, bool [h, w]."""
    import cv2

    if not len(points) or (points < 0).any() or (points >= (width, height)).any():
        raise InputError(f"an outline without points, or one that leaves the image of {width}x{height} pixels")
    left, top = points.min(axis=0).tolist()
    across, down = (points.max(axis=0) - (left, top) + 1).tolist()
    return top, left, cv2.fillPoly(np.zeros((down, across), np.uint8), [points - (left, top)], 1) > 0

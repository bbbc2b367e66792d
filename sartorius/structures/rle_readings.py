"""Other readings of run-length text: column by column, and counted from 0.

Other programs write masks so, and nothing in the text tells: a file that is read the wrong way is valid, and its score
is 0 (columns) or a little low (counted from 0). No reading is ever changed here; the functions only find which one
fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

import numpy as np

from sartorius.structures.rle import Runs, transposed

SAMPLED = 50  # images that a reading is judged by
_LEAST = 20  # pairs of runs that it takes
_WRAPPED = 5  # runs that begin in a last column; none of 500 annotated images has one
# Bounds of the share of runs that touch the next one of their cell: 0.57 to 1 in each of 500 annotated images, below
# 0.02 in each where the text is read in the wrong order.
_CONNECTED, _FRAGMENTED = 0.5, 0.1


def by_columns(runs: Runs) -> Runs:
    """Read the numbers of the text column by column."""
    return transposed(replace(runs, height=runs.width, width=runs.height))


def from_zero(runs: Runs) -> Runs:
    """Read the starts of the text as counted from 0; a run at the end of the image stays in it."""
    return replace(runs, start=np.minimum(runs.start + 1, runs.height * runs.width - runs.length))


READINGS: dict[str, Callable[[Runs], Runs]] = {
    "written column by column": by_columns,
    "counted from 0": from_zero,
    "written column by column and counted from 0": lambda runs: by_columns(from_zero(runs)),
}


def fitting_shapes(images: Iterable[Runs]) -> str | None:
    """Find the reading in which cells have the shapes of cells, by the first SAMPLED images; None: as they are read.

    Cells are connected in one order of scanning and fall apart in the other; in square images no order is found. Of
    starts counted from 0, runs at the left edge begin in the last column of the row before.
    """
    sample = [runs for runs in islice(images, SAMPLED) if len(runs.start)]
    turned = (
        _connected((runs, runs.width) for runs in sample) < _FRAGMENTED
        and _connected((runs, runs.height) for runs in sample) > _CONNECTED
    )
    wrapped = inside = 0
    for runs in sample:
        stride = runs.height if turned else runs.width
        column = runs.start % stride
        wrapped += int(((column == stride - 1) & (runs.length > 1)).sum())
        inside += int((column == 0).sum())
    zero = wrapped >= _WRAPPED and wrapped > inside
    return None if not turned and not zero else list(READINGS)[2 if turned and zero else int(zero)]


def _connected(images: Iterable[tuple[Runs, int]]) -> float:
    """Return the share of runs that touch the next one of their cell, in rows of a length; 1 with few runs."""
    touching = pairs = 0
    for runs, row in images:
        start, end = runs.start, runs.start + runs.length
        same = runs.cell[1:] == runs.cell[:-1]
        near = (start[1:] - row <= end[:-1]) & (end[1:] - row >= start[:-1])
        touching, pairs = touching + int((near & same).sum()), pairs + int(same.sum())
    return touching / pairs if pairs >= _LEAST else 1.0


def sentence(path: object, reading: str, why: str) -> str:
    """Format a hint about a file whose masks fit in another reading; `why` they do."""
    return f"{path}: the masks seem to be {reading} ({why}); they are read row by row and counted from 1: convert them"


def shape_hint(path: object, images: Iterable[Runs]) -> str | None:
    """Format what `fitting_shapes` finds in a file, None for nothing."""
    reading = fitting_shapes(images)
    return None if reading is None else sentence(path, reading, "only then are the cells whole")

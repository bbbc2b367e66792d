"""Run-length masks: the competition's text and label maps, all cells of an image at once; `coco_rle` has COCO's RLE.

A cell's mask is a set of runs over the image scanned **row by row**. The competition's text is `start length start
length ...`, starts counted from 1.

`Runs` holds the runs of all cells of an image flat, so that every operation here is one pass over arrays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sartorius.errors import InputError
from sartorius.structures.arrays import AnyInts, Bools, Ints

_LARGEST = 10**18 - 1  # of 18 digits: no sum of a start and a length wraps


class RleError(InputError):
    """A run-length text that breaks the format. `cell` is the 0-based position of the bad text."""

    def __init__(self, cell: int, problem: str) -> None:
        super().__init__(f"cell {cell}: {problem}")
        self.cell = cell
        self.problem = problem


@dataclass(frozen=True)
class Runs:
    """Runs of `count` cells of one image; cells may overlap each other and may be empty.

    start: int64 [R], 0-based index of the first pixel, row-major; length: int64 [R], at least 1;
    cell: int64 [R], in 0..count-1, non-decreasing. Within a cell the runs are sorted and disjoint.
    """

    start: Ints
    length: Ints
    cell: Ints
    count: int
    height: int
    width: int

    @cached_property
    def areas(self) -> Ints:
        """Pixels of each cell, int64 [count]; 0 for an empty cell."""
        return np.bincount(self.cell, weights=self.length, minlength=self.count).astype(np.int64)

    def pixels(self) -> tuple[Ints, Ints]:
        """List the covered pixels in the order of the runs: (flat row-major index, cell), both int64 [sum of areas]."""
        first = np.cumsum(self.length) - self.length
        within = np.arange(int(self.length.sum()), dtype=np.int64) - np.repeat(first, self.length)
        return np.repeat(self.start, self.length) + within, np.repeat(self.cell, self.length)

    def foreground(self) -> Bools:
        """Return bool [H, W]: pixels that any cell covers."""
        mask = np.zeros(self.height * self.width, bool)
        mask[self.pixels()[0]] = True
        return mask.reshape(self.height, self.width)


def parse(texts: Sequence[str], height: int, width: int) -> Runs:
    """Read the competition's text of every cell of an image; "" is an empty cell.

    Numbers are ASCII digits with white space between them. Raises RleError for an odd count, text that is not integers,
    a start below 1, a length below 1, a run past the end of the image, and runs of one cell that are unsorted or
    overlap.
    """
    values, tokens = _integers(texts)
    if (tokens % 2).any():
        cell = int(np.argmax(tokens % 2))
        raise RleError(cell, f"{tokens[cell]} numbers, expected pairs of start and length; the text may be cut off")
    start, length = values[0::2] - 1, values[1::2]
    runs = Runs(start, length, np.repeat(np.arange(len(texts)), tokens // 2), len(texts), height, width)
    _check(runs)
    return runs


def problems(texts: Sequence[str], height: int, width: int) -> list[RleError]:
    """Return the error of every text that `parse` refuses, in their order."""
    found = []
    for cell, text in enumerate(texts):
        try:
            parse([text], height, width)
        except RleError as error:
            found.append(RleError(cell, error.problem))
    return found


def _integers(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """Parse the numbers of all texts, and count those of each text."""
    tokens = np.array([len(text.split()) for text in texts], dtype=np.int64)
    joined = " ".join(texts)
    try:  # int() also reads digits of other scripts, `+1` and `1_0`
        if joined.encode("ascii").translate(None, b"0123456789- \t\r\n"):
            raise ValueError
        values = np.array(joined.split(), dtype=np.int64)
        if ((values > _LARGEST) | (values < -_LARGEST)).any():
            raise OverflowError
    except (ValueError, OverflowError):
        raise _no_integer(texts) from None
    return values, tokens


def _no_integer(texts: Sequence[str]) -> RleError:
    for cell, text in enumerate(texts):
        for token in text.split():
            shown = repr(token if len(token) <= 40 else f"{token[:40]}...")
            if not re.fullmatch(r"-?[0-9]+", token):
                return RleError(cell, f"{shown} is not a whole number; expected 'start length start length ...'")
            if len(token.lstrip("-0")) > 18:
                return RleError(cell, f"{shown} is past the end of any image; expected 'start length start length ...'")
    cell = next((k for k, text in enumerate(texts) if not text.isascii()), 0)
    return RleError(cell, "spaces that are not ASCII; expected 'start length start length ...'")


def _check(runs: Runs) -> None:
    end, pixels = runs.start + runs.length, runs.height * runs.width
    follows = np.zeros(len(end), dtype=bool)
    follows[1:] = (runs.cell[1:] == runs.cell[:-1]) & (runs.start[1:] < end[:-1])
    for bad, problem in (
        (runs.start < 0, "a start of {start}; starts are counted from 1, not from 0"),
        (runs.length < 1, "a length of {length}; lengths are at least 1"),
        (end > pixels, "a run past the end: start {start}, length {length}, in an image of {size} pixels"),
        (follows, "the run at {start} begins before the run in front of it ends: runs must be sorted and disjoint"),
    ):
        if bad.any():
            r = int(np.argmax(bad))
            text = problem.format(
                start=runs.start[r] + 1, length=runs.length[r], size=f"{runs.width}x{runs.height} = {pixels}"
            )
            raise RleError(int(runs.cell[r]), text)


def format(runs: Runs) -> list[str]:
    """Format every cell as the competition's text, "" for an empty one. The inverse of `parse`."""
    pairs = np.column_stack((runs.start + 1, runs.length)).ravel().tolist()
    tokens = list(map(str, pairs))
    last = 2 * np.searchsorted(runs.cell, np.arange(runs.count), side="right")
    first = np.concatenate(([0], last[:-1])) if runs.count else last
    return [" ".join(tokens[a:b]) for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def from_layers(layers: AnyInts, count: int | None = None) -> Runs:
    """Read the runs of the cells of a label map [H, W] or of layers [L, H, W], in one pass.

    Pixels with value k become cell k-1; 0 is background; each value lives in one layer only. `count` is the
    number of cells (default: the largest value); ids that do not occur give empty cells.
    """
    height, width = layers.shape[-2:]
    flat = np.ascontiguousarray(layers).reshape(-1)
    boundary = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = np.concatenate((np.zeros(min(1, len(flat)), dtype=np.int64), boundary))
    length = np.diff(first, append=len(flat))
    ids = flat[first].astype(np.int64)
    kept = np.flatnonzero(ids)
    order = kept[np.argsort(ids[kept], kind="stable")]
    ids = ids[order]
    if count is None:
        count = int(ids[-1]) if len(ids) else 0
    return Runs(first[order] % max(height * width, 1), length[order], ids - 1, count, height, width)


def of_mask(mask: Bools) -> str:
    """Return the competition's text of a mask, bool [H, W]."""
    return format(from_layers(mask.astype(np.uint16), 1))[0]


def transposed(runs: Runs) -> Runs:
    """Transpose the cells to an image [width, height]; its runs are the column-major ones of this image."""
    pixel, cell = runs.pixels()
    row, column = np.divmod(pixel, max(runs.width, 1))
    stride = runs.height * runs.width + 1  # one more than there are pixels: the last of a cell and the first of the
    key = cell * stride + column * runs.height + row  # next are never neighbours
    key.sort()
    new = np.ones(len(key), bool)
    new[1:] = np.diff(key) != 1
    first = np.flatnonzero(new)
    cell, start = np.divmod(key[first], stride)
    return Runs(start, np.diff(first, append=len(key)), cell, runs.count, runs.width, runs.height)


def intersections(a: Runs, b: Runs) -> tuple[Ints, Ints, Ints]:
    """Find pairs of a cell of `a` and a cell of `b` that share pixels: (i, j, shared pixels), each int64 [P].

    Sorted by i, then j. Cells may overlap on both sides. Works on runs, never on images: cost grows with
    the runs that meet. Both must be of images of one size (ValueError).
    """
    if (a.height, a.width) != (b.height, b.width):
        raise ValueError(f"images of {a.width}x{a.height} and {b.width}x{b.height} pixels cannot be compared")
    a_start, a_end, a_cell = in_rows(a)
    b_start, b_end, b_cell = in_rows(b)
    order = np.argsort(b_start, kind="stable")
    b_start, b_end, b_cell = b_start[order], b_end[order], b_cell[order]
    # All runs of b that end after a run of a starts and start before it ends; with overlaps in b the ends are not
    # sorted, their running maximum is, and gives a superset that the sign of `shared` corrects.
    low = np.searchsorted(np.maximum.accumulate(b_end), a_start, side="right")
    met = np.maximum(np.searchsorted(b_start, a_end, side="left") - low, 0)
    i = np.repeat(np.arange(len(a_start)), met)
    j = np.arange(int(met.sum())) - np.repeat(np.cumsum(met) - met, met) + np.repeat(low, met)
    shared = np.minimum(a_end[i], b_end[j]) - np.maximum(a_start[i], b_start[j])
    kept = shared > 0
    key = a_cell[i[kept]] * max(b.count, 1) + b_cell[j[kept]]
    pairs, inverse = np.unique(key, return_inverse=True)
    pixels = np.bincount(inverse, weights=shared[kept], minlength=len(pairs)).astype(np.int64)
    return pairs // max(b.count, 1), pairs % max(b.count, 1), pixels


def in_rows(runs: Runs, exactly: bool = False) -> tuple[Ints, Ints, Ints]:
    """Return start, end and cell of the runs, split at row ends.

    exactly: also those that are no longer than a row; without them no mask that fills the image makes long work.
    """
    start, end, cell = runs.start, runs.start + runs.length, runs.cell
    if len(start) == 0 or (not exactly and runs.length.max() <= runs.width):
        return start, end, cell
    pieces = (end - 1) // runs.width - start // runs.width + 1
    origin = np.repeat(np.arange(len(start)), pieces)
    row = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces) + (start // runs.width)[origin]
    return np.maximum(start[origin], row * runs.width), np.minimum(end[origin], (row + 1) * runs.width), cell[origin]


def overlaps(runs: Runs) -> tuple[Ints, Ints, Ints]:
    """Find pairs i < j of cells of one image that share pixels: (i, j, shared pixels), each int64 [P]."""
    i, j, pixels = intersections(runs, runs)
    upper = i < j
    return i[upper], j[upper], pixels[upper]

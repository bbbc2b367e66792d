"""COCO's run-length encoding of the masks of an image.

COCO's RLE is column-major, 0-based and begins with a background run. Row-major runs of an image [H, W] are therefore
the COCO RLE of the transposed image (`size` [W, H]), and tools that compare COCO RLEs work on them without decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sartorius.structures.arrays import Ints
from sartorius.structures.rle import RleError, Runs

_GROUPS = 8  # of 5 bits in a count: no sum of them wraps, and an image has fewer pixels


def encode(runs: Runs) -> list[dict[str, object]]:
    """Encode each cell as COCO's compressed RLE in the transposed image: {"size": [W, H], "counts": bytes}."""
    counts, cells = _alternating(runs)
    position = np.arange(len(counts)) - np.searchsorted(cells, cells)
    delta = counts.copy()
    delta[position > 2] -= counts[np.flatnonzero(position > 2) - 2]
    # pycocotools' rleToString: 5 bits a character, least significant first, the 6th bit marks that more follow
    groups = np.ones(len(delta), dtype=np.int64)
    while (wide := (delta >= 1 << (5 * groups - 1)) | (delta < -(1 << (5 * groups - 1)))).any():
        groups += wide
    column = np.arange(groups.max(initial=1))
    characters = ((delta[:, None] >> (5 * column)) & 31) + 32 * (column < groups[:, None] - 1) + 48
    data = characters.astype(np.uint8)[column < groups[:, None]].tobytes()
    ends = np.cumsum(np.bincount(cells, weights=groups, minlength=runs.count)).astype(np.int64).tolist()
    size = [runs.width, runs.height]
    return [{"size": size, "counts": data[a:b]} for a, b in zip([0, *ends[:-1]], ends, strict=False)]


def _alternating(runs: Runs) -> tuple[Ints, Ints]:
    """Return background and foreground counts in turn, without an empty last one, and the cell of each."""
    start, length, cell = _merge_touching(runs)
    end = start + length
    new_cell = np.ones(len(start), dtype=bool)
    new_cell[1:] = cell[1:] != cell[:-1]
    gap = start - np.where(new_cell, 0, np.concatenate(([0], end[:-1])) if len(end) else end)
    last = np.zeros(runs.count, dtype=np.int64)
    last[cell] = end  # runs are sorted, so the last assignment stays
    tail = runs.height * runs.width - last
    counts = np.concatenate((np.column_stack((gap, length)).ravel(), tail))
    cells = np.concatenate((np.repeat(cell, 2), np.arange(runs.count)))
    keep = np.ones(len(counts), dtype=bool)
    keep[2 * len(cell) :] = (tail > 0) | (last == 0)
    counts, cells = counts[keep], cells[keep]
    order = np.argsort(cells, kind="stable")
    return counts[order], cells[order]


def _merge_touching(runs: Runs) -> tuple[Ints, Ints, Ints]:
    """Merge runs of a cell that touch, as one: COCO's counts after the first are positive."""
    touches = np.zeros(len(runs.start), dtype=bool)
    touches[1:] = (runs.cell[1:] == runs.cell[:-1]) & (runs.start[1:] == (runs.start + runs.length)[:-1])
    if not touches.any():
        return runs.start, runs.length, runs.cell
    first = np.flatnonzero(~touches)
    return runs.start[first], np.add.reduceat(runs.length, first), runs.cell[first]


def decode(rles: Sequence[Mapping[str, object]], height: int, width: int) -> Runs:
    """Decode the output of `encode`: cells of an image [height, width] from COCO RLEs of its transpose.

    Raises RleError where a size is not [width, height] or the counts do not fill the image.
    """
    texts: list[bytes] = []
    for k, rle in enumerate(rles):
        if list(rle["size"]) != [width, height]:  # type: ignore[call-overload]
            raise RleError(k, f"size {rle['size']}, expected [{width}, {height}]: the transposed image")
        counts = rle["counts"]
        texts.append(counts.encode() if isinstance(counts, str) else bytes(counts))  # type: ignore[call-overload]
    raw = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - 48
    value_end = np.flatnonzero((raw & 32) == 0)
    value_start = np.concatenate(([0], value_end[:-1] + 1)) if len(value_end) else value_end
    size = value_end - value_start + 1
    if (size > _GROUPS).any():
        k = int(np.searchsorted(np.cumsum([len(text) for text in texts]), value_start[np.argmax(size)], side="right"))
        raise RleError(k, f"a count of more than {_GROUPS} characters, expected numbers of pixels")
    shift = 5 * (np.arange(len(raw)) - np.repeat(value_start, size)) if len(size) else raw
    values = np.add.reduceat((raw & 31) << shift, value_start) if len(size) else raw
    values -= np.where(raw[value_end] & 16, 1 << (5 * size), 0)
    text_end = np.cumsum([len(text) for text in texts], dtype=np.int64)
    cell = np.searchsorted(text_end, value_start, side="right")
    counts_of = _undo_delta(values, cell)
    return _from_alternating(counts_of, cell, len(texts), height, width)


def _undo_delta(values: Ints, cell: Ints) -> Ints:
    """From the fourth count of a cell on, a count is stored as the difference to the one two places before it."""
    position = np.arange(len(values)) - np.searchsorted(cell, cell)
    order = np.lexsort((position, position & 1, cell))
    v, restart = values[order], (position < 3)[order]
    total = np.cumsum(v)
    if len(v):
        total -= (total - v)[np.flatnonzero(restart)][np.cumsum(restart) - 1]
    result = np.empty_like(values)
    result[order] = total
    return result


def _from_alternating(counts: Ints, cell: Ints, n: int, height: int, width: int) -> Runs:
    position = np.arange(len(counts)) - np.searchsorted(cell, cell)
    total = np.bincount(cell, weights=counts, minlength=n).astype(np.int64)
    wrong = total != height * width
    negative = counts < 0
    if wrong.any() or negative.any():
        k = int(np.argmax(wrong)) if wrong.any() else int(cell[np.argmax(negative)])
        raise RleError(k, f"counts cover {total[k]} pixels, expected {width}x{height} = {height * width}")
    end = np.cumsum(counts) - cell * (height * width)
    kept = (position % 2 == 1) & (counts > 0)
    return Runs((end - counts)[kept], counts[kept], cell[kept], n, height, width)

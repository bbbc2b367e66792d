"""The outlines of cells along the edges of their pixels, and the masks within outlines: one is the other's inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.structures.arrays import Bools, Ints, LabelMap, Points
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

Ring = Ints  # x, y of corners in pixel edges, [P, 2]; the last is joined to the first
Polygon = list[Ring]  # the outer ring, clockwise on the screen, and the holes in it, counter-clockwise

R = TypeVar("R", Ring, Points)

_RIGHT, _DOWN, _LEFT, _UP = range(4)


def trace(cells: Instances) -> list[list[Polygon]]:
    """Trace each cell: a polygon for each of its pieces, pixels that touch only at a corner being two pieces.

    No ring crosses or touches itself, so the polygons are valid simple features. A cell without pixels has none.
    """
    polygons: list[list[Polygon]] = [[] for _ in range(len(cells))]
    for layer in cells.layers:
        for k, rings in _rings_of(layer).items():
            polygons[k] = _grouped(cells, k, rings)
    return polygons


def flat(polygons: Sequence[Sequence[Sequence[R]]]) -> tuple[list[R], list[int]]:
    """List the rings of all cells, and the cell of each: the arguments of `fill`."""
    rings = [(ring, k) for k, of_cell in enumerate(polygons) for polygon in of_cell for ring in polygon]
    return [ring for ring, _ in rings], [k for _, k in rings]


def fill(rings: Sequence[Points | Ints], cell: Sequence[int], count: int, height: int, width: int) -> Runs:
    """Find the pixels whose centre is within an odd number of a cell's rings (even-odd rule).

    rings: [P, 2] x, y in pixel edges, closed or not, any numbers; cell: of each ring, 0..count-1. What lies outside the
    image is left out. Raises InputError for NaN and infinity.
    """
    if bad := [k for ring, k in zip(rings, cell, strict=True) if not np.isfinite(ring).all()]:
        raise InputError(f"the outline of cell {bad[0] + 1} has coordinates that are no numbers; remove it")
    edges = [np.zeros((0, 4)), *(np.concatenate((ring, np.roll(ring, -1, axis=0)), axis=1) for ring in rings)]
    owner = np.repeat(np.asarray(cell, np.int64), [len(ring) for ring in rings])
    x0, y0, x1, y1 = np.concatenate(edges).astype(np.float64).T
    up = y0 > y1
    x0, y0, x1, y1 = (np.where(up, b, a) for a, b in ((x0, x1), (y0, y1), (x1, x0), (y1, y0)))
    first, stop = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    edge = np.repeat(np.arange(len(first)), stop - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
    x = x0[edge] + (x1 - x0)[edge] * ((row + 0.5 - y0[edge]) / (y1 - y0)[edge])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    order = np.lexsort((column, row, owner[edge]))
    start, end = (row * width + column)[order].reshape(-1, 2).T
    some = end > start
    return Runs(start[some], (end - start)[some], owner[edge][order][::2][some], count, height, width)


def _rings_of(layer: LabelMap) -> dict[int, list[tuple[Ring, bool]]]:
    """Trace the rings of each cell of a label map [H, W], by cell, and tell which are outer ones.

    An edge between a pixel of a cell and another runs with the cell on its right. Where two pixels of a cell touch only
    at a corner, the ring turns right there, around its own pixel; a ring that comes back to such a corner is parted.
    """
    label, start, way = _edges(layer)
    if not len(label):
        return {}
    width = layer.shape[1] + 1
    leaving = np.full((layer.shape[0] + 1) * width * 4, -1, np.int32)  # the edge that leaves a vertex in a direction
    leaving[start * 4 + way] = np.arange(len(label))
    end = start + np.array([1, width, -1, -width])[way]
    follows = np.zeros(len(label), np.int64)
    for turn in (-1, 0, 1):  # the last that there is stays
        edge = leaving[end * 4 + (way + turn) % 4]
        there = (edge >= 0) & (label[edge] == label)
        follows[there] = edge[there]
    opposite = leaving[start * 4 + (way + 2) % 4]
    crossing = (opposite >= 0) & (label[opposite] == label)  # vertices where a cell touches itself
    turns = np.zeros(len(label), bool)
    turns[follows] = way[follows] != way
    order, ring = _in_order(follows, turns)
    begins = np.flatnonzero(np.diff(ring, prepend=-1))
    ends = [*begins[1:].tolist(), len(order)]
    corners = np.stack(np.divmod(start[order], width)[::-1], axis=1)
    touches = np.logical_or.reduceat(crossing[order], begins).tolist()
    behind = np.arange(1, len(corners) + 1)
    behind[np.array(ends) - 1] = begins
    turning = corners[:, 0] * corners[behind, 1] - corners[behind, 0] * corners[:, 1]
    outer = (np.add.reduceat(turning, begins) > 0).tolist()
    rings: dict[int, list[tuple[Ring, bool]]] = {}
    for i, k in enumerate(label[order[begins]].tolist()):
        whole = corners[begins[i] : ends[i]]
        parts = [(part, _runs_clockwise(part)) for part in _parted(whole)] if touches[i] else [(whole, outer[i])]
        rings.setdefault(k - 1, []).extend(parts)
    return rings


def _in_order(follows: Ints, chosen: Bools) -> tuple[Ints, Ints]:
    """Order the chosen elements of a permutation by cycle and along it; returns their indices and their cycles.

    By doubling of pointers: the first of each cycle is found, then the way from each element to it.
    """
    first, onward, count = np.arange(len(follows)), follows, len(follows)
    for _ in range(count.bit_length()):
        smaller = np.minimum(first, first[onward])
        if np.array_equal(smaller, first):
            break
        first, onward = smaller, onward[onward]
    heads = first == np.arange(count)
    left, onward = np.where(heads, 0, 1), np.where(heads, first, follows)
    while not np.array_equal(onward, first):
        left, onward = left + left[onward], onward[onward]
    elements = np.flatnonzero(chosen)
    elements = elements[np.argsort(first[elements] * count - left[elements])]
    return elements, first[elements]


def _edges(layer: LabelMap) -> tuple[Ints, Ints, Ints]:
    """Find the edges of all cells: label, vertex where it starts (row-major among the pixels' corners), direction."""
    width = layer.shape[1]
    padded = np.pad(layer, 1)
    found = []
    for before, behind, ways, step in (
        (padded[:-1, 1:-1], padded[1:, 1:-1], (_LEFT, _RIGHT), 1),
        (padded[1:-1, :-1], padded[1:-1, 1:], (_DOWN, _UP), width + 1),
    ):
        rows, columns = np.nonzero(before != behind)
        vertex = rows * (width + 1) + columns
        for side, way in zip((before, behind), ways, strict=True):
            label = side[rows, columns].astype(np.int64)
            some = label > 0
            start = vertex[some] + (step if way in (_LEFT, _UP) else 0)
            found.append((label[some], start, np.full(len(start), way)))
    labels, starts, directions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return labels, starts, directions


def _parted(ring: Ring) -> list[Ring]:
    """Part a ring where it comes back to a corner, into rings that do not touch themselves."""
    rings: list[Ring] = []
    open_ring: list[tuple[int, int]] = []
    for x, y in ring.tolist():
        if (x, y) in open_ring:
            place = open_ring.index((x, y))
            rings.append(np.array(open_ring[place:]))
            del open_ring[place + 1 :]
        else:
            open_ring.append((x, y))
    return [*rings, np.array(open_ring)]


def _grouped(cells: Instances, k: int, rings: list[tuple[Ring, bool]]) -> list[Polygon]:
    """Give each hole to the piece that it lies in."""
    outer, holes = [ring for ring, is_outer in rings if is_outer], [ring for ring, is_outer in rings if not is_outer]
    if not holes or len(outer) == 1:
        return [[outer[0], *holes]] if len(outer) == 1 else [[ring] for ring in outer]
    top, left, mask = cells.crop_mask(k)
    pieces, _ = ndimage.label(mask)

    def piece(ring: Ring) -> int:
        (x, y), step = ring[0] - (left, top), np.sign(ring[1] - ring[0])
        x, y = x - (step[0] < 0 or step[1] > 0), y - (step[0] < 0 or step[1] < 0)  # the pixel on its right
        return int(pieces[y, x])

    return [[ring, *(hole for hole in holes if piece(hole) == piece(ring))] for ring in outer]


def _runs_clockwise(ring: Ring) -> bool:
    x, y = ring.T
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0)

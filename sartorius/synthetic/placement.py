"""Placement of generated cells in an image: free, or on the edge of another cell so that the two masks overlap."""

from __future__ import annotations

import numpy as np

from sartorius.structures.arrays import Bools, Floats
from sartorius.synthetic.cells import Cell, Population, draw_cell

FREE_TRIES = 30  # places tried for a cell that should touch no other
DIRECTIONS = 3  # directions from which a cell is pushed onto another
BISECTIONS = 7  # halvings of the distance of the push: 1/128 of it, about a pixel
SMALLEST = 30  # pixels; the smallest mask among the real ones


def window(cell: Cell, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Get the part of a cell's crop inside the image: (slices of the image, slices of the crop), empty if outside."""
    rows, columns = cell.mask.shape
    top, left = max(cell.top, 0), max(cell.left, 0)
    bottom, right = max(min(cell.top + rows, height), top), max(min(cell.left + columns, width), left)
    region = slice(top, bottom), slice(left, right)
    crop = slice(top - cell.top, bottom - cell.top), slice(left - cell.left, right - cell.left)
    return region, crop


def _move(cell: Cell, y: float, x: float) -> None:
    cell.top, cell.left = round(y - cell.mask.shape[0] / 2), round(x - cell.mask.shape[1] / 2)


def _overlap(cell: Cell, occupied: Bools) -> int:
    region, crop = window(cell, *occupied.shape)
    return int(np.count_nonzero(occupied[region] & cell.mask[crop]))


def _place_free(rng: np.random.Generator, cell: Cell, occupied: Bools) -> None:
    """Move `cell` to a random place; of several tries the first without overlap, or the one with the least."""
    best = (1 << 30, 0.0, 0.0)
    for _ in range(FREE_TRIES):
        y, x = rng.uniform(0, occupied.shape[0]), rng.uniform(0, occupied.shape[1])
        _move(cell, y, x)
        best = min(best, (_overlap(cell, occupied), y, x))
        if best[0] == 0:
            return
    _move(cell, best[1], best[2])


def _attach(rng: np.random.Generator, cell: Cell, host: Cell, occupied: Bools, overlap: float) -> bool:
    """Push `cell` towards `host` until they share about `overlap` pixels; False where that fails."""
    reach = (sum(cell.mask.shape) + sum(host.mask.shape)) / 2
    y0, x0 = host.top + host.mask.shape[0] / 2, host.left + host.mask.shape[1] / 2
    best: tuple[float, float, float] | None = None
    for angle in rng.uniform(0, 2 * np.pi, DIRECTIONS):
        near, far = 0.0, reach
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            y, x = y0 + middle * np.sin(angle), x0 + middle * np.cos(angle)
            _move(cell, y, x)
            shared = _overlap(cell, occupied)
            inside = 0 <= y < occupied.shape[0] and 0 <= x < occupied.shape[1]
            if shared and inside:
                best = min(best or (np.inf, 0.0, 0.0), (abs(shared - overlap), y, x))
            near, far = (middle, far) if shared > overlap else (near, middle)
    if best is None or best[0] > 2 * overlap + 10:
        return False
    _move(cell, best[1], best[2])
    return True


def place_cells(rng: np.random.Generator, population: Population, areas: Floats, height: int, width: int) -> list[Cell]:
    """Draw a cell for each of `areas` (pixels) and place it in an image of `height` x `width`.

    Returns the cells with at least `SMALLEST` annotated pixels inside the image, in the order drawn; at least one
    where `areas` is not empty. The work for a cell grows with its own size, not with the image's.
    """
    occupied = np.zeros((height, width), bool)
    cells: list[Cell] = []
    for k, area in enumerate(areas):
        cell = draw_cell(rng, population, float(area))
        attach = bool(cells) and rng.random() < population.attached
        overlap = 1 + rng.exponential(population.overlap)
        if not (attach and _attach(rng, cell, cells[int(rng.integers(len(cells)))], occupied, overlap)):
            _place_free(rng, cell, occupied)
        region, crop = window(cell, height, width)
        if np.count_nonzero(cell.mask[crop]) < SMALLEST:
            if cells or k + 1 < len(areas):
                continue
            inside = np.argwhere(cell.mask)
            y, x = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
            cell.top, cell.left = height // 2 - int(y), width // 2 - int(x)
            region, crop = window(cell, height, width)
        occupied[region] |= cell.mask[crop]
        cells.append(cell)
    return cells

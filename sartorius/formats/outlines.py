"""Outlines as text, a line a cell: `x,y,x,y,...` along pixel edges, as Cellpose's `_outlines.txt` is laid out.

A line is one polygon: from its first corner it runs to holes and further pieces and back by the same way, which the
even-odd rule of ImageJ and of others does not see.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import write_text
from sartorius.formats.polygons import Polygon, fill
from sartorius.structures.arrays import Ints, Points
from sartorius.structures.instances import Instances

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells


def write(cells: Cells, path: Path) -> None:
    """Write the outlines; an empty file where there are no cells."""
    lines = (",".join(map(str, _joined(polygons).ravel().tolist())) for polygons in cells.polygons)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read(path: Path, height: int, width: int) -> dict[str, Any]:
    """Read the outlines of an image of this size as arguments of Cells; its cells have no scores and no types.

    Raises InputError as `read_rings` does.
    """
    rings = read_rings(path)
    runs = fill(rings, range(len(rings)), len(rings), height, width)
    return {"image_id": path.stem, "instances": Instances.from_runs(runs, np.zeros(len(rings), np.int64))}


def read_rings(path: Path) -> list[Points]:
    """Read the outlines, [P, 2] x, y; raises InputError, naming the line, for what is no list of pairs of numbers."""
    rings: list[Points] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rings.append(np.array(line.split(","), np.float64).reshape(-1, 2))
        except ValueError:
            raise InputError(f"{path}: line {number}: expected x,y,x,y,..., got {line[:40]!r}") from None
    return rings


def _joined(polygons: list[Polygon]) -> Ints:
    """Join all rings of a cell to one."""
    first, *others = [np.concatenate((ring, ring[:1])) for polygon in polygons for ring in polygon]
    return np.concatenate([first, *(part for ring in others for part in (ring, first[:1]))])

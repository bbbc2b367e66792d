"""Overlay PNGs: an image with its cells drawn over it, for people. They do not read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.visualise.overlays import draw_overlay, write_png

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells

SCALE = 2  # enlargement, so that labels fit beside small cells


def write(cells: Cells, path: Path, scale: int = SCALE) -> None:
    """Draw the cells with their types and scores over their image, over black where that is not at hand."""
    grey = np.zeros((cells.height, cells.width), np.uint8) if cells.grey is None else cells.grey
    scores = None if np.isnan(cells.scores).any() else cells.scores
    write_png(path, draw_overlay(grey, cells.instances, scores, cells.cell_type_names, scale=scale))

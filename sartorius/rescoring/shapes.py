"""Shapes of cells, from their runs: area, elongation, agreement with an ellipse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.structures.arrays import Floats
from sartorius.structures.rle import Runs

_PIXEL = 1 / 12  # second moment of a square pixel about its centre, px^2: a single pixel has an extent too


@dataclass(frozen=True)
class Shapes:
    """Shapes of N cells, each float64 [N]; zeros for a cell without pixels.

    area: pixels. x, y: the centre of mass, px, pixel centres at +0.5. elongation: long over short axis of the ellipse
    of equal second moments, 1 or more. fill: area over that ellipse's area; 1 for an ellipse, less for holes and arms.
    """

    area: Floats
    x: Floats
    y: Floats
    elongation: Floats
    fill: Floats

    @classmethod
    def of(cls, runs: Runs) -> Shapes:
        """Measure the cells of an image."""
        pixel, cell = runs.pixels()
        count, area = runs.count, runs.areas.astype(np.float64)
        some = np.maximum(area, 1)
        dx, dy = (pixel % runs.width + 0.5), (pixel // runs.width + 0.5)
        x, y = np.bincount(cell, dx, count) / some, np.bincount(cell, dy, count) / some
        dx, dy = dx - x[cell], dy - y[cell]
        xx, yy, xy = (np.bincount(cell, w, count) / some for w in (dx * dx, dy * dy, dx * dy))
        middle, half = (xx + yy) / 2 + _PIXEL, np.hypot((xx - yy) / 2, xy)
        long, short = np.sqrt(middle + half), np.sqrt(np.maximum(middle - half, _PIXEL))
        there = area > 0
        elongation = np.where(there, long / short, 0.0)
        return cls(area, x, y, elongation, area / (4 * np.pi * long * short))

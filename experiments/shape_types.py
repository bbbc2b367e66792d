"""The cell type of an image by the shapes of its cells, for masks without cell types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.errors import InputError
from sartorius.rescoring.shapes import Shapes
from sartorius.structures.rle import Runs


@dataclass(frozen=True)
class ShapeTypes:
    """Chooses the cell type of an image by the medians over its cells.

    Args:
        astro_fill: astro where the median fill is below it, 0..1.
        shsy5y_elongation: shsy5y where the median elongation is above it, cort below, 1 or more.
    """

    astro_fill: float
    shsy5y_elongation: float

    def __post_init__(self) -> None:
        if not 0 <= self.astro_fill <= 1 or self.shsy5y_elongation < 1:
            raise InputError(
                f"astro_fill={self.astro_fill}, shsy5y_elongation={self.shsy5y_elongation}: expected 0 to 1, and 1 or "
                "more"
            )

    def __call__(self, runs: Runs) -> str:
        """Return `astro`, `shsy5y` or `cort`; an image without cells, where nothing depends on it, is `cort`."""
        shapes = Shapes.of(runs)
        there = shapes.area > 0
        if not there.any():
            return "cort"
        if np.median(shapes.fill[there]) < self.astro_fill:
            return "astro"
        return "shsy5y" if np.median(shapes.elongation[there]) > self.shsy5y_elongation else "cort"

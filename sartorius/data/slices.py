"""Slices: windows of a grid over the image, enlarged, so that small cells get more of the network's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sartorius.data.crops import Cut, cut_window
from sartorius.data.scales import resized
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage, Layers
from sartorius.structures.windows import Window, tiles


@dataclass(frozen=True, kw_only=True)
class SliceCrop:
    """A window of `height` x `width` px, enlarged `factor` times.

    It is drawn evenly from a grid that covers the image, where neighbours share at least `overlap` px. Smaller
    images are padded as in `TileCrop`. factor: 1 or more; sizes are rounded to whole pixels.

    Raises InputError for a factor below 1, and unless 0 <= overlap < height and width.
    """

    height: int
    width: int
    overlap: int
    factor: float
    on_cell: ClassVar[float] = 0.0  # it lies where the grid says, cells or not

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise InputError(f"transform.crop.factor={self.factor}: slices are enlarged, expected 1 or more")
        self.windows(1, 1)

    def windows(self, height: int, width: int) -> list[Window]:
        """The grid over an image of height x width px, row by row; as `structures.windows.tiles` but not square."""
        rows, columns = tiles(height, 1, self.height, self.overlap), tiles(1, width, self.width, self.overlap)
        return [Window(row.top, column.left, row.height, column.width) for row in rows for column in columns]

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator) -> Cut:
        """The slice of image [H, W] and layers [L, H, W], `factor` times height x width."""
        windows = self.windows(*image.shape)
        cut = cut_window(image, layers, windows[rng.integers(len(windows))], self.height, self.width)
        return resized(cut.image, cut.layers, round(self.height * self.factor), round(self.width * self.factor))

"""Training crops from the windows that inference looks through: a tile of the grid, or one of five crops.

Each is drawn evenly among the picture's windows (see `sartorius.windows`). Smaller pictures are padded below and on the
right, the picture by reflection, as a network that pads itself would; there are no cells in the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sartorius.data.pictures import GreyImage
from sartorius.windows import Window, five_crops, tiles

Layers = NDArray[np.uint16]


@dataclass(frozen=True)
class TileCrop:
    """A tile of `size` px, of a grid whose neighbours share at least `overlap` px.

    Raises InputError unless 0 <= overlap < size.
    """

    size: int
    overlap: int
    on_cell: ClassVar[float] = 0.0  # it lies where the grid says, cells or not

    def __post_init__(self) -> None:
        tiles(1, 1, self.size, self.overlap)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator) -> tuple[GreyImage, Layers]:
        """The crop of image [H, W] and layers [L, H, W]: [size, size] and [L, size, size]."""
        height, width = image.shape
        windows = tiles(height, width, self.size, self.overlap)
        return _cut(image, layers, windows[rng.integers(len(windows))], self.size, self.size)


@dataclass(frozen=True)
class FiveCrop:
    """One of the four corners and the centre, `height` x `width` px.

    Raises InputError for a crop without extent. Unlike in inference, the five need not cover the picture.
    """

    height: int
    width: int
    on_cell: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        five_crops(1, 1, self.height, self.width)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator) -> tuple[GreyImage, Layers]:
        """The crop of image [H, W] and layers [L, H, W]: [height, width] and [L, height, width]."""
        height, width = image.shape
        windows = five_crops(height, width, self.height, self.width)
        return _cut(image, layers, windows[rng.integers(len(windows))], self.height, self.width)


def _cut(image: GreyImage, layers: Layers, window: Window, height: int, width: int) -> tuple[GreyImage, Layers]:
    """The window of the picture and its layers, padded to height x width px."""
    image, layers = image[window.rows, window.columns], layers[:, window.rows, window.columns]
    below, right = height - window.height, width - window.width
    if below or right:
        image = np.pad(image, ((0, below), (0, right)), mode="reflect")  # back and forth where it is still too small
        layers = np.pad(layers, ((0, 0), (0, below), (0, right)))
    return image, layers

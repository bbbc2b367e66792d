"""Training crops: what they share, and those that inference looks through, a tile of the grid or one of five crops.

Windows are drawn evenly among the image's (see `structures.windows`). Smaller images are padded below and on the
right, the image by reflection, as a network that pads itself would; there are no cells in the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from sartorius.structures.arrays import GreyImage, Layers
from sartorius.structures.windows import Window, five_crops, tiles


class Cut(NamedTuple):
    """What a crop gives.

    image: uint8 [h, w].  layers: uint16 [L, h, w].  area: what an area of 1 of the image covers in the crop.
    """

    image: GreyImage
    layers: Layers
    area: float = 1.0


def pixel_of_a_cell(layers: Layers, rng: np.random.Generator) -> tuple[int, int] | None:
    """A pixel (row, column) of layers [L, H, W]: a cell is drawn evenly among the cells, then one of its pixels.

    None where there is no cell.
    """
    flat = layers.reshape(-1)
    covered = np.flatnonzero(flat != 0)  # several times faster than of the ids themselves
    values = flat[covered]
    ids = np.flatnonzero(np.bincount(values))
    if not len(ids):
        return None
    pixels = covered[values == rng.choice(ids)]
    row, column = divmod(int(rng.choice(pixels)) % (layers.shape[1] * layers.shape[2]), layers.shape[2])
    return row, column


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

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator) -> Cut:
        """The crop of image [H, W] and layers [L, H, W]: [size, size] and [L, size, size]."""
        height, width = image.shape
        windows = tiles(height, width, self.size, self.overlap)
        return cut_window(image, layers, windows[rng.integers(len(windows))], self.size, self.size)


@dataclass(frozen=True)
class FiveCrop:
    """One of the four corners and the centre, `height` x `width` px.

    Raises InputError for a crop without extent. Unlike in inference, the five need not cover the image.
    """

    height: int
    width: int
    on_cell: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        five_crops(1, 1, self.height, self.width)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator) -> Cut:
        """The crop of image [H, W] and layers [L, H, W]: [height, width] and [L, height, width]."""
        height, width = image.shape
        windows = five_crops(height, width, self.height, self.width)
        return cut_window(image, layers, windows[rng.integers(len(windows))], self.height, self.width)


def cut_window(image: GreyImage, layers: Layers, window: Window, height: int, width: int) -> Cut:
    """The window of the image and its layers, padded to height x width px."""
    image, layers = image[window.rows, window.columns], layers[:, window.rows, window.columns]
    below, right = height - window.height, width - window.width
    if below or right:
        image = np.pad(image, ((0, below), (0, right)), mode="reflect")  # back and forth where it is still too small
        layers = np.pad(layers, ((0, 0), (0, below), (0, right)))
    return Cut(image, layers)

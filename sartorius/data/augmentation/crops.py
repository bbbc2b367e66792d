"""Training crops at the windows of inference: a tile of the grid, one of five crops, an enlarged slice.

Windows are drawn evenly among the image's (see `structures.windows`). Smaller images are padded below and on the
right, the image by reflection, as a network that pads itself would; there are no cells in the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage, Ints, Layers
from sartorius.structures.windows import Window, five_crops, tiles


def check_crop(height: int, width: int, on_cell: float, fill: int) -> None:
    """Raise InputError for a crop without extent, a probability outside 0 to 1 or a grey level outside 0 to 255."""
    checks.numbers("transform.crop", 1, height=height, width=width)
    checks.fractions("transform.crop", on_cell=on_cell)
    checks.numbers("transform.crop", 0, 255, fill=fill)


NONE: Ints = np.zeros(0, np.int64)  # no doubtful cells


class Cropped(NamedTuple):
    """A crop of an image and its layers.

    image: uint8 [h, w].  layers: uint16 [L, h, w].  area: pixels of the crop for a pixel of the image.
    """

    image: GreyImage
    layers: Layers
    area: float = 1.0


def pixel_of_a_cell(layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> tuple[int, int] | None:
    """Draw a pixel (row, column) of layers [L, H, W]: a cell is drawn evenly among the cells, then one of its pixels.

    doubtful: ids that are no cells, int64. None where there is no cell.
    """
    flat = layers.reshape(-1)
    covered = np.flatnonzero(flat != 0)  # several times faster than of the ids themselves
    values = flat[covered]
    count = np.bincount(values)
    count[doubtful[doubtful < len(count)]] = 0
    ids = np.flatnonzero(count)
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
    on_cell: ClassVar[float] = 0.0  # it lies on the grid, cells or not

    def __post_init__(self) -> None:
        tiles(1, 1, self.size, self.overlap)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut image [H, W] and layers [L, H, W]: [size, size] and [L, size, size]."""
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

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut image [H, W] and layers [L, H, W]: [height, width] and [L, height, width]."""
        height, width = image.shape
        windows = five_crops(height, width, self.height, self.width)
        return cut_window(image, layers, windows[rng.integers(len(windows))], self.height, self.width)


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
    on_cell: ClassVar[float] = 0.0  # it lies on the grid, cells or not

    def __post_init__(self) -> None:
        checks.numbers("transform.crop", 1, factor=self.factor)
        self.windows(1, 1)

    def windows(self, height: int, width: int) -> list[Window]:
        """List the grid over an image of height x width px, row by row; `structures.windows.tiles`, but not square."""
        rows, columns = tiles(height, 1, self.height, self.overlap), tiles(1, width, self.width, self.overlap)
        return [Window(row.top, column.left, row.height, column.width) for row in rows for column in columns]

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut the slice of image [H, W] and layers [L, H, W], `factor` times height x width."""
        windows = self.windows(*image.shape)
        cut = cut_window(image, layers, windows[rng.integers(len(windows))], self.height, self.width)
        return resized(cut.image, cut.layers, round(self.height * self.factor), round(self.width * self.factor))


def cut_window(image: GreyImage, layers: Layers, window: Window, height: int, width: int) -> Cropped:
    """Cut the window of the image and its layers, padded to height x width px."""
    image, layers = image[window.rows, window.columns], layers[:, window.rows, window.columns]
    below, right = height - window.height, width - window.width
    if below or right:
        image = np.pad(image, ((0, below), (0, right)), mode="reflect")  # back and forth where it is still too small
        layers = np.pad(layers, ((0, 0), (0, below), (0, right)))
    return Cropped(image, layers)


def resized(image: GreyImage, layers: Layers, height: int, width: int) -> Cropped:
    """Resize image and layers to height x width px; ids exact, both with pixel centres at +0.5.

    The image is interpolated between four pixels where it grows, and averaged over what a pixel covers where not.
    """
    grows = height >= image.shape[0] and width >= image.shape[1]
    grey = cv2.resize(
        np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    )
    # INTER_NEAREST would take the pixel left of and above the nearest one
    planes = [
        cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for plane in layers
    ]
    area = height * width / (image.shape[0] * image.shape[1])
    return Cropped(np.asarray(grey, np.uint8), np.stack(planes).astype(np.uint16, copy=False), area)

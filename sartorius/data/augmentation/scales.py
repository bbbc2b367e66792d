"""Images and their layers at another size: a short edge drawn from a list, as detectron2's `ResizeShortestEdge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sartorius.data.augmentation.crops import NONE, Cropped, check_crop, resized
from sartorius.data.augmentation.rotation import cut_warped
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage, Ints, Layers


@dataclass(frozen=True, kw_only=True)
class ShortEdgeCrop:
    """The image with its short edge at one of `short_edges` px, drawn evenly, and a crop of that.

    max_size: pixels of the long edge at most; the image is made smaller instead. height, width: of the crop, pixels;
    both None for the whole image. on_cell, fill: as in `CellCrop`.

    Raises InputError for sizes that cannot be.
    """

    short_edges: Sequence[int]
    max_size: int
    height: int | None
    width: int | None
    on_cell: float
    fill: int

    def __post_init__(self) -> None:
        if not self.short_edges or min(self.short_edges) < 1 or self.max_size < max(self.short_edges):
            raise InputError(
                f"transform.crop.short_edges={list(self.short_edges)}: expected at least one, of 1 px to "
                f"transform.crop.max_size={self.max_size} px"
            )
        if (self.height is None) != (self.width is None):
            raise InputError(
                f"transform.crop: height {self.height} and width {self.width}: give both in pixels, or null for both: "
                "whole images"
            )
        check_crop(self.height or 1, self.width or 1, self.on_cell, self.fill)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut image [H, W] and layers [L, H, W]: [height, width] and [L, height, width]."""
        height, width = image.shape
        short = int(rng.choice(np.asarray(self.short_edges)))
        scale = min(short / min(height, width), self.max_size / max(height, width))
        if self.height is None or self.width is None:
            return resized(image, layers, max(round(height * scale), 1), max(round(width * scale), 1))
        size = (self.height, self.width)
        return cut_warped(
            image, layers, rng, np.eye(2) / scale, size, on_cell=self.on_cell, fill=self.fill, doubtful=doubtful
        )

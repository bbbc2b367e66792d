"""An image that stays on the disk: regions of it are read where a network is applied to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks

if TYPE_CHECKING:
    from torch import Tensor

ReadRegion = Callable[[slice, slice], GreyImage]  # rows, columns -> uint8 [h, w]


@dataclass(frozen=True)
class LargeImage:
    """The place of an image tensor uint8 [1, H, W] of which only regions are ever read, by indexing.

    height, width: pixels. read: reads a region. by: the blocks in which dense maps are decoded.
    """

    height: int
    width: int
    read: ReadRegion
    by: Blocks

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, H, W)."""
        return 1, self.height, self.width

    def __getitem__(self, region: tuple[slice, slice, slice]) -> Tensor:
        """Read rows and columns as image[:, rows, columns], uint8 [1, h, w] on the CPU."""
        import torch  # seconds, and `convert` does without

        _, rows, columns = region
        return torch.from_numpy(np.ascontiguousarray(self.read(rows, columns)))[None]


def reader_of(image: GreyImage | LargeImage) -> ReadRegion:
    """Return what reads regions of an image [H, W] or of a large one; it may be sent to another process."""
    return image.read if isinstance(image, LargeImage) else partial(_part, image)


def _part(image: GreyImage, rows: slice, columns: slice) -> GreyImage:
    return image[rows, columns]

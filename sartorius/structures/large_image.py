"""An image that stays on the disk: regions of it are read where a network is applied to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks

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
        _, rows, columns = region
        return torch.from_numpy(np.ascontiguousarray(self.read(rows, columns)))[None]


Pixels = Tensor | LargeImage  # of an image [1, H, W]

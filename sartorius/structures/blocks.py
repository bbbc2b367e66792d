"""Which images are processed block by block, and by what blocks."""

from __future__ import annotations

from dataclasses import dataclass

from sartorius.structures import checks


@dataclass(frozen=True)
class Blocks:
    """Images of more than `pixels` pixels are read by windows, and decoded and post-processed block by block.

    block: side of the squares, pixels. halo: pixels around a block that are seen with it: cells of up to twice as many
    pixels come out whole.
    """

    pixels: int
    block: int
    halo: int

    def __post_init__(self) -> None:
        checks.whole("large", 1, pixels=self.pixels, block=self.block)
        checks.whole("large", 0, halo=self.halo)

    def needed(self, height: int, width: int) -> bool:
        """Whether an image of this size is processed by blocks."""
        return height * width > self.pixels

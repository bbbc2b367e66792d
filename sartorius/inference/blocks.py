"""Dense maps of images that are larger than memory, decoded block by block.

A block is decoded together with a halo around it, and keeps the cells whose box has its middle in the block. Those
inside the halo are seen from two blocks alike, and one of them keeps each: the cells are those of the whole image as
long as no cell, nor what decides about its outline, reaches further than the halo beyond its block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np

from sartorius.inference.window_detections import shifted
from sartorius.structures.detections import Detections
from sartorius.structures.freed_memory import return_freed_memory
from sartorius.structures.large_image import LargeImage
from sartorius.structures.windows import Window, blocks

log = logging.getLogger(__name__)


def detect_by_blocks(image: LargeImage, image_id: str, decode: Callable[[Window], Detections]) -> Detections:
    """Join the cells that `decode` finds in a region of the image, in its pixels, of all blocks.

    Warns of cells that a region cuts: they are too large for the halo, and incomplete.
    """
    cut: list[int] = []
    joined = Detections.concatenate(_own_cells(image, image_id, decode, cut))
    if sum(cut):
        log.warning(
            "image %s: %d cells reach %d pixels or more beyond their block and are incomplete; give a larger "
            "large.halo=", image_id, sum(cut), image.by.halo,
        )  # fmt: skip
    return joined


def _own_cells(
    image: LargeImage, image_id: str, decode: Callable[[Window], Detections], cut: list[int]
) -> Iterator[Detections]:
    """Yield the cells of each block, and append the number of those that its region cuts to `cut`."""
    for block in blocks(image.height, image.width, image.by.block):
        region = block.grown(image.by.halo, image.height, image.width)
        detections = decode(region)
        boxes = detections.boxes + np.array([region.left, region.top] * 2, np.float32)
        column, row = (boxes[:, :2] + boxes[:, 2:]).T / 2
        kept = (row >= block.top) & (row < block.bottom) & (column >= block.left) & (column < block.right)
        top, left, bottom, right = region.inner_edges(image.height, image.width)
        touches = (
            (top & (boxes[:, 1] <= region.top))
            | (left & (boxes[:, 0] <= region.left))
            | (bottom & (boxes[:, 3] >= region.bottom))
            | (right & (boxes[:, 2] >= region.right))
        )
        cut.append(int((kept & touches).sum()))
        detections = detections.select(kept)
        return_freed_memory()  # what stays of one block would keep most of its memory from the next
        yield shifted(region, detections, image_id, image.height, image.width)

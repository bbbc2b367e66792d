"""Cells that a file format may lose: overlapping, with a hole, in pieces that touch at a corner, at the edge."""

from __future__ import annotations

import numpy as np

from sartorius.formats.cells import Cells
from sartorius.structures.instances import Instances


def crowd() -> Cells:
    """Four cells of an image of 48 x 64 pixels: a ring, a disc over it, three pieces of two components, a corner."""
    y, x = np.mgrid[:48, :64]
    masks = np.zeros((4, 48, 64), bool)
    distance = (y - 20) ** 2 + (x - 20) ** 2
    masks[0] = (distance <= 144) & (distance > 25)
    masks[1] = (y - 24) ** 2 + (x - 36) ** 2 <= 100
    masks[2, 5:9, 50:55] = masks[2, 9:14, 55:58] = masks[2, 20:22, 52:60] = True
    masks[3, 44:, 40:] = True
    masks[3, 45, 42] = masks[3, 46, 43] = False  # two holes that touch at a corner
    grey = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    scores = np.array([0.875, 0.75, 0.5, 0.25], np.float32)
    return Cells("crowd", Instances.from_masks(masks, [0, 1, 0, 0]), scores, ("cort", "astro"), 0.5, grey)

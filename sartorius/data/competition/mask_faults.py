"""Faults of annotated masks: of a single one, and of where all of them lie in their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from sartorius.data.cleaning import EIGHT
from sartorius.structures.arrays import Bools, Ints
from sartorius.structures.instances import Instances

SIDES = ("left", "top", "right", "bottom")
NEAR, _FEWEST = 4, 5  # pixels from a side, cells that it takes to tell a shift
SPIKE_PIXELS = 10  # a part one pixel wide and at least this long is a slip of the annotation tool


def faults_of(mask: Bools) -> tuple[bool, bool, bool, bool]:
    """Test a cell's crop: (has an enclosed hole, is in several pieces, has a spike, has pieces far apart)."""
    padded = np.pad(mask, 2)
    holes = ndimage.label(~padded)[1] > 1
    labels, pieces = ndimage.label(mask, EIGHT)
    thin = padded & ~ndimage.binary_opening(padded, np.ones((2, 2)))
    lines = ndimage.find_objects(ndimage.label(thin, EIGHT)[0])
    spike = any(max(s.stop - s.start for s in line) >= SPIKE_PIXELS for line in lines)
    return holes, pieces > 1, spike, pieces > 1 and far_apart(ndimage.find_objects(labels))


def far_apart(pieces: Sequence[tuple[slice, slice]]) -> bool:
    """Whether a piece lies further from the largest one than that is long, by their boxes."""
    boxes = np.array([[[s.start for s in piece], [s.stop for s in piece]] for piece in pieces])  # [pieces, 2, 2]
    sizes = boxes[:, 1] - boxes[:, 0]
    largest = int(np.argmax(sizes.prod(axis=1)))
    gaps = np.maximum(boxes[:, 0] - boxes[largest, 1], boxes[largest, 0] - boxes[:, 1]).max(axis=1)
    return bool((gaps > sizes[largest].max()).any())


def border_gaps(instances: Instances) -> Ints:
    """Count the cells that lie 0, 1, 2 and 3 pixels from each of the SIDES, int64 [4, 4]."""
    left, top, right, bottom = instances.boxes[instances.areas > 0].astype(np.int64).T
    gaps = (left, top, instances.width - right, instances.height - bottom)
    return np.stack([np.bincount(gap[gap < NEAR], minlength=NEAR) for gap in gaps])


def shifted(gaps: Ints) -> list[str]:
    """Name the sides that cells come near to but do not touch: cells at the border are cut by it, all along it."""
    found = (gaps[:, 1] >= _FEWEST) & (gaps[:, 0] * 10 <= gaps[:, 1]) & (gaps[:, 1] > gaps[:, 2:].sum(axis=1))
    return [
        f"{gaps[k, 1]} cells end one pixel from the {side} of their image and {gaps[k, 0]} at it: the labels seem to "
        "be shifted by a pixel, or drawn from pixel centre to pixel centre"
        for k, side in enumerate(SIDES)
        if found[k]
    ]

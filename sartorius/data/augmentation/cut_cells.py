"""Cells cut out of an image, to be pasted into another.

A phase-contrast cell has a bright halo, so a rim around its mask is cut too and fades out. Cut is the difference from
the background there, which is added to the background of the new place: neither brightness nor shading of the donor
image is copied. All work is done in a crop of the cell.

Contrast is left alone. Over 32 real images the contrast inside cells of one type spreads by 8 to 36 %; divided by
the noise of the background it spreads by 33 to 49 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from sartorius.structures.arrays import Floats32, GreyImage, Ints, Mask
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances

# Measurement of the background. None of these changes a sample by more than a grey level or two.
GRID = 8  # pixels: one value in a square of so many
SMOOTH = 7  # squares, both ways, that are averaged: 56 px, a few cells wide
HALO = 9  # pixels, odd: width of the brush that keeps the halos of cells out of it
# Weight of the image's median beside 255 for a square of background: it decides where cells leave none.
PRIOR = 12.0
# Pixels, odd: width of the brush round another cell, whose halo must not come along as this cell's
NEAR = 5


@dataclass(frozen=True)
class Backdrop:
    """Background of an image, without its cells.

    depth: uint8 [H, W], how many cells lie on a pixel.
    level: float32 [H, W], grey level of the background there, smooth.
    light: float32 [H, W], difference of the image from it.
    """

    depth: GreyImage
    level: Floats32
    light: Floats32

    @classmethod
    def of(cls, image: GreyImage, instances: Instances) -> Backdrop:
        """Measure the backdrop of image uint8 [H, W]; without any background its level is the image's median."""
        depth = (instances.layers[0] != 0).view(np.uint8)
        for layer in instances.layers[1:]:
            depth += layer != 0
        free = (cv2.dilate(depth, np.ones((HALO, HALO), np.uint8)) == 0).view(np.uint8)
        low, median, high = _levels(image, free)
        # Debris, and halos wider than the brush, must not move the background
        values = cv2.LUT(image, np.arange(256, dtype=np.uint8).clip(low, high)) * free
        height, width = image.shape
        size = (-(-width // GRID), -(-height // GRID))
        sums, weights = (
            cv2.blur(cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(np.float32), (SMOOTH, SMOOTH))
            for plane in (values, 255 * free)
        )
        level = cv2.resize((255 * sums + PRIOR * median) / (weights + PRIOR), (width, height))
        return cls(depth, level, np.asarray(cv2.subtract(image, level, dtype=cv2.CV_32F), np.float32))


def _levels(image: GreyImage, free: GreyImage) -> tuple[int, int, int]:
    """Measure the median of the pixels where `free` is 1 (of all, if none), and 3 deviations below and above it.

    The deviation is 1.4826 times the median distance, which is the standard deviation of normal noise; at least 1.
    """
    counts = cv2.calcHist([image], [0], free if free.any() else None, [256], [0, 256]).reshape(-1)
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    distances = np.bincount(np.abs(np.arange(256) - median), weights=counts)
    reach = int(3 * max(1.4826 * float(np.searchsorted(np.cumsum(distances), distances.sum() / 2)), 1.0))
    return max(median - reach, 0), median, min(median + reach, 255)


@dataclass(frozen=True)
class CellCutout:
    """A cell in a crop of its own.

    mask: bool [h, w], at least one pixel.  area: pixels of it.
    light: float32 [h, w], difference from the background in grey levels, times how much of a pixel is taken.
    rest: float32 [h, w], how much is left of what lies below: about 0 in the cell, rising to 1 in its rim.
    cell_type: class index.
    """

    mask: Mask
    area: int
    light: Floats32
    rest: Floats32
    cell_type: int


@dataclass(frozen=True)
class Donor:
    """An image uint8 [H, W] that cells are cut out of."""

    image: GreyImage
    instances: Instances

    def cells(self, max_shared: float) -> Ints:
        """Return the cells that may be cut out, int64 indices.

        No doubtful ones, none that the image's edge cuts, and none of which others cover more than `max_shared`.
        """
        cells = self.instances
        x1, y1, x2, y2 = cells.boxes.T
        inside = (x1 > 0) & (y1 > 0) & (x2 < cells.width) & (y2 < cells.height)
        crossings = cells.layers.reshape(len(cells.layers), -1)[:, np.flatnonzero(self._backdrop.depth > 1)]
        shared = np.bincount(crossings.reshape(-1), minlength=len(cells) + 1)[1:]
        return np.flatnonzero(inside & (cells.cell_types != DOUBTFUL) & (shared <= max_shared * cells.areas))

    @cached_property
    def _backdrop(self) -> Backdrop:
        return Backdrop.of(self.image, self.instances)

    @cached_property
    def _boxes(self) -> list[list[int]]:
        return self.instances.boxes.astype(int).tolist()

    def cut(self, k: int, turn: Floats32, rim: int) -> CellCutout | None:
        """Cut out cell k, turned, mirrored and scaled by `turn` (float32 [2, 2], on x, y), with `rim` px around it.

        None where scaling leaves no pixel. The rim leaves out the surroundings of other cells; of those, only pixels
        shared with this cell are cut.
        """
        x1, y1, x2, y2 = self._boxes[k]
        around = slice(max(y1 - rim, 0), y2 + rim), slice(max(x1 - rim, 0), x2 + rim)
        mask = self.instances.layers[self.instances.layer_of[k]][around] == k + 1
        alpha = _alpha(mask, self._backdrop.depth[around] > mask, rim)
        planes = cv2.merge([mask.astype(np.float32), alpha, self._backdrop.light[around] * alpha])
        crop = _warp(np.asarray(planes, np.float32), turn)
        mask = crop[..., 0] > 0.5
        if not (area := int(np.count_nonzero(mask))):
            return None
        return CellCutout(mask, area, crop[..., 2], 1 - crop[..., 1], int(self.instances.cell_types[k]))


def _alpha(mask: Mask, others: Mask, rim: int) -> Floats32:
    """Return weights float32 [h, w]: 1 in the cell and half its rim, down to 0 at `rim` px and near other cells."""
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
    # The halo lies in the inner half of the rim
    alpha = np.minimum(np.maximum(2 - distance * np.float32(2 / (rim + 1)), 0), 1)
    near = cv2.dilate(others.view(np.uint8), np.ones((NEAR, NEAR), np.uint8))
    alpha[near.view(bool) > mask] = 0
    return alpha


def _warp(planes: Floats32, turn: Floats32) -> Floats32:
    """Warp planes [h, w, 3] about their centre and remove empty margins.

    Cubic: linear interpolation takes 30 % of a real image's finest contrast (cubic 12 %), and blurred cells would
    stand out among sharp ones.
    """
    height, width = planes.shape[:2]
    (a, b), (c, d) = turn.tolist()
    wide, high = int(abs(a) * width + abs(b) * height) + 2, int(abs(c) * width + abs(d) * height) + 2
    x, y = (width - 1) / 2, (height - 1) / 2  # pixel centres are whole numbers to OpenCV
    matrix = np.array([[a, b, (wide - 1) / 2 - a * x - b * y], [c, d, (high - 1) / 2 - c * x - d * y]])
    warped = cv2.warpAffine(planes, matrix, (wide, high), flags=cv2.INTER_CUBIC)
    left, top, wide, high = cv2.boundingRect((warped[..., 1] > 0).view(np.uint8))
    return np.asarray(warped[top : top + high, left : left + wide])

"""Detections of overlapping windows, side by side in the image, and which of them share pixels.

Masks are compared as runs (see `rle`), clipped to the pixels that two windows share; no mask is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sartorius.postprocess.paste import paste_masks
from sartorius.structures import rle
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs
from sartorius.structures.windows import Window, sharing_pairs

_MASK_THRESHOLD = 0.5  # probability above which a pixel is compared


@dataclass(frozen=True)
class Pairs:
    """Detections i and j of different windows that share pixels; one entry for each pair, in both orders.

    shared: pixels in both masks. areas_i, areas_j: pixels of each mask within both windows. All int64 [P].
    """

    i: Ints
    j: Ints
    shared: Ints
    areas_i: Ints
    areas_j: Ints

    @property
    def iou(self) -> Floats:
        """Intersection over union within both windows, [P]."""
        return self.shared / (self.areas_i + self.areas_j - self.shared)


class WindowDetections:
    """Detections of several windows of one image, in its pixels.

    detections: all of them, those of a window together. owner: int64 [N], index of each one's window.
    """

    def __init__(self, parts: Iterable[tuple[Window, Detections]], image_id: str, height: int, width: int) -> None:
        self.windows: list[Window] = []
        self.height, self.width = height, width
        self.counts: list[int] = []

        def all_shifted() -> Iterator[Detections]:
            for window, detections in parts:
                self.windows.append(window)
                self.counts.append(len(detections))
                yield shifted(window, detections, image_id, height, width)

        self.detections = Detections.concatenate(all_shifted())
        self.owner = np.repeat(np.arange(len(self.windows)), self.counts)

    def __len__(self) -> int:
        return len(self.owner)

    @cached_property
    def runs(self) -> Runs:
        """The masks, pasted, each in runs within a row."""
        parts, first = [np.zeros((3, 0), np.int64)], 0
        for count in self.counts:  # window by window: pixels take ten times the memory of runs
            some = self.detections.select(np.arange(first, first + count))
            threshold = np.full(count, _MASK_THRESHOLD)
            runs = paste_masks(some.boxes, some.masks, threshold, self.height, self.width).to_runs()
            parts.append(np.stack((runs.start, runs.length, runs.cell + first)))
            first += count
        starts, lengths, masks = np.concatenate(parts, axis=1)
        return Runs(starts, lengths, masks, len(self), self.height, self.width)

    @property
    def clearance(self) -> Floats:
        """Pixels between each mask and the nearest edge of its window that lies inside the image, [N].

        0 for a mask that touches one; infinite where the window has none and for an empty mask.
        """
        runs = self.runs
        limits = np.array([(w.top, w.left, w.bottom, w.right) for w in self.windows], np.float64)
        inner = np.array([w.inner_edges(self.height, self.width) for w in self.windows])
        edges = np.where(inner, limits, [-np.inf, -np.inf, np.inf, np.inf])[self.owner[runs.cell]]
        row, column = np.divmod(runs.start, self.width)
        space = np.minimum.reduce(
            [row - edges[:, 0], column - edges[:, 1], edges[:, 2] - 1 - row, edges[:, 3] - column - runs.length]
        )
        nearest = np.full(len(self), np.inf)
        np.minimum.at(nearest, runs.cell, space)
        return nearest

    def areas_without(self, margin: int) -> Ints:
        """Count the pixels of each mask at least `margin` px from its window's edges inside the image, [N]."""
        trusted = [window.without(margin, self.height, self.width) for window in self.windows]
        return np.concatenate([self._within(k, region).areas for k, region in enumerate(trusted)])

    def pairs(self) -> Pairs:
        """Find all pairs of detections of different windows whose masks share pixels."""
        first = np.cumsum(self.counts) - self.counts
        parts = [np.zeros((5, 0), np.int64)]
        for a, b in sharing_pairs(self.windows):
            region = self.windows[a].shared(self.windows[b])
            assert region is not None
            left, right = self._within(a, region), self._within(b, region)
            i, j, shared = rle.intersections(left, right)
            areas = left.areas[i], right.areas[j]
            parts += [
                np.stack((i + first[a], j + first[b], shared, *areas)),
                np.stack((j + first[b], i + first[a], shared, *areas[::-1])),
            ]
        return Pairs(*np.concatenate(parts, axis=1))

    def _within(self, index: int, region: Window) -> Runs:
        """Clip the runs of one window's detections, numbered from 0, to a region."""
        begin, end = np.searchsorted(self.owner, (index, index + 1))
        low, high = np.searchsorted(self.runs.cell, (begin, end))
        row, start = np.divmod(self.runs.start[low:high], self.width)
        stop = np.minimum(start + self.runs.length[low:high], region.right)
        start = np.maximum(start, region.left)
        kept = np.flatnonzero((row >= region.top) & (row < region.bottom) & (start < stop))
        return Runs(
            (row * self.width + start)[kept],
            (stop - start)[kept],
            self.runs.cell[low:high][kept] - begin,
            int(end - begin),
            self.height,
            self.width,
        )


def shifted(window: Window, detections: Detections, image_id: str, height: int, width: int) -> Detections:
    """Shift detections of a window to the pixels of an image of this size."""
    boxes = detections.boxes + np.array([window.left, window.top] * 2, np.float32)
    return replace(detections, image_id=image_id, height=height, width=width, boxes=boxes)

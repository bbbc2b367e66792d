"""Decoders of the maps of a dense network: three callables that turn CellMaps into Decoded.

Watershed follows the centre map uphill, OffsetVoting follows the offsets, Components takes connected pieces. All work
on the flat list of foreground pixels (a quarter of a crowded image); the numbers of a cell are sums over its pixels.

The regions are generous, since the mask threshold is chosen later: down to a low foreground probability, and grown by
one pixel into what lies below it. Where a region ends the mask of a detection falls to 0 at once; interpolated, that
drags the cell's outermost pixels below the threshold too. The extra pixel keeps the fall outside: at a threshold of 0.5
the IoU of pasted 28 x 28 masks with the probable pixels rises from 0.96 to 0.99 for regions that end at 0.5.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.errors import InputError
from sartorius.postprocess.maps import CellMaps, Decoded
from sartorius.postprocess.regions import in_largest_piece
from sartorius.postprocess.watershed import find_basins
from sartorius.structures import checks
from sartorius.structures.arrays import AnyFloats, Floats, Ints, Plane
from sartorius.structures.constructible import constructible
from sartorius.structures.instances import MAX_CELLS

_MOST = 1000  # pixels that a map is blurred over, which takes as long as that is wide; and a weight
log = logging.getLogger(__name__)


@constructible
@dataclass(frozen=True)
class Watershed:
    """A watershed of the centre map: every cell is the basin of one summit.

    Args:
        foreground_low: pixels with a foreground probability above it are divided among the cells, 0..1.
        border_weight: this much of the border map is taken off the centre map, 0 for none.
        smooth: standard deviation of a Gaussian over the result, pixels, 0 for none.
        depth: a summit that rises less above the pass to a higher one is part of that cell, in units of the centre map.
        peak: basins whose summit is lower are dropped, in the same units. They are not given to a neighbour: one that
            rises less than `depth` was merged already, so what is left is a weak cell of its own, or none.
        min_area: smaller regions are dropped, pixels.

    score: geometric mean of the mean foreground probability of the region and the height of its summit.
    """

    foreground_low: float
    border_weight: float
    smooth: float
    depth: float
    peak: float
    min_area: int

    def __post_init__(self) -> None:
        checks.fractions("model.decoder", foreground_low=self.foreground_low, depth=self.depth, peak=self.peak)
        checks.numbers("model.decoder", 0, _MOST, border_weight=self.border_weight, smooth=self.smooth)
        checks.numbers("model.decoder", 0, min_area=self.min_area)

    def __call__(self, maps: CellMaps) -> Decoded:
        """Decode the cells; none where no pixel is foreground. Raises InputError where a map it needs is missing."""
        height = _needed(maps.centre, "centre", "decoder@model.decoder=components")
        if self.border_weight:
            height = height - np.float32(self.border_weight) * _needed(
                maps.border, "border", "model.decoder.border_weight=0"
            )
        basins = find_basins(_blurred(height, self.smooth), maps.foreground > self.foreground_low, self.depth)
        likely = _means(maps.foreground, basins.pixel, basins.basin, len(basins.peaks))
        scores = np.sqrt(likely * basins.peaks.clip(0, 1))
        scores[basins.peaks < self.peak] = -1
        return _decoded(maps, self.foreground_low, basins.pixel, basins.basin, scores, self.min_area)


@constructible
@dataclass(frozen=True)
class OffsetVoting:
    """Hough voting by offsets: each pixel votes for the middle of its cell; pixels whose votes gather are one cell.

    Args:
        foreground_low: pixels with a foreground probability above it vote, 0..1.
        smooth: standard deviation of a Gaussian over the counted votes, pixels, 0 for none.
        depth: two gatherings are one cell where the pass between them is above 1 - depth of the lower summit, 0..1.
        min_area: smaller regions are dropped, pixels.
        largest_piece: keep only the largest connected piece of each region.

    score: geometric mean of the mean foreground probability of the region and the share of its pixels' variance
    about their mean that the offsets explain (their R^2): 1 when all agree on a point, 0 when they do not move.
    """

    foreground_low: float
    smooth: float
    depth: float
    min_area: int
    largest_piece: bool

    def __post_init__(self) -> None:
        checks.fractions("model.decoder", foreground_low=self.foreground_low, depth=self.depth)
        checks.numbers("model.decoder", 0, _MOST, smooth=self.smooth)
        checks.numbers("model.decoder", 0, min_area=self.min_area)

    def __call__(self, maps: CellMaps) -> Decoded:
        """Decode the cells; none where no pixel is foreground. Raises InputError without the map of offsets."""
        offset = _needed(maps.offset, "offset", "model.layout.offset_scale, or decoder@model.decoder=watershed")
        pixel = np.flatnonzero(maps.foreground > self.foreground_low)
        at = np.stack(np.divmod(pixel, maps.width)).astype(np.float64)  # float32 would round by the place in the image
        vote = at + offset.reshape(2, -1)[:, pixel]
        cell, count = self._gathered(vote, maps)
        if self.largest_piece:
            cells = np.zeros(maps.foreground.shape, np.int64)
            cells.ravel()[pixel] = cell + 1
            kept = in_largest_piece(cells).ravel()[pixel]
            pixel, cell, at, vote = pixel[kept], cell[kept], at[:, kept], vote[:, kept]
        agreement = 1 - _variance(vote, cell, count) / np.maximum(_variance(at, cell, count), 1e-6)
        scores = np.sqrt(_means(maps.foreground, pixel, cell, count) * agreement.clip(0, 1))
        return _decoded(maps, self.foreground_low, pixel, cell, scores, self.min_area)

    def _gathered(self, vote: Floats, maps: CellMaps) -> tuple[Ints, int]:
        """Return the gathering that each vote (row, column) falls into, int64 [A], and the number of gatherings."""
        shape, size = maps.foreground.shape, maps.foreground.size
        last = np.array(shape)[:, None] - 1
        row, column = np.rint(vote).clip(0, last).astype(np.int64)
        target = row * maps.width + column
        votes = _blurred(np.bincount(target, minlength=size).astype(np.float32).reshape(shape), self.smooth)
        voted = votes > 0
        # a ratio of counts, whatever the size of the cells, is a difference of their logarithms
        np.log(votes, where=voted, out=votes)
        basins = find_basins(votes, voted, -np.log1p(-min(self.depth, 1 - 1e-6)))
        basin = np.zeros(size, np.int64)
        basin[basins.pixel] = basins.basin
        return basin[target], len(basins.peaks)


@constructible
@dataclass(frozen=True)
class Components:
    """Connected components of the foreground, over edges, not corners: for networks that predict nothing else.

    Args:
        threshold: pixels with a foreground probability above it belong to cells, 0..1.
        min_area: smaller pieces are dropped, pixels.

    score: mean foreground probability of the piece.
    """

    threshold: float
    min_area: int

    def __post_init__(self) -> None:
        checks.fractions("model.decoder", threshold=self.threshold)
        checks.numbers("model.decoder", 0, min_area=self.min_area)

    def __call__(self, maps: CellMaps) -> Decoded:
        """Decode the cells; none where no pixel is foreground."""
        count, pieces = cv2.connectedComponents((maps.foreground > self.threshold).astype(np.uint8), connectivity=4)
        pixel = np.flatnonzero(pieces)
        piece = pieces.ravel()[pixel].astype(np.int64) - 1
        scores = _means(maps.foreground, pixel, piece, count - 1)
        return _decoded(maps, self.threshold, pixel, piece, scores, self.min_area)


def _decoded(maps: CellMaps, low: float, pixel: Ints, region: Ints, scores: AnyFloats, min_area: int) -> Decoded:
    """Draw the regions int64 [A], 0..n-1, of flat pixels [A] that are large enough and whose score [n] is not negative.

    They grow by a pixel where the foreground is not above `low`. Of more cells than a uint16 can number the best stay.
    """
    count = len(scores)
    areas = np.bincount(region, minlength=count)
    chosen = np.flatnonzero((areas >= max(min_area, 1)) & (scores >= 0))
    if len(chosen) > MAX_CELLS:
        log.warning("an image of %d cells: the %d best are kept, a label map numbers no more", len(chosen), MAX_CELLS)
        chosen = np.sort(chosen[np.argsort(-scores[chosen], kind="stable")[:MAX_CELLS]])
    number = np.zeros(count, np.uint16)
    number[chosen] = np.arange(1, len(chosen) + 1)
    regions = np.zeros(maps.foreground.shape, np.uint16)
    regions.ravel()[pixel] = number[region]
    grown = cv2.dilate(regions, np.ones((3, 3), np.uint8))
    regions = np.where(maps.foreground > low, regions, grown).astype(np.uint16)
    types = np.zeros(count, np.int64)
    if maps.types is not None:
        types = np.argmax([_means(plane, pixel, region, count) for plane in maps.types], axis=0)
    return Decoded(regions, scores[chosen].astype(np.float32), types[chosen])


def _means(plane: Plane, pixel: Ints, region: Ints, count: int) -> Floats:
    """Mean of plane [H, W] over the pixels of each region, float64 [count]."""
    areas = np.bincount(region, minlength=count)
    return np.bincount(region, weights=plane.ravel()[pixel], minlength=count) / np.maximum(areas, 1)


def _variance(position: AnyFloats, region: Ints, count: int) -> Floats:
    """Mean squared distance of positions [2, A] from the mean of their region, pixels squared, float64 [count]."""
    areas = np.maximum(np.bincount(region, minlength=count), 1)
    result = np.zeros(count)
    for axis in position:
        apart = axis - (np.bincount(region, weights=axis, minlength=count) / areas)[region]
        result += np.bincount(region, weights=apart * apart, minlength=count) / areas
    return result


def _blurred(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32) if sigma else plane


def _needed(plane: Plane | None, name: str, instead: str) -> Plane:
    if plane is None:
        raise InputError(f"model.decoder: it needs the map {name!r}, which the network does not predict; set {instead}")
    return plane

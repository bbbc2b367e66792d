"""Methods that fuse the detections of a pool into one set: suppression, weighted fusion, or a vote on every pixel.

Each reports for a cell how far the members agree: the weighted share of members that found it, times the weighted mean
IoU of their masks with the fused one. A cell that one member found keeps that member's own box and mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from sartorius.fusion.clusters import Clusters, Stamp, cluster
from sartorius.fusion.pool import MASK_THRESHOLD, Pool, calibrated
from sartorius.postprocess.nms import box_nms, mask_nms
from sartorius.postprocess.paste import paste_masks
from sartorius.structures import checks
from sartorius.structures.arrays import Floats, Floats32, Ints
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.resample import resample


class Method(Protocol):
    """Fuses the detections of a pool into those of the image, best score first, `agreement` set.

    voted: whether the mask threshold of the result is 0.5 whatever those of the members are.
    """

    voted: ClassVar[bool]

    def __call__(self, pool: Pool) -> Detections:
        """Fuse the detections of a pool, which may be empty."""


@constructible
@dataclass(frozen=True, kw_only=True)
class NMS:
    """Of detections of one cell the one with the largest weight x score stays as it is.

    box_nms, mask_nms: IoU of boxes, and of the masks of what is left, above which the lower one goes, 0..1.
    mask_iou: IoU of masks from which a member counts as agreeing. class_agnostic: all this between cell types too, not
    only among detections of one type. Scores become weight x score.
    """

    box_nms: float
    mask_nms: float
    mask_iou: float
    class_agnostic: bool = True
    voted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.fractions("fusion", box_nms=self.box_nms, mask_nms=self.mask_nms, mask_iou=self.mask_iou)
        checks.switches("fusion", class_agnostic=self.class_agnostic)

    def __call__(self, pool: Pool) -> Detections:
        """Fuse the detections; see `Method`."""
        detections, pasted = pool.detections, pool.pasted
        types, limits = detections.cell_types, np.full(len(pool), self.box_nms)
        stays = box_nms(detections.boxes, types, limits, self.class_agnostic) & (pasted.areas > 0)
        seeds, limits = np.flatnonzero(stays), np.full(int(stays.sum()), self.mask_nms)
        kinds = None if self.class_agnostic else types[stays]
        seeds = seeds[mask_nms(pasted.select(stays), limits, cell_types=kinds)]
        clusters = cluster(pool, 0.0, self.mask_iou, seeds, self.class_agnostic)
        chosen = replace(detections.select(seeds), scores=pool.rank[seeds].astype(np.float32))
        return _with_agreement(pool, clusters, chosen, pool.mask_thresholds[seeds])


@dataclass(frozen=True, kw_only=True)
class _Averaging(ABC):
    """Fusion of every cluster by weight x score.

    A cell's score is its members' mean score, weighted with the weights, times the weighted share of members that found
    it (to the power `share_power`: 1 as in weighted boxes fusion, 0 leaves the mean). Its cell type is the weighted
    majority's. box_iou, mask_iou, class_agnostic: see `clusters.cluster`.
    """

    box_iou: float
    mask_iou: float
    share_power: float
    class_agnostic: bool = True
    voted: ClassVar[bool]

    def __post_init__(self) -> None:
        checks.fractions("fusion", box_iou=self.box_iou, mask_iou=self.mask_iou, share_power=self.share_power)
        checks.switches("fusion", class_agnostic=self.class_agnostic)

    @abstractmethod
    def _fuse(self, pool: Pool, clusters: Clusters, part: Floats) -> tuple[Floats, Floats32]:
        """Make the boxes [J, 4] and masks [J, M, M] of `clusters.several`; part: see `_parts`."""

    def __call__(self, pool: Pool) -> Detections:
        """Fuse the detections; see `Method`."""
        clusters = cluster(pool, self.box_iou, self.mask_iou, class_agnostic=self.class_agnostic)
        part = _parts(pool, clusters)
        seed, seed_thresholds = pool.detections.select(clusters.seed), pool.mask_thresholds[clusters.seed]
        boxes, masks = seed.boxes.copy(), seed.masks.copy()
        if self.voted and (seed_thresholds != MASK_THRESHOLD).any():
            masks = calibrated(masks, seed_thresholds).astype(np.float16)
        boxes[clusters.several], masks[clusters.several] = self._fuse(pool, clusters, part)
        types = _types(pool, clusters)
        weight, score = pool.weight[clusters.rows], pool.detections.scores[clusters.rows]
        mean = clusters.sums(weight * score) / clusters.sums(weight)
        scores = (mean * _share(pool, clusters, types) ** self.share_power).astype(np.float32)
        thresholds = clusters.sums(part * pool.mask_thresholds[clusters.rows])
        if self.voted:
            thresholds[:] = MASK_THRESHOLD
        fused = replace(seed, boxes=boxes, masks=masks, scores=scores, cell_types=types)
        return _with_agreement(pool, clusters, fused, thresholds)


@constructible
@dataclass(frozen=True, kw_only=True)
class WBF(_Averaging):
    """Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021), with masks.

    A cell's box is the mean of its members' boxes, its mask the mean of their probabilities resampled to that box, both
    weighted with weight x score. Scores and cell types: see `_Averaging`.
    """

    voted: ClassVar[bool] = False

    def _fuse(self, pool: Pool, clusters: Clusters, part: Floats) -> tuple[Floats, Floats32]:
        boxes = clusters.sums(pool.detections.boxes[clusters.rows] * part[:, None])
        several, size = clusters.several, pool.detections.mask_size
        masks = np.zeros((len(several), size, size), np.float32)
        for block in _blocks(clusters, size):
            rows = np.isin(clusters.cell, several[block])
            members = pool.detections.select(clusters.rows[rows])
            read = resample(members.masks, members.boxes.astype(np.float64), boxes[clusters.cell[rows]], size)
            read *= part[rows, None, None].astype(np.float32)
            counts = clusters.sizes[several[block]]
            masks[block] = np.add.reduceat(read, np.cumsum(counts) - counts, axis=0)
        return boxes[several], masks


@constructible
@dataclass(frozen=True, kw_only=True)
class Vote(_Averaging):
    """The members that found a cell vote on each of its pixels.

    The probability of a pixel is the share of weight x score of those whose mask has it; the box encloses all pixels of
    at least `min_share`, so that one member's outlier does not stretch it. Scores and cell types: see `_Averaging`.
    """

    min_share: float
    voted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fractions("fusion", min_share=self.min_share)

    def _fuse(self, pool: Pool, clusters: Clusters, part: Floats) -> tuple[Floats, Floats32]:
        from sartorius.structures.mask_sampling import sample_pixels

        several, size = clusters.several, pool.detections.mask_size
        if not len(several):
            return np.zeros((0, 4)), np.zeros((0, size, size), np.float32)
        cell, pixel, share = self._shares(pool, clusters, part)
        height, width = pool.detections.height, pool.detections.width
        first = np.searchsorted(cell, several)
        y, x = np.divmod(pixel, width)
        low = [np.minimum.reduceat(side, first) for side in (x, y)]
        high = [np.maximum.reduceat(side, first) + 1 for side in (x, y)]
        edges = np.stack((*low, *high), axis=1)
        masks = sample_pixels(np.searchsorted(several, cell), y, x, share, edges, height, width, size)
        return edges.astype(np.float64), masks

    def _shares(self, pool: Pool, clusters: Clusters, part: Floats) -> tuple[Ints, Ints, Floats32]:
        """Count (cell, flat pixel, share) of all pixels of cells that several members found, sorted; shares in 0..1."""
        cell_of, part_of = np.full(len(pool), -1), np.zeros(len(pool))
        several = np.isin(clusters.cell, clusters.several)
        cell_of[clusters.rows[several]], part_of[clusters.rows[several]] = clusters.cell[several], part[several]
        pasted = pool.pasted
        counted = cell_of[pasted.mask] >= 0
        owner = pasted.mask[counted]
        key = cell_of[owner] * (pasted.height * pasted.width) + pasted.pixel[counted]
        keys, inverse = np.unique(key, return_inverse=True)
        share = np.bincount(inverse, weights=part_of[owner], minlength=len(keys))
        # the largest share of a cell always stays: the seed's pixels, if need be
        cell, pixel = np.divmod(keys, pasted.height * pasted.width)
        most = np.zeros(len(clusters))
        np.maximum.at(most, cell, share)
        kept = share >= np.minimum(self.min_share, most[cell])
        return cell[kept], pixel[kept], share[kept].clip(0, 1).astype(np.float32)


def _parts(pool: Pool, clusters: Clusters) -> Floats:
    """Compute the part of each row in its cell by weight x score, float64 [R]; those of a cell sum to 1."""
    rank = np.maximum(pool.rank[clusters.rows], 1e-9)  # scores of 0 among themselves count alike
    return rank / clusters.sums(rank)[clusters.cell]


def _blocks(clusters: Clusters, size: int, values: int = 1 << 23) -> list[Ints]:
    """Split the positions in `clusters.several` into blocks whose masks hold about `values` numbers."""
    several = clusters.several
    number = (np.cumsum(clusters.sizes[several]) * size * size) // values
    return np.split(np.arange(len(several)), np.flatnonzero(np.diff(number)) + 1) if len(several) else []


def _types(pool: Pool, clusters: Clusters) -> Ints:
    """Vote on the cell type of each cell, int64 [K]; of equal ones the first."""
    votes = np.zeros((len(clusters), pool.weights.shape[1]))
    np.add.at(votes, (clusters.cell, pool.detections.cell_types[clusters.rows]), pool.votes[clusters.rows])
    # nobody votes for a score of 0: the seed decides
    votes[np.arange(len(clusters)), pool.detections.cell_types[clusters.seed]] += 1e-12
    return votes.argmax(axis=1).astype(np.int64)


def _share(pool: Pool, clusters: Clusters, types: Ints) -> Floats:
    """Compute the weighted share of the members that found each cell of a type, float64 [K] in 0..1."""
    found = clusters.sums(pool.weights[pool.member[clusters.rows], types[clusters.cell]])
    return found / np.maximum(pool.weights[:, types].sum(axis=0), 1e-9)


def _with_agreement(pool: Pool, clusters: Clusters, cells: Detections, thresholds: Floats) -> Detections:
    """Set the agreement of K cells, whose masks count above `thresholds` [K], and sort them, best score first."""
    pasted = paste_masks(cells.boxes, cells.masks, thresholds, cells.height, cells.width)
    fused, stamp = Stamp(pasted), Stamp(pool.pasted)
    iou, last = np.ones(len(clusters.rows)), np.append(clusters.first[1:], len(clusters.rows))
    for k in clusters.several.tolist():
        rows = slice(int(clusters.first[k]), int(last[k]))
        iou[rows] = stamp.ious(fused.pixels(k), clusters.rows[rows])
    weight = pool.weight[clusters.rows]
    mean = clusters.sums(weight * iou) / clusters.sums(weight)
    agreement = (_share(pool, clusters, cells.cell_types) * mean).clip(0, 1)
    return replace(cells, agreement=agreement.astype(np.float32)).sorted()

"""How the detections of a pool become one set: suppression, weighted fusion, or a vote on every pixel.

All three say for each cell how far the members agree: the weighted share of members that found it, times the weighted
mean IoU of their masks with the joined one. A cell that one member found keeps that member's own box and mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.fusion.clusters import Clusters, Stamp, cluster
from sartorius.fusion.pool import LEVEL, Pool, levelled
from sartorius.postprocess.nms import box_nms, mask_nms
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.resample import resample


class Method(Protocol):
    """Joins the detections of a pool into those of the image, best score first, `agreement` set.

    voted: whether masks of the result are cut at 0.5 whatever those of the members are cut at.
    """

    voted: ClassVar[bool]

    def __call__(self, pool: Pool) -> Detections:
        """The joined detections of a pool, which may be empty."""


@dataclass(frozen=True, kw_only=True)
class NMS:
    """Of detections of one cell the one with the largest weight x score stays as it is.

    box_nms, mask_nms: IoU of boxes, and of the masks of what is left, above which the lower one goes, 0..1.
    mask_iou: IoU of masks from which a member counts as agreeing. Scores become weight x score.
    """

    box_nms: float
    mask_nms: float
    mask_iou: float
    voted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_shares(self, "box_nms", "mask_nms", "mask_iou")

    def __call__(self, pool: Pool) -> Detections:
        """The joined detections; see `Method`."""
        found, pasted = pool.detections, pool.pasted
        stays = box_nms(found.boxes, found.cell_types, np.full(len(found), self.box_nms)) & (pasted.areas > 0)
        seeds = np.flatnonzero(stays)
        seeds = seeds[mask_nms(pasted.select(stays), np.full(len(seeds), self.mask_nms))]
        clusters = cluster(pool, 0.0, self.mask_iou, seeds)
        chosen = replace(found.select(seeds), scores=pool.rank[seeds].astype(np.float32))
        return _with_agreement(pool, clusters, chosen, pool.cuts[seeds])


@dataclass(frozen=True, kw_only=True)
class WBF:
    """Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021), with masks.

    A cell's box is the mean of its members' boxes, its mask the mean of their probabilities as the joined box holds
    them, both weighted with weight x score; its score the mean score, weighted with the weights, times the weighted
    share of members that found it (to the power `share_power`: 1 as in the paper, 0 leaves the mean). Its cell type is
    the weighted majority's.

    box_iou, mask_iou: see `clusters.cluster`.
    """

    box_iou: float
    mask_iou: float
    share_power: float
    voted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_shares(self, "box_iou", "mask_iou", "share_power")

    def __call__(self, pool: Pool) -> Detections:
        """The joined detections; see `Method`."""
        clusters = cluster(pool, self.box_iou, self.mask_iou)
        part = _parts(pool, clusters)
        boxes = clusters.sums(pool.detections.boxes[clusters.rows] * part[:, None])
        masks = np.zeros((len(clusters), *pool.detections.masks.shape[1:]), np.float32)
        joined = _several(clusters)
        for few in _blocks(clusters, joined, pool.detections.mask_size):
            rows = np.isin(clusters.cell, few)
            own = clusters.rows[rows]
            read = resample(
                pool.detections.masks[own],
                pool.detections.boxes[own].astype(np.float64),
                boxes[clusters.cell[rows]],
                pool.detections.mask_size,
            )
            read *= part[rows, None, None].astype(np.float32)
            counts = np.bincount(clusters.cell[rows], minlength=len(clusters))[few]
            masks[few] = np.add.reduceat(read, np.cumsum(counts) - counts, axis=0)
        return _finished(pool, clusters, joined, boxes, masks, part, self.share_power, None)


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The members that found a cell vote on each of its pixels.

    The probability of a pixel is the share of weight x score of those whose mask has it; the box is the one around all
    pixels of at least `min_share`, so that one member's slip does not stretch it. Scores and cell types as in `WBF`.
    """

    box_iou: float
    mask_iou: float
    share_power: float
    min_share: float
    voted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_shares(self, "box_iou", "mask_iou", "share_power", "min_share")

    def __call__(self, pool: Pool) -> Detections:
        """The joined detections; see `Method`."""
        from sartorius.structures.mask_sampling import sample_pixels

        clusters, size = cluster(pool, self.box_iou, self.mask_iou), pool.detections.mask_size
        part, joined = _parts(pool, clusters), _several(clusters)
        boxes, masks = np.zeros((len(clusters), 4)), np.zeros((len(clusters), size, size), np.float32)
        cell, pixel, share = self._shares(pool, clusters, part)
        if len(joined):
            height, width = pool.detections.height, pool.detections.width
            first = np.searchsorted(cell, joined)
            y, x = np.divmod(pixel, width)
            low = [np.minimum.reduceat(side, first) for side in (x, y)]
            high = [np.maximum.reduceat(side, first) + 1 for side in (x, y)]
            edges = np.stack((*low, *high), axis=1)
            boxes[joined] = edges
            masks[joined] = sample_pixels(np.searchsorted(joined, cell), y, x, share, edges, height, width, size)
        return _finished(pool, clusters, joined, boxes, masks, part, self.share_power, LEVEL)

    def _shares(self, pool: Pool, clusters: Clusters, part: Floats) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """(cell, flat pixel, share) of every pixel of cells that several members found, sorted; shares in 0..1."""
        cell_of, part_of = np.full(len(pool), -1), np.zeros(len(pool))
        several = np.isin(clusters.cell, _several(clusters))
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
    """The part of each row in its cell by weight x score, float64 [R]; those of a cell sum to 1."""
    rank = np.maximum(pool.rank[clusters.rows], 1e-9)  # scores of 0 among themselves count alike
    return rank / clusters.sums(rank)[clusters.cell]


def _several(clusters: Clusters) -> Ints:
    """The cells that more than one member found."""
    return np.flatnonzero(np.bincount(clusters.cell, minlength=len(clusters)) > 1)


def _blocks(clusters: Clusters, cells: Ints, size: int, values: int = 1 << 23) -> list[Ints]:
    """`cells` in pieces whose masks together hold about `values` numbers: memory stays the same for any M."""
    counts = np.bincount(clusters.cell, minlength=len(clusters))[cells]
    number = (np.cumsum(counts) * size * size) // values
    return np.split(cells, np.flatnonzero(np.diff(number)) + 1) if len(cells) else []


def _finished(
    pool: Pool,
    clusters: Clusters,
    joined: Ints,
    boxes: Floats,
    masks: NDArray[np.float32],
    part: Floats,
    share_power: float,
    cut: float | None,
) -> Detections:
    """The cells of the clusters: boxes and masks as given for the cells `joined`, the seed's own for the others."""
    seed = pool.detections.select(clusters.seed)
    own_boxes, own_masks = seed.boxes.copy(), seed.masks.copy()
    if cut is not None and (pool.cuts[clusters.seed] != cut).any():
        own_masks = levelled(own_masks, pool.cuts[clusters.seed]).astype(np.float16)
    own_boxes[joined], own_masks[joined] = boxes[joined], masks[joined].astype(np.float16)
    types = _types(pool, clusters)
    share = _share(pool, clusters, types)
    weight, score = pool.weight[clusters.rows], pool.detections.scores[clusters.rows]
    mean = clusters.sums(weight * score) / clusters.sums(weight)
    scores = (mean * share**share_power).astype(np.float32)
    cuts = clusters.sums(part * pool.cuts[clusters.rows])
    if cut is not None:
        cuts[:] = cut
    found = replace(seed, boxes=own_boxes, masks=own_masks, scores=scores, cell_types=types)
    return _with_agreement(pool, clusters, found, cuts)


def _types(pool: Pool, clusters: Clusters) -> Ints:
    """The cell type of each cell by weighted majority, int64 [K]; of equal ones the first."""
    votes = np.zeros((len(clusters), pool.weights.shape[1]))
    np.add.at(votes, (clusters.cell, pool.detections.cell_types[clusters.rows]), pool.votes[clusters.rows])
    # nobody votes for a score of 0: the seed decides
    votes[np.arange(len(clusters)), pool.detections.cell_types[clusters.seed]] += 1e-12
    types: Ints = votes.argmax(axis=1).astype(np.int64)
    return types


def _share(pool: Pool, clusters: Clusters, types: Ints) -> Floats:
    """The weighted share of the members that found each cell of a type, float64 [K] in 0..1."""
    found = clusters.sums(pool.weights[pool.member[clusters.rows], types[clusters.cell]])
    share: Floats = found / np.maximum(pool.weights[:, types].sum(axis=0), 1e-9)
    return share


def _with_agreement(pool: Pool, clusters: Clusters, found: Detections, cuts: Floats) -> Detections:
    """`found` [K], one for each cell, with agreement, best score first; its masks are cut at `cuts` [K]."""
    pasted = paste_masks(found.boxes, found.masks, cuts, found.height, found.width)
    joined, stamp = Stamp(pasted), Stamp(pool.pasted)
    iou, last = np.ones(len(clusters.rows)), np.append(clusters.first[1:], len(clusters.rows))
    for k in _several(clusters).tolist():
        rows = slice(int(clusters.first[k]), int(last[k]))
        iou[rows] = stamp.ious(joined.pixels(k), clusters.rows[rows])
    weight = pool.weight[clusters.rows]
    mean = clusters.sums(weight * iou) / clusters.sums(weight)
    agreement = (_share(pool, clusters, found.cell_types) * mean).clip(0, 1)
    return replace(found, agreement=agreement.astype(np.float32)).sorted()


def _check_shares(method: object, *names: str) -> None:
    for name in names:
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"fusion.{name}: expected a number from 0 to 1, got {value!r}")

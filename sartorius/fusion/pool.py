"""The detections of all members of an ensemble on one image, side by side, ready to be joined.

Members differ in what their probabilities mean: one model's masks are best cut at 0.45, another's at 0.8. Levelling
moves each member's own threshold to 0.5, so that averages and majorities compare like with like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.resample import resample

LEVEL = 0.5  # probability at which a levelled mask is cut
_UNTYPED = 1e-6  # weight of a vote for a cell type that a member only borrows from the others


@dataclass(frozen=True)
class Seen:
    """What one member saw in an image.

    weights: its weight for each cell type, float64 [K], 0 or more. cuts: the probability at which its masks are cut,
    per cell type, float64 [K]. typed: whether it knows cell types itself.
    """

    detections: Detections
    weights: Floats
    cuts: Floats
    typed: bool = True


@dataclass(frozen=True)
class Pool:
    """N detections of the members that looked at an image, the largest weight x score first.

    detections: boxes with extent and masks of one size. member: int64 [N]. weights: float64 [members, K], the largest
    is 1. cuts: float64 [N], the probability at which each mask is cut. votes: float64 [N], the say of each detection on
    the cell type.
    """

    detections: Detections
    member: Ints
    weights: Floats
    cuts: Floats
    votes: Floats

    def __len__(self) -> int:
        return len(self.detections)

    @cached_property
    def weight(self) -> Floats:
        """The weight of each detection's member for its cell type, float64 [N]."""
        return self.weights[self.member, self.detections.cell_types]

    @cached_property
    def rank(self) -> Floats:
        """weight x score, float64 [N], falling."""
        return self.weight * self.detections.scores

    @cached_property
    def pasted(self) -> PastedMasks:
        """The pixels of each mask at its cut."""
        found = self.detections
        return paste_masks(found.boxes, found.masks, self.cuts, found.height, found.width)

    def select(self, index: Ints | NDArray[np.bool_]) -> Pool:
        """The detections of a boolean mask [N] or of indices."""
        chosen = self.detections.select(index)
        return replace(
            self, detections=chosen, member=self.member[index], cuts=self.cuts[index], votes=self.votes[index]
        )


def pool(seen: Sequence[Seen], *, min_score: float, level: bool, image_type: Literal["each", "majority"]) -> Pool:
    """The detections of at least one member on one image; all are of the same size and cell types.

    min_score: detections below it are left out, as are those of weight 0 and boxes without extent. level: probabilities
    are levelled (see above). image_type: `majority` gives all detections the type with the largest sum of weight x
    score; `each` leaves them. Members that know no types take the prevailing one; where nobody knows, they keep theirs.
    """
    size = max(one.detections.mask_size for one in seen)
    scale = max(float(one.weights.max(initial=0)) for one in seen) or 1.0
    weights = np.stack([one.weights for one in seen]) / scale
    found = [_kept(one.detections, min_score) for one in seen]
    types = _cell_types(found, seen, weights, image_type)
    cuts = [one.cuts[own] for one, own in zip(seen, types, strict=True)]
    masks = [_prepared(one, own, size, level) for one, own in zip(found, cuts, strict=True)]
    first = found[0]
    joined = replace(
        first,
        boxes=np.concatenate([one.boxes for one in found]),
        scores=np.concatenate([one.scores for one in found]),
        cell_types=np.concatenate(types),
        masks=np.concatenate(masks),
        agreement=None,
    )
    member = np.repeat(np.arange(len(found)), [len(one) for one in found])
    known = np.array([1.0 if one.typed else _UNTYPED for one in seen])[member]
    weight = weights[member, joined.cell_types]
    cut = np.full(len(member), LEVEL) if level else np.concatenate(cuts)
    everything = Pool(joined, member, weights, cut, known * weight * joined.scores)
    order = np.argsort(-everything.rank, kind="stable")
    return everything.select(order[weight[order] > 0])


def _kept(found: Detections, min_score: float) -> Detections:
    extent = found.boxes[:, 2:] - found.boxes[:, :2]
    return found.select((found.scores >= np.float32(min_score)) & (extent > 0).all(axis=1))


def _cell_types(
    found: Sequence[Detections], seen: Sequence[Seen], weights: Floats, image_type: Literal["each", "majority"]
) -> list[Ints]:
    """The cell type of each detection, int64 [n] for each member."""
    sums = np.zeros(weights.shape[1])
    for k, one in enumerate(found):
        if seen[k].typed:
            np.add.at(sums, one.cell_types, weights[k, one.cell_types] * one.scores)
    prevailing = int(sums.argmax())
    types = []
    for one, member in zip(found, seen, strict=True):
        borrowed = sums.any() and (image_type == "majority" or not member.typed)
        types.append(np.full(len(one), prevailing) if borrowed else one.cell_types)
    return types


def _prepared(found: Detections, cuts: Floats, size: int, level: bool) -> NDArray[np.float16]:
    """Masks of one size, levelled where asked."""
    masks = found.masks
    if level and (cuts != LEVEL).any():
        masks = levelled(masks, cuts).astype(np.float16)
    if found.mask_size != size:
        boxes = found.boxes.astype(np.float64)
        masks = resample(masks, boxes, boxes, size).astype(np.float16)
    return masks


def levelled(masks: NDArray[np.floating], cuts: Floats) -> NDArray[np.float32]:
    """Probabilities [N, M, M] with each mask's cut [N], in 0..1, moved to 0.5: straight from 0 to it and on to 1."""
    values, cut = masks.astype(np.float32), cuts.astype(np.float32)[:, None, None]
    below = LEVEL * values / np.maximum(cut, np.float32(1e-6))
    above = 1 - LEVEL * (1 - values) / np.maximum(1 - cut, np.float32(1e-6))
    return np.where(values > cut, above, np.minimum(below, LEVEL)).astype(np.float32)

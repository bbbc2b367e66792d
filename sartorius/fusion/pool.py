"""The detections of all members of an ensemble on one image, side by side, ready to be joined.

Members differ in what their probabilities mean: one model's masks fit best at a threshold of 0.45, another's at 0.8.
Calibration maps each member's own mask threshold to 0.5, so that averages and majorities compare like with like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from sartorius.errors import InputError
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.structures.arrays import AnyFloats, Bools, Floats, Floats32, Ints, SoftMasks
from sartorius.structures.detections import Detections
from sartorius.structures.resample import resample

ImageType = Literal["each", "majority"]
MASK_THRESHOLD = 0.5  # of calibrated masks
_BORROWED = 1e-6  # weight of a vote for a cell type that a member only takes from the others


@dataclass(frozen=True)
class MemberDetections:
    """One member's detections of an image.

    weights: its weight for each cell type, float64 [K], 0 or more. mask_thresholds: probability above which its masks'
    pixels count, per cell type, float64 [K]. typed: whether the member itself predicts cell types.
    """

    detections: Detections
    weights: Floats
    mask_thresholds: Floats
    typed: bool = True


@dataclass(frozen=True)
class Pool:
    """N detections of the members that predicted an image, the largest weight x score first.

    detections: boxes with extent and masks of one size. member: int64 [N]. weights: float64 [members, K], the largest
    is 1. mask_thresholds: float64 [N]. votes: float64 [N], the weight of each detection's vote on the cell type.
    """

    detections: Detections
    member: Ints
    weights: Floats
    mask_thresholds: Floats
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
        """The pixels of each mask at its threshold."""
        cells = self.detections
        return paste_masks(cells.boxes, cells.masks, self.mask_thresholds, cells.height, cells.width)

    def select(self, index: Ints | Bools) -> Pool:
        """Select the detections of a boolean mask [N] or of indices."""
        return replace(
            self,
            detections=self.detections.select(index),
            member=self.member[index],
            mask_thresholds=self.mask_thresholds[index],
            votes=self.votes[index],
        )


def counted_as(detections: Detections, names: tuple[str, ...], source: object) -> Detections:
    """Count the cell types of detections as in `names`; raises InputError, naming `source`, where it lacks one."""
    types = detections.cell_type_names
    if not set(types) <= set(names):
        raise InputError(f"{source}: cell types {types}, those of the others {names}")
    if types == names:
        return detections
    position = np.array([names.index(name) for name in types], np.int64)
    return replace(detections, cell_types=position[detections.cell_types], cell_type_names=names)


def pool(members: Sequence[MemberDetections], *, min_score: float, calibrate: bool, image_type: ImageType) -> Pool:
    """Pool the detections of at least one member on one image; all are of the same size and cell types.

    min_score: detections below it are left out, as are those of weight 0 and boxes without extent. calibrate: map mask
    thresholds to 0.5 (see above). image_type: `majority` gives all detections the type with the largest sum of weight x
    score; `each` leaves them. Members without types take the prevailing one; where none has types, they keep theirs.
    """
    size = max(member.detections.mask_size for member in members)
    scale = max(float(member.weights.max(initial=0)) for member in members) or 1.0
    weights = np.stack([member.weights for member in members]) / scale
    kept = [_kept(member.detections, min_score) for member in members]
    types = _cell_types(kept, members, weights, image_type)
    thresholds = [member.mask_thresholds[kind] for member, kind in zip(members, types, strict=True)]
    joined = Detections.concatenate(
        [
            replace(part, cell_types=kind, masks=_prepared(part, limit, size, calibrate))
            for part, kind, limit in zip(kept, types, thresholds, strict=True)
        ]
    )
    index = np.repeat(np.arange(len(kept)), [len(part) for part in kept])
    vote = np.array([1.0 if member.typed else _BORROWED for member in members])[index]
    weight = weights[index, joined.cell_types]
    threshold = np.full(len(index), MASK_THRESHOLD) if calibrate else np.concatenate(thresholds)
    everything = Pool(joined, index, weights, threshold, vote * weight * joined.scores)
    order = np.argsort(-everything.rank, kind="stable")
    return everything.select(order[weight[order] > 0])


def _kept(detections: Detections, min_score: float) -> Detections:
    extent = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return detections.select((detections.scores >= np.float32(min_score)) & (extent > 0).all(axis=1))


def _cell_types(
    kept: Sequence[Detections], members: Sequence[MemberDetections], weights: Floats, image_type: ImageType
) -> list[Ints]:
    """Choose the cell type of each detection, int64 [n] for each member."""
    sums = np.zeros(weights.shape[1])
    for part, member, weight in zip(kept, members, weights, strict=True):
        if member.typed:
            np.add.at(sums, part.cell_types, weight[part.cell_types] * part.scores)
    prevailing = int(sums.argmax())
    return [
        np.full(len(part), prevailing)
        if sums.any() and (image_type == "majority" or not member.typed)
        else part.cell_types
        for part, member in zip(kept, members, strict=True)
    ]


def _prepared(detections: Detections, thresholds: Floats, size: int, calibrate: bool) -> SoftMasks:
    """Bring masks to one size, calibrated where asked."""
    masks = detections.masks
    if calibrate and (thresholds != MASK_THRESHOLD).any():
        masks = calibrated(masks, thresholds).astype(np.float16)
    if detections.mask_size != size:
        boxes = detections.boxes.astype(np.float64)
        masks = resample(masks, boxes, boxes, size).astype(np.float16)
    return masks


def calibrated(masks: AnyFloats, thresholds: Floats) -> Floats32:
    """Map each mask's threshold [N], in 0..1, to 0.5 in probabilities [N, M, M]: linear from 0 to it and on to 1."""
    values, limit = masks.astype(np.float32), thresholds.astype(np.float32)[:, None, None]
    below = MASK_THRESHOLD * values / np.maximum(limit, np.float32(1e-6))
    above = 1 - MASK_THRESHOLD * (1 - values) / np.maximum(1 - limit, np.float32(1e-6))
    return np.where(values > limit, above, np.minimum(below, MASK_THRESHOLD)).astype(np.float32)

"""The second stage: the mask of each detection anew, by a network of the square around its box, as `two_stage` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from sartorius.errors import InputError
from sartorius.structures.arrays import AnyFloats, Bools, Boxes, Floats32, Ints, Plane
from sartorius.structures.detections import Detections


@dataclass(frozen=True, kw_only=True)
class SecondStage:
    """A function of a normalised image and its detections that segments anew those of a score of `min_score` and more.

    network: crops float32 [B, 1 (2 with prompt), size, size] -> logits [B, 2, size, size]. mean, std: grey levels that
    normalise the image; None: its own. size, margin, min_side, prompt, low, crops_at_once: of the crop segmenter.
    min_score, box_probability, combine (`replace` or `mean`), mask_size: of the two-stage model.
    """

    network: Callable[[Floats32], Floats32]
    mean: float | None
    std: float | None
    size: int
    margin: float
    min_side: float
    prompt: bool
    low: float
    crops_at_once: int
    min_score: float
    box_probability: float | None
    combine: str
    mask_size: int

    def __call__(self, image: Plane, given: Detections) -> Detections:
        """Return the detections with new boxes and masks; raises InputError where the network gives no numbers."""
        boxes, old, limits = given.boxes, given.masks.astype(np.float32), (given.height, given.width)
        same = given.mask_size == self.mask_size
        new_boxes, masks = boxes.copy(), old.copy() if same else resample(old, boxes, boxes, self.mask_size)
        chosen = np.flatnonzero(given.scores >= self.min_score)
        for start in range(0, len(chosen), self.crops_at_once):
            part = chosen[start : start + self.crops_at_once]
            prompts = boxes[part]
            if self.box_probability is not None:
                tight, certain = tighten(old[part], prompts, self.box_probability, *limits)
                prompts = np.where(certain[:, None], tight, prompts)
            regions = squares(prompts, self.margin, self.min_side)
            logits = self.network(self._crops(image, prompts, regions))
            check_finite(given.image_id, logits)
            probability = expit(logits[:, 0])
            tight, filled = tighten(probability, regions, self.low, *limits)
            new = resample(probability, regions, tight, self.mask_size)
            if self.combine == "mean":
                new = np.float32(0.5) * (new + resample(old[part], boxes[part], tight, self.mask_size))
            new_boxes[part[filled]], masks[part[filled]] = tight[filled], new[filled]
        return replace(given, boxes=new_boxes, masks=masks.astype(np.float16))

    def _crops(self, image: Plane, boxes: Boxes, regions: Boxes) -> Floats32:
        grey = np.stack([sampled(image, region, self.size) for region in regions])
        return np.stack((grey, draw_boxes(boxes, regions, self.size)), axis=1) if self.prompt else grey[:, None]


def check_finite(name: str, values: Floats32) -> None:
    """Raise InputError, naming the image, where a network's output holds NaN or infinity."""
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the network gives values that are not finite")


def squares(boxes: Boxes, margin: float, min_side: float) -> Boxes:
    """Make squares around the centres of boxes [N, 4], `margin` of the longest side wider on each side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * np.float32(1 + 2 * margin)
    half = side.clip(min_side)[:, None] / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def draw_boxes(boxes: Boxes, regions: Boxes, size: int) -> Floats32:
    """Compute the share of each bin of each region that its box covers: float32 [N, size, size] in 0..1."""
    shares = []
    for axis in (0, 1):
        step = (regions[:, axis + 2] - regions[:, axis])[:, None] / size
        low = regions[:, axis, None] + np.arange(size, dtype=np.float32) * step
        covered = np.minimum(low + step, boxes[:, axis + 2, None]) - np.maximum(low, boxes[:, axis, None])
        shares.append((covered / step).clip(0, 1))
    return np.asarray(shares[1][:, :, None] * shares[0][:, None, :])


def tighten(probability: Floats32, regions: Boxes, low: float, height: int, width: int) -> tuple[Boxes, Bools]:
    """Fit boxes around probabilities [N, S, S] above `low`, a bin wider on each side, within the image.

    Returns float32 [N, 4], and bool [N], whether anything was above `low`.
    """
    above, size = probability > low, probability.shape[-1]
    (left, right), (top, bottom) = _span(np.any(above, axis=1)), _span(np.any(above, axis=2))
    edges = np.stack((left - 1, top - 1, right + 1, bottom + 1), axis=1).clip(0, size).astype(np.float32)
    step = (regions[:, 2:] - regions[:, :2]) / size
    boxes = np.tile(regions[:, :2], 2) + edges * np.tile(step, 2)
    boxes = np.minimum(boxes.clip(0), np.array([width, height] * 2, np.float32))
    return boxes, above.any(axis=(1, 2)) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)


def _span(hit: Bools) -> tuple[Ints, Ints]:
    """Find the first and one past the last True of each row of bool [N, S]."""
    return hit.argmax(axis=1), hit.shape[1] - hit[:, ::-1].argmax(axis=1)


def resample(masks: Floats32, boxes: Boxes, new_boxes: Boxes, size: int) -> Floats32:
    """Resample masks [N, M, M] of `boxes` to `new_boxes`: float32 [N, size, size], 0 outside the old box."""
    extent = (boxes[:, 2:] - boxes[:, :2]).clip(1e-3)
    within = (new_boxes - np.tile(boxes[:, :2], 2)) * np.tile(masks.shape[-1] / extent, 2)
    result = np.zeros((len(masks), size, size), np.float32)
    for k, (mask, box) in enumerate(zip(masks, within, strict=True)):
        result[k] = sampled(mask, box, size, 2)
    return result


def sampled(plane: Plane, box: AnyFloats, size: int, samples: int | None = None) -> Plane:
    """Sample a box of a plane [H, W] as `roi_align(aligned=True)` of torchvision does: float32 [size, size].

    samples: of a bin along each axis; None: as many as it has pixels.
    """
    rows, down = _bins(box[1], box[3], size, samples, plane.shape[0])
    columns, across = _bins(box[0], box[2], size, samples, plane.shape[1])
    return np.asarray(down @ plane[rows, columns] @ across.T)


def _bins(low: np.floating, high: np.floating, size: int, samples: int | None, limit: int) -> tuple[slice, Floats32]:
    """Return the pixels of an axis that the bins of a box read, and the weight of each, float32 [size, pixels].

    Places are rounded to float32 in the order of torchvision's kernel. Samples more than a pixel outside the axis count
    nothing, those near its ends read the last pixel.
    """
    half = np.float32(0.5)
    step = ((high - half) - (low - half)) / np.float32(size)
    count = max(int(np.ceil(step)), 1) if samples is None else samples
    bins, inner = np.arange(size, dtype=np.float32)[:, None] * step, np.arange(count, dtype=np.float32) + half
    at = (low - half + bins + inner * step / np.float32(count)).ravel()
    counted = ((at >= -1) & (at <= limit)) / count
    at = at.clip(0, limit - 1)
    first = at.astype(np.int64)
    start, pixels = first.min(), int(first.max() - first.min()) + 2
    place = np.arange(size).repeat(count) * pixels + first - start
    weights = np.concatenate(((1 - (at - first)) * counted, (at - first) * counted))
    table = np.bincount(np.concatenate((place, place + 1)), weights, size * pixels).reshape(size, pixels)
    stop = min(int(start) + pixels, limit)
    return slice(int(start), stop), table[:, : stop - start].astype(np.float32)

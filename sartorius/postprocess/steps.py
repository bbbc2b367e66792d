"""The steps of post-processing that come with the package, in their usual order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from sartorius.postprocess.candidates import Candidates, remove_overlaps
from sartorius.postprocess.nms import Overlap, box_nms, mask_nms
from sartorius.postprocess.step import SearchRange, Step
from sartorius.postprocess.thresholds import PerType
from sartorius.structures import checks
from sartorius.structures.instances import MAX_CELLS

log = logging.getLogger(__name__)
_told: set[str] = set()  # images


@dataclass(frozen=True)
class ThresholdTypes(Step):
    """Choose the cell type whose thresholds hold for each detection.

    of: `detection`, its own; `image`, the one with the largest sum of scores in the image (images hold one type;
    detections may disagree).
    """

    of: Literal["detection", "image"]
    of_image: ClassVar = True

    def __post_init__(self) -> None:
        checks.one_of("postprocess.types", ("detection", "image"), of=self.of)

    def __call__(self, candidates: Candidates) -> Candidates:
        """All candidates, with other `types`."""
        if self.of == "detection" or not len(candidates):
            return replace(candidates, types=candidates.cell_types)
        return replace(candidates, types=np.full_like(candidates.types, candidates.detections.prevailing_type))


@dataclass(frozen=True)
class Score(Step):
    """Drop detections whose score is below the threshold, 0..1."""

    threshold: PerType
    searchable: ClassVar = {"threshold": SearchRange(0.05, 0.95, 0.01)}

    def __post_init__(self) -> None:
        checks.fractions("postprocess.score", threshold=self.threshold)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates with enough score; one equal to the threshold, in float32, stays."""
        threshold = candidates.limits("score.threshold", self.threshold)
        return candidates.select(candidates.scores >= threshold.astype(np.float32))


@dataclass(frozen=True)
class MaxDetections(Step):
    """Keep the `count` best detections of an image, more in a larger one; warns of the others, once an image.

    count: 1 to 65,535, of an image of up to `area` pixels; of a larger one as many more as it has more pixels.
    """

    count: int
    area: int = 366_080  # 520 x 704, an image of the competition
    of_image: ClassVar = True

    def __post_init__(self) -> None:
        checks.numbers("postprocess.max_detections", 1, MAX_CELLS, count=self.count)
        checks.whole("postprocess.max_detections", 1, area=self.area)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The best candidates."""
        image = candidates.detections
        most = int(self.count * max(1.0, image.height * image.width / self.area))
        return _best(candidates, most, "postprocess.max_detections.count= raises it")


def _best(candidates: Candidates, most: int, remedy: str) -> Candidates:
    """Keep the `most` best candidates; warns of the others, once an image, in a sentence that ends in `remedy`."""
    image_id, found = candidates.detections.image_id, len(candidates)
    if found > most and image_id not in _told:
        _told.add(image_id)
        log.warning("image %s: of %d detections the %d best are kept; %s", image_id, found, most, remedy)
    return candidates.select(np.arange(found) < most)


@dataclass(frozen=True)
class BoxNMS(Step):
    """Drop a detection whose box has an IoU above the threshold, 0..1, with that of a better one; 1 drops nothing.

    class_agnostic: also between detections of different cell types.
    """

    threshold: PerType
    class_agnostic: bool = True
    searchable: ClassVar = {"threshold": SearchRange(0.3, 1.0, 0.05)}

    def __post_init__(self) -> None:
        checks.fractions("postprocess.box_nms", threshold=self.threshold)
        checks.switches("postprocess.box_nms", class_agnostic=self.class_agnostic)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that no better one suppresses."""
        threshold = candidates.limits("box_nms.threshold", self.threshold)
        return candidates.select(box_nms(candidates.boxes, candidates.cell_types, threshold, self.class_agnostic))


@dataclass(frozen=True)
class PasteMasks(Step):
    """Paste the probability masks into the image: a pixel belongs to a cell above the threshold, 0..1."""

    threshold: PerType
    searchable: ClassVar = {"threshold": SearchRange(0.2, 0.9, 0.05)}

    def __post_init__(self) -> None:
        checks.fractions("postprocess.mask", threshold=self.threshold)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that have pixels, with them."""
        candidates = _best(candidates, MAX_CELLS, "a label map numbers no more")
        threshold = candidates.limits("mask.threshold", self.threshold)
        pasted = candidates.paste(threshold)
        return replace(candidates, masks=pasted, mask_threshold=threshold).select(pasted.areas > 0)


@dataclass(frozen=True)
class MaskNMS(Step):
    """Drop a cell whose pasted mask overlaps that of a better one by more than the threshold, 0..1.

    Of whatever cell type: in the end a pixel belongs to one cell, and the lower one would live on as a remnant.
    overlap: `iou`, or `iom`, the shared pixels over the smaller mask (see `nms.mask_nms`).
    """

    threshold: PerType
    overlap: Overlap = "iou"
    searchable: ClassVar = {"threshold": SearchRange(0.0, 0.9, 0.05)}

    def __post_init__(self) -> None:
        checks.fractions("postprocess.mask_nms", threshold=self.threshold)
        checks.one_of("postprocess.mask_nms", ("iou", "iom"), overlap=self.overlap)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that no better one suppresses."""
        threshold = candidates.limits("mask_nms.threshold", self.threshold)
        return candidates.select(mask_nms(candidates.pasted(), threshold, self.overlap))


@dataclass(frozen=True)
class Overlaps(Step):
    """Give a pixel of several cells to the best of them; steps before it get every mask whole."""

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that keep pixels, disjoint."""
        masks = candidates.masks if candidates.masks is not None else candidates.pasted()
        return replace(candidates, disjoint=True).with_layers(remove_overlaps(masks)[None])


@dataclass(frozen=True)
class MinArea(Step):
    """Drop cells with fewer pixels than `pixels`; after `overlaps`, of what is left of them."""

    pixels: PerType
    searchable: ClassVar = {"pixels": SearchRange(0, 400, 10)}

    def __post_init__(self) -> None:
        checks.numbers("postprocess.min_area", 0, pixels=self.pixels)

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that are large enough."""
        limit = candidates.limits("min_area.pixels", self.pixels)
        # layers first: cells dropped here leave the others in theirs, wherever this step stands
        return replace(candidates, masks=candidates.layers()).select(candidates.areas() >= limit)

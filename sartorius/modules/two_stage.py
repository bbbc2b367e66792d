"""Two stages: one model detects the cells, a second segments each of their boxes anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.inference.scaled import resized, scaled_size
from sartorius.inference.windows import in_memory
from sartorius.modules.base import SegmentationModule
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.networks.cell_crops import resample, tighten
from sartorius.networks.finite import check_finite
from sartorius.structures import checks
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections, DetectionsFolder

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch
    from sartorius.inference.windows import Windows

COMBINE = ("replace", "mean")
# of the metadata, those of the first stage
_KEPT = ("format_version", "cell_types", "postprocess", "data", "pixel_size", "reading", "config", provenance.OWN)


class StoredDetections(SegmentationModule):
    """The detections of a folder as a first stage; its metadata are those of the folder.

    `detect` raises InputError where the folder lacks an image, or holds one of another size.
    """

    def __init__(self, folder: DetectionsFolder) -> None:
        super().__init__(folder.meta["cell_types"])
        self.folder = folder
        self.hparams.update(folder.meta)

    @property
    def export_settings(self) -> dict[str, Any] | None:
        """Those of the folder."""
        return self.folder.meta.get("export_settings")

    def detect(self, batch: Batch) -> list[Detections]:
        """Load the folder's detections of every image."""
        stored = [self.folder.load(target.image_id) for target in batch.targets]
        for detections, image, target in zip(stored, batch.images, batch.targets, strict=True):
            if scaled_size(detections.height, detections.width, target.scale) != tuple(image.shape[-2:]):
                raise InputError(
                    f"{self.folder.folder}: {detections.image_id} was {detections.width}x{detections.height} pixels "
                    f"when it was predicted, the image here has {image.shape[-1]}x{image.shape[-2]}; predict it again"
                )
        return [resized(detections, *image.shape[-2:]) for detections, image in zip(stored, batch.images, strict=True)]


@constructible
class TwoStageModule(SegmentationModule):
    """Detections of the first stage with the masks of the second; scores and cell types stay. Not trained as a whole.

    first: a module, or a folder of detections that holds every image. second: segments their boxes. min_score:
    detections below it keep their masks, which saves time on those that no threshold lets through. box_probability:
    the second stage is given the boxes around the first's probabilities above it, 0..1; None: the first's own, which
    regions decoded from maps make wider than the annotated ones that it was trained on. combine: `replace`, or `mean`
    of both stages' probabilities in the second's box. mask_size: M of all masks that come out. A box in which the
    second stage finds no cell keeps its mask.
    """

    def __init__(
        self,
        first: SegmentationModule | DetectionsFolder | None,
        second: CropSegmenterModule | None,
        *,
        min_score: float,
        box_probability: float | None,
        combine: str,
        mask_size: int,
    ) -> None:
        if first is None or second is None:
            raise InputError(
                "a two-stage model is put together for predict, from trained parts: model.first=<a checkpoint or a "
                "folder of detections> model.second=<a crop segmenter's checkpoint>"
            )
        if not isinstance(second, CropSegmenterModule):
            raise InputError(
                f"model.second: a {type(second).__name__}, expected a crop segmenter, as experiment=cropseg_*"
            )
        checks.one_of("model", COMBINE, combine=combine)
        stage = StoredDetections(first) if isinstance(first, DetectionsFolder) else first
        super().__init__(stage.cell_type_names)
        self.first, self.second, self.inference = stage, second, stage.inference
        self.min_score, self.box_probability = min_score, box_probability
        self.combine, self.mask_size = combine, mask_size
        model = {
            "_target_": f"{type(self).__module__}.{type(self).__name__}",
            "first": stage.hparams.get("model"),
            "second": second.hparams.get("model"),
            "min_score": min_score,
            "box_probability": box_probability,
            "combine": combine,
            "mask_size": mask_size,
        }
        self.hparams.update({key: stage.hparams[key] for key in _KEPT if key in stage.hparams}, model=model)
        seen = [part.hparams.get(provenance.KEY) or {} for part in (stage, second)]
        self.hparams[provenance.KEY] = {**seen[0], **seen[1]}

    @property
    def export_settings(self) -> dict[str, Any] | None:
        """Those of the first stage."""
        return self.first.export_settings

    def take_capped(self) -> str | None:
        """Name the images of which the first stage did not keep all detections."""
        return self.first.take_capped()

    def change_windows(self, change: Callable[[Windows], Windows]) -> None:
        """Change the windows of the first stage; raises InputError where it is a folder of detections."""
        self.first.change_windows(change)
        self.inference = self.first.inference

    def described(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return `model` with the windows that the first stage has now."""
        return {**model, "first": self.first.described(model["first"])}

    def detect(self, batch: Batch) -> list[Detections]:
        """Detect the cells of every image: NumPy, on the CPU; an image may have none."""
        for image in batch.images:
            in_memory(image, "model=two_stage", "give the checkpoint of one stage")
        first = self.first.detect(batch)
        return [self._segment(image, given) for image, given in zip(batch.images, first, strict=True)]

    def _segment(self, image: Tensor, given: Detections) -> Detections:
        """Segment the detections of an image [1, H, W] anew where the score is high enough."""
        boxes = torch.from_numpy(given.boxes).to(image.device)
        old = torch.from_numpy(given.masks).to(image.device).float()
        same = given.mask_size == self.mask_size
        new_boxes, masks = boxes.clone(), old.clone() if same else resample(old, boxes, boxes, self.mask_size)
        chosen = torch.from_numpy(np.flatnonzero(given.scores >= self.min_score)).to(image.device)
        for part in chosen.split(self.second.crops_at_once):
            prompts = boxes[part]
            if self.box_probability is not None:
                tight, certain = tighten(old[part], prompts, self.box_probability, given.height, given.width)
                prompts = torch.where(certain[:, None], tight, prompts)
            logits = self.second.segment(image, prompts)
            check_finite(f"image {given.image_id}", logits)
            tight, new, filled = self.second.masks(logits, prompts, given.height, given.width, self.mask_size)
            if self.combine == "mean":
                new = (new + resample(old[part], boxes[part], tight, self.mask_size)) / 2
            new_boxes[part[filled]], masks[part[filled]] = tight[filled], new[filled]
        return replace(given, boxes=new_boxes.cpu().numpy(), masks=masks.half().cpu().numpy())

    def configure_optimizers(self) -> Any:
        """Raise InputError: the stages are trained by themselves."""
        raise InputError("a two-stage model is not trained as a whole: train model.first and model.second")

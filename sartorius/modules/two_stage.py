"""Two stages: one model finds the cells, a second segments each of their boxes anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sartorius.errors import InputError
from sartorius.modules.base import SegmentationModule
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.networks.cell_crops import resample, tighten
from sartorius.structures.detections import Detections, DetectionsFolder

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch
    from sartorius.inference.windows import Windows

COMBINE = ("replace", "mean")


class TwoStageModule(SegmentationModule):
    """Detections of the first stage with the masks of the second; scores and cell types stay. Not trained as a whole.

    first: a module with `detect(batch)`, or a folder of detections that holds every image. second: segments their
    boxes. min_score: detections below it keep their masks, which saves time on what no threshold lets through.
    box_probability: the second stage is given the boxes around the first's probabilities above it, 0..1; None: the
    first's own, which regions decoded from maps make wider than the annotated ones that it was trained on.
    combine: `replace`, or `mean` of both stages' probabilities in the second's box. mask_size: M of the masks that come
    out, of those left alone too. A box in which the second stage sees nothing keeps what the first saw.
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
        if combine not in COMBINE:
            raise InputError(f"model.combine={combine}: expected {' or '.join(COMBINE)}")
        stored = isinstance(first, DetectionsFolder)
        known: Mapping[str, Any] = first.meta if stored else first.hparams
        super().__init__(known["cell_types"] if stored else first.cell_type_names)
        self.first, self.second = first, second
        self.min_score, self.box_probability = min_score, box_probability
        self.combine, self.mask_size = combine, mask_size
        self.inference = None if stored else first.inference  # the first stage's
        self._export_settings = known.get("export_settings") if stored else first.export_settings
        self.hparams.update(
            postprocess=known.get("postprocess"),
            data=known.get("data"),
            model={
                "_target_": f"{type(self).__module__}.{type(self).__name__}",
                "first": known.get("model"),
                "second": second.hparams.get("model"),
                "min_score": min_score,
                "box_probability": box_probability,
                "combine": combine,
                "mask_size": mask_size,
            },
        )

    @property
    def export_settings(self) -> dict[str, Any] | None:
        """Those of the first stage."""
        return self._export_settings

    def use_windows(self, windows: Windows) -> None:
        """Let the first stage predict through these windows; raises InputError where it is a folder of detections."""
        super().use_windows(windows)
        if isinstance(self.first, SegmentationModule):
            self.first.use_windows(windows)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detections of every image of the batch."""
        return self.detect(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detections of every image of the batch; callbacks score them."""
        return self.detect(batch)

    def detect(self, batch: Batch) -> list[Detections]:
        """NumPy detections of every image, on the CPU; an image may have none.

        Raises InputError where a folder lacks an image, or holds one of another size.
        """
        return [self._segment(image, given) for image, given in zip(batch.images, self._given(batch), strict=True)]

    def _given(self, batch: Batch) -> list[Detections]:
        if not isinstance(self.first, DetectionsFolder):
            return self.first.detect(batch)
        given = [self.first.load(target.image_id) for target in batch.targets]
        for detections, image in zip(given, batch.images, strict=True):
            if (detections.height, detections.width) != tuple(image.shape[-2:]):
                raise InputError(
                    f"{self.first.folder}: {detections.image_id} was {detections.width}x{detections.height} pixels "
                    f"when it was predicted, the image here has {image.shape[-1]}x{image.shape[-2]}; predict it again"
                )
        return given

    def _segment(self, image: Tensor, given: Detections) -> Detections:
        boxes = torch.from_numpy(given.boxes).to(image.device)
        old = torch.from_numpy(given.masks).to(image.device).float()
        same = given.mask_size == self.mask_size
        new_boxes, masks = boxes.clone(), old.clone() if same else resample(old, boxes, boxes, self.mask_size)
        chosen = torch.from_numpy(np.flatnonzero(given.scores >= self.min_score)).to(image.device)
        for part in chosen.split(self.second.crops_at_once):
            asked = boxes[part]
            if self.box_probability is not None:
                tight, found = tighten(old[part], asked, self.box_probability, given.height, given.width)
                asked = torch.where(found[:, None], tight, asked)
            logits = self.second.segment(image, asked)
            tight, seen, found = self.second.masks(logits, asked, given.height, given.width, self.mask_size)
            if self.combine == "mean":
                seen = (seen + resample(old[part], boxes[part], tight, self.mask_size)) / 2
            new_boxes[part[found]], masks[part[found]] = tight[found], seen[found]
        return replace(given, boxes=new_boxes.cpu().numpy(), masks=masks.half().cpu().numpy())

    def configure_optimizers(self) -> Any:
        """Raises InputError: the stages are trained by themselves."""
        raise InputError("a two-stage model is not trained as a whole: train model.first and model.second")

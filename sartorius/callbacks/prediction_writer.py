"""Detections on disk: what later stages (thresholds, joining, submission) start from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, Validation
from sartorius.data import provenance
from sartorius.modules.base import SegmentationModule
from sartorius.structures.detections import Detections, DetectionsFolder

log = logging.getLogger(__name__)


class PredictionWriter(ImageCallback):
    """Detections in a folder, one file an image: of predictions, and of the best checkpoint's validation.

    folder: of the detections; `meta.json` in it names the model, its data and its post-processing, and with which
    thresholds the detections were written (`export_settings` of the module). meta: further plain entries of meta.json,
    such as the checkpoint or the fold.
    """

    def __init__(self, folder: str | Path, meta: dict[str, Any] | None = None) -> None:
        self.folder = DetectionsFolder(folder)
        self.meta = meta or {}
        self._described = False

    def on_scoring_start(self, validation: Validation) -> None:
        """Delete detections of an earlier best checkpoint: its images and cell types may have been others."""
        if not validation.in_fit:
            validation.clear(self.folder.folder, "*.npz")

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Write an image of the best checkpoint's validation."""
        if not validation.in_fit:
            self._write(validation.trainer, validation.module, [image.detections])

    def on_predict_start(self, trainer: Trainer, pl_module: SegmentationModule) -> None:
        """Write meta.json: it tells whether a command continues this one where it is stopped."""
        if trainer.is_global_zero:
            self._describe(pl_module)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: SegmentationModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Write the images of a batch."""
        self._write(trainer, pl_module, outputs)

    def on_scoring_end(self, validation: Validation) -> None:
        """Warn of images of the best checkpoint's validation that have more detections than are kept."""
        self._tell(validation.module, silent=validation.in_fit)

    def on_predict_end(self, trainer: Trainer, pl_module: SegmentationModule) -> None:
        """Warn of images that have more detections than are kept."""
        self._tell(pl_module)

    def _tell(self, module: SegmentationModule, silent: bool = False) -> None:
        if (capped := module.take_capped()) is not None and not silent:
            log.warning("%s: %s", self.folder.folder, capped)

    def _write(self, trainer: Trainer, pl_module: SegmentationModule, outputs: Sequence[Detections]) -> None:
        if not self._described and trainer.is_global_zero and outputs:
            self._describe(pl_module, mask_size=outputs[0].mask_size)
            self._described = True
        for detections in outputs:
            self.folder.write(detections)

    def _describe(self, module: SegmentationModule, **more: Any) -> None:
        about: dict[str, Any] = {
            "cell_types": list(module.cell_type_names),
            **more,
            **{key: module.hparams.get(key) for key in ("data", "model", "postprocess")},
            "export_settings": module.export_settings,
        }
        own = module.hparams.get(provenance.OWN)  # the option of `predict`, where the module is a folder of detections
        if isinstance(own, Mapping) and own.get("training"):
            about[provenance.COUNT] = len(own["training"])  # for the curve over rounds of labelling
        self.folder.write_meta(**{**about, **self.meta})

"""Overlay PNGs: the quickest way to see what a model gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import true_cells
from sartorius.callbacks.gather import gather_images
from sartorius.data.dataset import Batch
from sartorius.files import atomic_path
from sartorius.loggers.protocol import logged_step, loggers_with
from sartorius.loggers.tolerant import Tolerance
from sartorius.metrics.functional import average_precision_per_image, image_row
from sartorius.postprocess.finalise import Finalised
from sartorius.structures.detections import Detections
from sartorius.visualise.overlays import Image, draw_comparison, draw_overlay


class Overlays(Callback):
    """Draws cells over images: truth beside prediction when validating, the prediction alone when predicting.

    Files: `<folder>/<image>.png`, and `<folder>/epoch_<n>/<image>.png` during a fit, which a full disk does not
    stop. Loggers that take images (W&B, TensorBoard) get the validation images too.

    Args:
        folder: where the PNGs go.
        postprocess: turns Detections into Finalised.
        images: validation images drawn, always the same ones (the first of the set); None for all.
        every_n_epochs: also draw them during the fit, each so many epochs; 0 for never.
        scale: enlargement, so that labels fit beside small cells.
    """

    def __init__(
        self,
        folder: str | Path,
        postprocess: Callable[[Detections], Finalised],
        images: int | None = 4,
        every_n_epochs: int = 0,
        scale: int = 2,
    ) -> None:
        self.folder = Path(folder)
        self.postprocess = postprocess
        self.images = images
        self.every_n_epochs = every_n_epochs
        self.scale = scale
        self._seen = 0  # images, by this process
        self._drawn: dict[int, tuple[str, Image]] = {}  # by index, for loggers
        self.tolerance = Tolerance(str(self.folder), "Overlays of the training may be missing", OSError)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the images of this epoch from zero."""
        self._seen, self._drawn = 0, {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Detections],
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        """Draw the first images of the set, truth beside prediction."""
        if not self._due(trainer):
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        folder = self.folder / f"epoch_{trainer.current_epoch:03d}" if fitting else self.folder
        for image, target, detections in zip(batch.images, batch.targets, outputs, strict=True):
            place = self._seen * trainer.world_size + trainer.global_rank  # in the set, which is dealt out in turn
            self._seen += 1
            if self.images is not None and place >= self.images:
                return
            cells, found = true_cells(target), self.postprocess(detections)
            row = image_row(target.index, found.instances, cells)
            title = f"{target.image_id}  {float(average_precision_per_image(row[None])[0]):.3f}"
            names = detections.cell_type_names
            drawing = draw_comparison(
                grey(image), cells, found.instances, found.scores, names, title=title, scale=self.scale
            )
            with self.tolerance if fitting else nullcontext():
                write_png(folder / f"{target.image_id}.png", drawing)
            if loggers_with(trainer, "log_image"):
                self._drawn[target.index] = (target.image_id, drawing)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the drawings to loggers that take images; a collective call."""
        drawn, self._drawn = gather_images(self._drawn), {}
        for index in sorted(drawn) if trainer.is_global_zero else ():
            _log_image(trainer, f"overlay/{drawn[index][0]}", drawn[index][1])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Detections],
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        """Draw every image."""
        for image, detections in zip(batch.images, outputs, strict=True):
            found = self.postprocess(detections)
            names = detections.cell_type_names
            drawing = draw_overlay(grey(image), found.instances, found.scores, names, scale=self.scale)
            write_png(self.folder / f"{detections.image_id}.png", drawing)

    def _due(self, trainer: Trainer) -> bool:
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        if trainer.sanity_checking or self.every_n_epochs == 0:
            return False
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0


def grey(image: Any) -> Any:
    """The uint8 [H, W] array of a batch's uint8 [1, H, W] tensor."""
    return image[0].cpu().numpy()


def write_png(path: Path, image: Image) -> None:
    """Write an RGB image atomically; raises OSError when it cannot be written."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise OSError(f"{path}: OpenCV could not encode an image of shape {image.shape}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _log_image(trainer: Trainer, key: str, image: Image) -> None:
    for logger in loggers_with(trainer, "log_image"):
        logger.log_image(key=key, images=[image], step=logged_step(trainer))

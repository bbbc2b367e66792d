"""The images of the validation set as a table that can be sorted, of the best checkpoint."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import Scored, scored_batch
from sartorius.callbacks.gather import gather_images
from sartorius.callbacks.overlays import grey
from sartorius.loggers.protocol import logged_step, loggers_with
from sartorius.visualise.overlays import Image, draw_comparison

COLUMNS = [
    "image_id",
    "cell_type",
    "average_precision",
    "cells",
    "predictions",
    "found_at_0.50",
    "truth and prediction",
]


class ImageTable(Callback):
    """Hands a table to the loggers that show one when the best checkpoint is validated after a fit.

    A row an image, the worst first: its id, type, average precision, cells, predictions, true positives at an IoU of
    0.5, and a preview with truth beside prediction. Of several processes only the first draws previews, of the images
    that it validates. Nothing happens without such a logger, and without `CompetitionMap` before this one.

    Args:
        previews: images that get a preview, the first of the set; null for all.
    """

    def __init__(self, previews: int | None) -> None:
        self.previews = previews

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no rows."""
        self._rows: dict[int, list[Any]] = {}
        self._drawn: dict[int, Image] = {}

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Add the images of a batch."""
        if trainer.state.fn != TrainerFn.VALIDATING or not loggers_with(trainer, "log_table"):
            return
        for scored in scored_batch(trainer):
            index = scored.target.index
            self._rows[index] = _row(scored)
            if trainer.is_global_zero and (self.previews is None or len(self._drawn) < self.previews):
                self._drawn[index] = draw_comparison(
                    grey(scored.image), scored.cells, scored.found.instances, None, scored.names, scale=1
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the table over; a collective call."""
        loggers = loggers_with(trainer, "log_table")
        if trainer.state.fn != TrainerFn.VALIDATING or not loggers:
            return
        rows = gather_images(self._rows)
        if rows and trainer.is_global_zero:
            worst_first = sorted(rows, key=lambda index: (rows[index][2], index))
            data = [[*rows[index], self._drawn.get(index)] for index in worst_first]
            for logger in loggers:
                logger.log_table("images_best", columns=COLUMNS, data=data, step=logged_step(trainer))
        self._rows, self._drawn = {}, {}


def _row(scored: Scored) -> list[Any]:
    target, row = scored.target, scored.row.tolist()
    return [target.image_id, target.cell_type or "unknown", scored.average_precision, row[-1], row[-2], row[1]]

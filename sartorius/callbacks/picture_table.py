"""The pictures of the validation set as a table that can be sorted, of the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import Scored, scored_batch
from sartorius.callbacks.gather import gather_pictures
from sartorius.callbacks.overlays import grey
from sartorius.callbacks.run_loggers import logged_step, loggers_with
from sartorius.data.dataset import Batch
from sartorius.detections import Detections
from sartorius.visualise import Image, draw_comparison

COLUMNS = ["picture", "cell_type", "average_precision", "cells", "predictions", "found_at_0.50", "truth and prediction"]


class PictureTable(Callback):
    """Hands a table to the loggers that show one when the best checkpoint is validated after a fit.

    A row a picture, the worst first: its id, type, average precision, cells, predictions, true positives at an IoU of
    0.5, and a preview with truth beside prediction. Of several processes only the first draws previews, of the pictures
    that it validates. Nothing happens without such a logger, and without `CompetitionMap` before this one.

    Args:
        previews: pictures that get a preview, the first of the set; null for all.
    """

    def __init__(self, previews: int | None) -> None:
        self.previews = previews

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no rows."""
        self._rows: dict[int, list[Any]] = {}
        self._drawn: dict[int, Image] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Detections],
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        """Add the pictures of a batch."""
        if trainer.state.fn != TrainerFn.VALIDATING or not loggers_with(trainer, "log_table"):
            return
        for image, scored in zip(batch.images, scored_batch(trainer), strict=False):
            index = scored.target.index
            self._rows[index] = _row(scored)
            if trainer.is_global_zero and (self.previews is None or len(self._drawn) < self.previews):
                self._drawn[index] = draw_comparison(
                    grey(image), scored.cells, scored.found.instances, None, scored.names, scale=1
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the table over; a collective call."""
        loggers = loggers_with(trainer, "log_table")
        if trainer.state.fn != TrainerFn.VALIDATING or not loggers:
            return
        rows = gather_pictures(self._rows)
        if rows and trainer.is_global_zero:
            worst_first = sorted(rows, key=lambda index: (rows[index][2], index))
            data = [[*rows[index], self._drawn.get(index)] for index in worst_first]
            for logger in loggers:
                logger.log_table("pictures_best", columns=COLUMNS, data=data, step=logged_step(trainer))
        self._rows, self._drawn = {}, {}


def _row(scored: Scored) -> list[Any]:
    target, row = scored.target, scored.row.tolist()
    return [target.picture, target.cell_type or "unknown", scored.average_precision, row[-1], row[-2], row[1]]

"""The validation images of the best checkpoint as a table that a dashboard sorts."""

from __future__ import annotations

from typing import Any

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, Validation, gather_images
from sartorius.loggers.protocol import TableLogger, logged_step, loggers_with
from sartorius.structures.arrays import ColourImage
from sartorius.visualise.overlays import draw_comparison

COLUMNS = [
    "image_id",
    "cell_type",
    "average_precision",
    "cells",
    "predictions",
    "true_positives_50",
    "truth and prediction",
]


class ImageTable(ImageCallback):
    """A table for the loggers of tables, handed over when the best checkpoint is validated after a fit.

    A row an image, the worst first: its id, type, average precision, cells, predictions, true positives at an IoU of
    0.5, and a preview with truth beside prediction. Of several processes only the first draws previews, of the images
    that it validates. Without such a logger it does nothing.

    previews: images that get a preview, the first of the set; null for all.
    """

    def __init__(self, previews: int | None) -> None:
        self.previews = previews

    def on_scoring_start(self, validation: Validation) -> None:
        """Start with no rows."""
        self._loggers = [] if validation.in_fit else loggers_with(validation.trainer, TableLogger)
        self._rows: dict[int, list[Any]] = {}
        self._drawn: dict[int, ColourImage] = {}

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Add the row of an image."""
        if not self._loggers:
            return
        row = image.row.tolist()
        self._rows[image.index] = [
            image.image_id, image.cell_type, image.average_precision, row[-1], row[-2], row[1]
        ]  # fmt: skip
        if validation.trainer.is_global_zero and (self.previews is None or len(self._drawn) < self.previews):
            names = image.detections.cell_type_names
            self._drawn[image.index] = draw_comparison(
                image.grey, image.cells, image.prediction.instances, None, names, scale=1
            )

    def on_scoring_end(self, validation: Validation) -> None:
        """Hand the table over; a collective call."""
        if not self._loggers:
            return
        rows = gather_images(self._rows)
        if rows and validation.trainer.is_global_zero:
            worst_first = sorted(rows, key=lambda index: (rows[index][2], index))
            data = [[*rows[index], self._drawn.get(index)] for index in worst_first]
            for logger in self._loggers:
                logger.log_rows("images_best", COLUMNS, data, logged_step(validation.trainer))
        self._rows, self._drawn = {}, {}

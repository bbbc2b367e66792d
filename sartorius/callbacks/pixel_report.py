"""Pixel scores of the foreground, at every validation and in the test stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.scored_images import gather_images
from sartorius.data.dataset import Batch
from sartorius.errors import InputError
from sartorius.files import write_csv
from sartorius.metrics.pixels import PixelScores, per_image_table, print_table, summary
from sartorius.modules.base import ForegroundModule

_LOGGED = ("dice", "iou", "pooled_dice", "pooled_iou", "accuracy", "bce", "confluence_error")  # of `summary`


class PixelReport(Callback):
    """Scores of the module's foreground probabilities against all annotated cells together, on whole images.

    Needs a ForegroundModule. Logs means over images: val/dice, val/iou, val/pixel_accuracy, val/bce (nats a pixel) and
    val/confluence_error (absolute difference of the true and the predicted covered share, 0..1); and val/pooled_dice,
    val/pooled_iou, the pixels of all images counted together. In the test stage it is test/... Lightning's sanity
    check is not scored, nor are pixels that nobody has labelled.

    Files: `<folder>/pixels_val.csv` of the best checkpoint and `<folder>/pixels_test.csv`, a line an image; the means
    are printed as a table.

    folder: of the run. threshold: probability above which a pixel is predicted to be foreground.
    """

    def __init__(self, folder: str | Path, threshold: float = 0.5) -> None:
        self.folder = Path(folder)
        self.threshold = threshold
        self.results: dict[str, float] = {}  # of the last validation or test, as is the table
        self.table = pd.DataFrame()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no images."""
        self._scores = PixelScores(self.threshold).to(pl_module.device)
        self._names: dict[int, tuple[str, str]] = {}  # index -> image, cell type

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *_: Any, **__: Any
    ) -> None:
        """Compare each image's foreground with its cells; raises InputError where the module gives none."""
        if not isinstance(pl_module, ForegroundModule):
            raise InputError(
                "callbacks.pixel_report needs a module that keeps the `foreground` of its last batch, and "
                f"{type(pl_module).__name__} does not; leave the report out with callbacks=default"
            )
        if trainer.sanity_checking:
            return
        for foreground, target in zip(pl_module.foreground, batch.targets, strict=True):
            self._scores.update(target.index, foreground.detach(), (target.layers > 0).any(dim=0), target.ignored)
            self._names[target.index] = (target.image_id, target.cell_type or "unknown")

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores, and write and print them unless this is a validation within a fit; a collective call."""
        if trainer.sanity_checking:
            return
        rows, bce = self._scores.gathered()
        names = gather_images(self._names)
        if not len(rows):
            return
        stage = "test" if trainer.state.fn == TrainerFn.TESTING else "val"
        values = summary(rows, bce)
        self.results = {f"{stage}/{'pixel_' * (name == 'accuracy')}{name}": values[name] for name in _LOGGED}
        images, cell_types = zip(*(names[index] for index in rows[:, 0].tolist()), strict=True)
        self.table = per_image_table(rows, bce, images, cell_types)
        fitting = trainer.state.fn == TrainerFn.FITTING  # the curve of the fit ends with the fit
        pl_module.log_dict(self.results, logger=fitting, batch_size=len(rows))
        if trainer.is_global_zero and not fitting:
            write_csv(self.folder / f"pixels_{stage}.csv", self.table)
            print_table(f"{stage}: pixels of cells", self.table)

    on_test_epoch_end = on_validation_epoch_end

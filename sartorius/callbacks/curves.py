"""Loss and scores over the epochs, drawn when the fit ends."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.loggers.tolerant import SuppressErrors
from sartorius.reports.curves import draw_curves, read_numbers


class Curves(Callback):
    """A plot of `<folder>/metrics.csv`, as `<folder>/plots/curves.png`; none where that holds no curve.

    Where `<folder>/batches.csv` holds the loss of every batch, it is drawn in place of the logged steps.

    folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what was logged so far."""
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            numbers, batches = (read_numbers(self.folder / name) for name in ("metrics.csv", "batches.csv"))
            path = self.folder / "plots" / "curves.png"
            with SuppressErrors(str(path), "It is not drawn", OSError):  # the best checkpoint is yet to be validated
                draw_curves(numbers, path, batches)

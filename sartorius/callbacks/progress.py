"""The progress bar, and one line an epoch that stays in a log file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar

_TERM = "train/loss_"  # how modules log the terms of their loss


class Progress(TQDMProgressBar):
    """Lightning's bar with losses and the score, without the version number; afterwards a line for the epoch.

    Where the output is no terminal the bars are left out and only the lines are printed.

    Args:
        refresh_rate: steps between updates of the bar.
        monitor: the metric that decides on the best checkpoint; the epoch's line names it beside val/map.
    """

    def __init__(self, refresh_rate: int = 1, monitor: str | None = None) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stderr.isatty() else 0)
        self.monitor = monitor
        self._validated = False  # in the present epoch

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What the bar shows: the metrics logged with `prog_bar=True`, and each term of the loss by its name."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        terms = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(_TERM)}
        return {**metrics, **{name.removeprefix(_TERM): f"{value:.3f}" for name, value in terms.items()}}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch has a score."""
        super().on_validation_end(trainer, pl_module)
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line, where something was measured in it."""
        super().on_train_epoch_end(trainer, pl_module)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if not self._validated:  # Lightning keeps the scores of an earlier epoch
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val/")}
        self._validated = False
        line = epoch_line(trainer.current_epoch, metrics, self.monitor)
        if trainer.is_global_zero and line:
            self.print(line)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above a live bar, or plainly without one."""
        if self.is_disabled:
            print(*args, sep=sep, file=sys.stderr, flush=True)
        else:
            super().print(*args, sep=sep, **kwargs)


def epoch_line(epoch: int, metrics: Mapping[str, float], monitor: str | None = None) -> str:
    """Such as "epoch 3: train/loss 1.21, val/loss 0.94, val/map 0.253": those of the training loss, `monitor` and
    val/map that were measured; "" when none was."""
    names = dict.fromkeys(("train/loss", monitor or "val/map", "val/map"))
    shown = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    return f"epoch {epoch}: {', '.join(shown)}" if shown else ""

"""The progress bar, or lines in its place, and one line an epoch that stays in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from sartorius.structures.progress import SECONDS, Clock, ProgressLines

_TERM = "train/loss_"  # how modules log the terms of their loss


class Progress(TQDMProgressBar):
    """Lightning's bar with losses and the score, without the version number; afterwards a line for the epoch.

    Where the output is no terminal the bars are left out, and lines are printed: after the first training batch and
    every few seconds, at validation, test and prediction too.

    refresh_rate: steps between updates of the bar. monitor: the metric that decides on the best checkpoint; the epoch's
    line names it beside val/map. seconds: between lines in place of the bar. They come between batches, a slow one
    delays them. clock: seconds from any start.
    """

    def __init__(
        self,
        refresh_rate: int = 1,
        monitor: str | None = None,
        seconds: float = SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stderr.isatty() else 0)
        self.monitor = monitor
        self._lines = ProgressLines(seconds, clock)
        self._started = False  # a training batch is done
        self._losses: list[Tensor] = []  # of the epoch's batches; they stay on the device
        self._validated = False  # in the present epoch

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics of the bar: those logged with `prog_bar=True`, and each term of the loss by its name."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        terms = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(_TERM)}
        return {**metrics, **{name.removeprefix(_TERM): f"{value:.3f}" for name, value in terms.items()}}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line where one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if (value := trainer.callback_metrics.get("train/loss")) is not None:
            self._losses.append(value.detach())

        def loss() -> str:
            return "" if value is None else f", train/loss {float(value):.4g}"

        self._print_line(
            trainer, f"epoch {trainer.current_epoch}: batch", batch_idx + 1, trainer.num_training_batches,
            batches_left(trainer, batch_idx + 1), loss, now=not self._started,
        )  # fmt: skip
        self._started = True

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Print a line where one is due."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        sizes = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._print_line(trainer, "validation: batch", batch_idx + 1, sizes[dataloader_idx])

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Print a line where one is due."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._print_line(trainer, "test: batch", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Print a line where one is due."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._print_line(trainer, "prediction: batch", batch_idx + 1, trainer.num_predict_batches[dataloader_idx])

    def _print_line(
        self, trainer: Trainer, loop: str, done: int, total: float, left: int | None = None,
        shown: Callable[[], str] = str, now: bool = False,
    ) -> None:  # fmt: skip
        if not self.is_disabled or not trainer.is_global_zero:
            return
        if line := self._lines.step(loop, done, int(total), left, shown, now):
            self.print(line)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch has a score."""
        super().on_validation_end(trainer, pl_module)
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line, with the mean loss of its batches, where something was measured in it."""
        super().on_train_epoch_end(trainer, pl_module)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if self._losses:
            metrics["train/loss"] = float(torch.stack(self._losses).mean())
        self._losses = []
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


def batches_left(trainer: Trainer, done: int) -> int:
    """Return the batches that a fit has left after `done` of the present epoch; those of the epoch if it has no end."""
    epoch = int(trainer.num_training_batches)
    left = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        left.append((trainer.max_epochs - trainer.current_epoch) * epoch - done)
    if trainer.max_steps >= 0:
        left.append((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    return max(min(left, default=epoch - done), 0)


def epoch_line(epoch: int, metrics: Mapping[str, float], monitor: str | None = None) -> str:
    """Return a line such as "epoch 3: train/loss 1.21, val/loss 0.94, val/map 0.253", with those of the training loss,
    `monitor` and val/map that were measured; "" when none was."""
    names = dict.fromkeys(("train/loss", monitor or "val/map", "val/map"))
    shown = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    return f"epoch {epoch}: {', '.join(shown)}" if shown else ""

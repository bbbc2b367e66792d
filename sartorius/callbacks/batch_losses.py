"""batches.csv: the losses of every batch, while the training runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from sartorius.loggers.growing_csv import CsvRow, GrowingCsv, read_rows
from sartorius.loggers.protocol import logged_step
from sartorius.loggers.tolerant import SuppressErrors

_PLACE = ("epoch", "step", "batch")
_PREFIX = "train/"  # of the losses of a batch


class BatchLosses(Callback):
    """Rows of `<folder>/batches.csv`: epoch, step, batch (of the epoch), every `train/` loss of the batch, lr.

    step is that of metrics.csv; lr the highest learning rate of the batch's step. Rows are added at the end of the
    file, which is written anew only where a new loss appears. A resumed run keeps the rows before the batch at which
    it continues. Losses stay on the device until rows are written: nothing waits for it in between. With several
    processes the losses are those of the first. Rows that cannot be written are kept and tried again.

    folder: of the run. rows: batches after which rows are written. seconds: time after which they are written, if that
    comes first; a killed run loses no more.
    """

    def __init__(self, folder: str | Path, rows: int, seconds: float) -> None:
        self.path = Path(folder) / "batches.csv"
        self.rows, self.seconds = rows, seconds
        self.suppress_errors = SuppressErrors(str(self.path), "Rows wait in memory until they can be written", OSError)
        self._file = GrowingCsv(self.path, _place_first)
        self._batches: list[tuple[CsvRow, dict[str, Tensor]]] = []  # not formatted yet: place and rate, losses

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of the resumed run."""
        if trainer.is_global_zero:
            # between epochs the counter is still that of the last one
            done: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            first = (trainer.current_epoch, done.ready if trainer.fit_loop.restarted_mid_epoch else 0)
            with self.suppress_errors:
                rows = [row for row in read_rows(self.path, _PLACE) if (row["epoch"], row["batch"]) < first]
                self._file.restart(rows)
                if not rows:
                    self.path.unlink(missing_ok=True)
                self._file.save()
        self._written = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the place, and the rate before the schedule's step."""
        if trainer.is_global_zero:
            rate = max((group["lr"] for o in trainer.optimizers for group in o.param_groups), default=0.0)
            place = {"epoch": trainer.current_epoch, "step": logged_step(trainer), "batch": batch_idx}
            self._now = {**place, "lr": f"{rate:.6g}"}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Take the losses; write rows when it is time."""
        if not trainer.is_global_zero:
            return
        metrics = sorted(trainer.callback_metrics.items())
        losses = {k: v.detach() for k, v in metrics if k.startswith(_PREFIX) and v.numel() == 1}
        self._batches.append((self._now, losses))
        if len(self._batches) >= self.rows or time.monotonic() - self._written >= self.seconds:
            self.write()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows, so that the file agrees with the checkpoint of the epoch."""
        self.write()

    on_train_end = on_train_epoch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the rows."""
        with suppress(RuntimeError):  # a broken GPU hands over nothing; its own error is on its way
            self.write()

    def write(self) -> None:
        """Add the rows to the file; on a failure they wait."""
        self._written = time.monotonic()
        flat = [value.reshape(()).float() for _, losses in self._batches for value in losses.values()]
        values = iter(torch.stack(flat).tolist() if flat else [])  # one transfer from the device for all
        for row, losses in self._batches:
            self._file.rows.append({**row, **{name: f"{next(values):.6g}" for name in losses}})
        self._batches = []
        with self.suppress_errors:
            self._file.save()


def _place_first(names: Sequence[str]) -> list[str]:
    """Order columns: place, losses as they came, lr."""
    return [*_PLACE, *(name for name in names if name not in (*_PLACE, "lr")), "lr"]

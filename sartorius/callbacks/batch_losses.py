"""batches.csv: the losses of every batch, while the training runs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from sartorius.files import write_text
from sartorius.loggers.protocol import logged_step
from sartorius.loggers.tolerant import Tolerance

_PLACE = ["epoch", "step", "batch"]
_PREFIX = "train/"  # how modules log what a batch cost


class BatchLosses(Callback):
    """Writes `<folder>/batches.csv`: epoch, step, batch (of the epoch), every `train/` loss of the batch, lr.

    step is that of metrics.csv; lr the highest rate with which the batch was learned. Rows are added at the end of the
    file; only where a new loss appears it is written anew. A resumed run keeps the rows before the batch at which it
    goes on. Losses stay on the device until rows are written: nothing waits for it in between. With several processes
    the losses are those of the first. What cannot be written is kept and tried again.

    Args:
        folder: of the run.
        rows: batches after which rows are written.
        seconds: time after which they are written, if that comes first; a killed run loses no more.
    """

    def __init__(self, folder: str | Path, rows: int, seconds: float) -> None:
        self.path = Path(folder) / "batches.csv"
        self.rows, self.seconds = rows, seconds
        lost = "Rows wait in memory until they can be written"
        self.tolerance = Tolerance(str(self.path), lost, OSError)
        self._places: list[tuple[int, int, int]] = []  # of rows that are not written yet, as are the two below
        self._rates: list[float] = []
        self._losses: list[dict[str, Tensor]] = []
        self._lines: list[str] = []  # rows as text that could not be written yet
        self._columns: list[str] = []
        self._size = 0  # of the file, bytes; what lies behind is half a row

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of the run that is resumed."""
        if trainer.is_global_zero:
            with self.tolerance:
                # between epochs the counter is still that of the last one
                done: Any = trainer.fit_loop.epoch_loop.batch_progress.current
                self._continue(trainer.current_epoch, done.ready if trainer.fit_loop.restarted_mid_epoch else 0)
        self._written = time.monotonic()

    def _continue(self, epoch: int, batch: int) -> None:
        self._columns, self._size = [], 0
        table = read_batches(self.path)
        kept = table[(table.epoch < epoch) | ((table.epoch == epoch) & (table.batch < batch))] if len(table) else table
        if kept.empty:
            self.path.unlink(missing_ok=True)
            return
        self._columns = [str(name) for name in kept if name not in (*_PLACE, "lr")]
        self._lines = kept.to_csv(index=False, header=False, lineterminator="\n").splitlines(keepends=True)
        self._append()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the place, and the rate before the schedule's step."""
        if trainer.is_global_zero:
            self._now = (trainer.current_epoch, logged_step(trainer), batch_idx)
            self._rate = max((group["lr"] for o in trainer.optimizers for group in o.param_groups), default=0.0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Take the losses; write rows when it is time."""
        if not trainer.is_global_zero:
            return
        found = {k: v.detach() for k, v in trainer.callback_metrics.items() if k.startswith(_PREFIX) and v.numel() == 1}
        self._places.append(self._now)
        self._rates.append(self._rate)
        self._losses.append(found)
        if len(self._places) >= self.rows or time.monotonic() - self._written >= self.seconds:
            self.write()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is, so that the file agrees with the checkpoint of the epoch."""
        self.write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what there is."""
        with suppress(RuntimeError):  # a broken GPU hands over nothing; its own error is on its way
            self.write()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is."""
        self.write()

    def write(self) -> None:
        """Add the rows to the file; on a failure they wait."""
        self._written = time.monotonic()
        with self.tolerance:
            self._add_columns(sorted({name for losses in self._losses for name in losses} - {*self._columns}))
            self._lines += self._formatted()
            if self._lines:
                self._append()

    def _add_columns(self, new: list[str]) -> None:
        if not new:
            return
        if self._size:
            names = [*_PLACE, *self._columns, *new, "lr"]
            table = read_batches(self.path).reindex(columns=names)
            write_text(self.path, table.to_csv(index=False, lineterminator="\n"))
            self._size = self.path.stat().st_size
        parts = (line.rpartition(",") for line in self._lines)  # the rate stands last
        self._lines = [f"{front},{',' * len(new)}{rate}" for front, _, rate in parts]
        self._columns += new

    def _formatted(self) -> list[str]:
        """The rows as text, each a line; one transfer from the device for all."""
        flat = [losses[name] for losses in self._losses for name in self._columns if name in losses]
        values = iter(torch.stack([v.reshape(()).float() for v in flat]).tolist() if flat else [])
        lines = []
        for place, losses, rate in zip(self._places, self._losses, self._rates, strict=True):
            fields = [f"{next(values):.6g}" if name in losses else "" for name in self._columns]
            lines.append(",".join([*map(str, place), *fields, f"{rate:.6g}"]) + "\n")
        self._places, self._losses, self._rates = [], [], []
        return lines

    def _append(self) -> None:
        text = "".join(self._lines)
        if self._size:
            with open(self.path, "r+b") as file:
                file.seek(self._size)
                file.write(text.encode())
                file.truncate()
        else:
            write_text(self.path, ",".join([*_PLACE, *self._columns, "lr"]) + "\n" + text)
        self._size, self._lines = os.path.getsize(self.path), []


def read_batches(path: Path) -> pd.DataFrame:
    """The whole rows of a batches.csv; empty without one, or where it is something else."""
    try:
        text = path.read_bytes()
        table = pd.read_csv(path, nrows=text.count(b"\n") - 1)  # a killed run may have left half a row
    except (FileNotFoundError, ValueError):
        return pd.DataFrame()
    return table if {*_PLACE} <= {*table} else pd.DataFrame()

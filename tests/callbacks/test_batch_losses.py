"""batches.csv: whole rows, each batch once, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from sartorius.callbacks.batch_losses import BatchLosses
from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.callbacks.checkpoints import LastCheckpoint
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.files import write_text
from sartorius.loggers import growing_csv
from sartorius.loggers.csv import CSVLog
from sartorius.loggers.growing_csv import GrowingCsv
from tests.doubles import ToyModule

EPOCHS = 3
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")


class Stop(pl.Callback):
    """Sends Ctrl-C after a batch, or in the validation of its epoch."""

    def __init__(self, epoch: int, batch: int, hook: str = "train") -> None:
        self.place = (epoch, batch, hook)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx, "train") == self.place:
            os.kill(os.getpid(), signal.SIGINT)

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx, "val") == self.place and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def fit(
    root: Path, folder: Path, *more: pl.Callback, resume: Path | None = None, rows: int = 2, accumulate: int = 1
) -> ToyModule:
    callbacks = [BatchLosses(folder, rows, 1e9), *more, LastCheckpoint(folder)]
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        logger=CSVLog(folder / "metrics.csv"), log_every_n_steps=1, callbacks=callbacks,
        plugins=[AtomicCheckpointIO()], accumulate_grad_batches=accumulate,
    )  # fmt: skip
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = ToyModule()
    data = SupervisedDataModule(root, batch_size=2, fold=0, n_folds=4)
    trainer.fit(module, data, ckpt_path=resume, **({"weights_only": False} if resume else {}))
    return module


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_every_batch_has_a_row_that_agrees_with_the_log(tiny_competition: Path, tmp_path: Path, rows: int) -> None:
    fit(tiny_competition, tmp_path, rows=rows)
    table = pd.read_csv(tmp_path / "batches.csv")
    assert list(table) == ["epoch", "step", "batch", "train/loss", "lr"]
    batches = len(table) // EPOCHS
    assert table.step.tolist() == list(range(EPOCHS * batches))
    assert table.batch.tolist() == list(range(batches)) * EPOCHS
    logged = pd.read_csv(tmp_path / "metrics.csv").dropna(subset="train/loss")
    assert logged.step.tolist() == table.step.tolist()
    assert logged["train/loss"].tolist() == pytest.approx(table["train/loss"].tolist(), rel=1e-5)
    assert set(table.lr) == {0.1}


def test_batches_of_one_step_have_a_row_each(tiny_competition: Path, tmp_path: Path) -> None:
    fit(tiny_competition, tmp_path, accumulate=2)
    table = pd.read_csv(tmp_path / "batches.csv")
    assert not table.duplicated(["epoch", "batch"]).any()
    assert table.step.nunique() < len(table)
    assert table.step.is_monotonic_increasing


@pytest.mark.filterwarnings("ignore:.*the run was over")
@pytest.mark.parametrize(
    ("epoch", "batch", "hook"), [(0, 0, "train"), (1, 1, "train"), (1, 3, "train"), (1, 0, "val"), (2, 4, "train")]
)
def test_a_resumed_run_has_each_batch_once(
    tiny_competition: Path, tmp_path: Path, epoch: int, batch: int, hook: str
) -> None:
    fit(tiny_competition, tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tiny_competition, tmp_path / "part", Stop(epoch, batch, hook))
    whole, part = (tmp_path / name / "batches.csv" for name in ("whole", "part"))
    if epoch < EPOCHS - 1:  # there is nothing to go on with otherwise
        with open(part, "a") as file:  # what a kill may have left: rows after the checkpoint, and half of one
            file.write("9,99,9,0.5,0.1\n2,1")
    fit(tiny_competition, tmp_path / "part", resume=tmp_path / "part" / "last.ckpt")
    pd.testing.assert_frame_equal(pd.read_csv(whole), pd.read_csv(part))


def test_a_new_run_in_the_folder_starts_anew(tiny_competition: Path, tmp_path: Path) -> None:
    (tmp_path / "batches.csv").write_text("epoch,step,batch,old,lr\n0,0,0,1,1\n")
    fit(tiny_competition, tmp_path)
    assert "old" not in pd.read_csv(tmp_path / "batches.csv")


def test_a_full_disk_stops_nothing_and_loses_nothing(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tiny_competition, tmp_path / "whole")

    class Full(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 1:
                monkeypatch.setattr(GrowingCsv, "save", half_a_row)
            else:
                monkeypatch.undo()

    save = GrowingCsv.save

    def half_a_row(self: GrowingCsv) -> None:
        if self.path.name != "batches.csv":
            return save(self)
        with open(self.path, "ab") as file:
            file.write(b"1,7")
        raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    with pytest.warns(UserWarning, match="batches.csv failed .*No space left.*wait in memory"):
        fit(tiny_competition, tmp_path / "full", Full())
    texts = [(tmp_path / name / "batches.csv").read_text() for name in ("whole", "full")]
    assert texts[0] == texts[1]


def test_a_full_disk_when_a_run_is_resumed_costs_no_earlier_row(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tiny_competition, tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tiny_competition, tmp_path / "part", Stop(1, 0, "val"))

    class Full(pl.Callback):  # after BatchLosses has read its file
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            monkeypatch.undo()

    monkeypatch.setattr(growing_csv, "write_text", no_space)
    with pytest.warns(UserWarning, match="batches.csv failed .*No space left"):
        fit(tiny_competition, tmp_path / "part", Full(), resume=tmp_path / "part" / "last.ckpt")
    whole, part = (pd.read_csv(tmp_path / name / "batches.csv") for name in ("whole", "part"))
    pd.testing.assert_frame_equal(whole, part)


def no_space(path: Path, text: str) -> None:
    if path.name != "batches.csv":
        return write_text(path, text)
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_broken_gpu_keeps_its_own_error(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            monkeypatch.setattr(torch, "stack", broken)
            raise ZeroDivisionError("the cause")

    with pytest.raises(ZeroDivisionError, match="the cause"):
        fit(tiny_competition, tmp_path, Fails(), rows=1000)


def test_a_loss_that_appears_late_gets_a_column(tiny_competition: Path, tmp_path: Path) -> None:
    class Late(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1:
                module.log("train/extra", float(batch_idx), batch_size=1)

    fit(tiny_competition, tmp_path, Late(), rows=1)
    table = pd.read_csv(tmp_path / "batches.csv")
    assert list(table) == ["epoch", "step", "batch", "train/loss", "train/extra", "lr"]
    extra = table[table.epoch == 1]
    assert extra["train/extra"].tolist() == extra.batch.tolist()
    assert table[table.epoch == 0]["train/extra"].isna().all()

from __future__ import annotations

import errno
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from sartorius.callbacks.weight_averaging import EMA
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.errors import InputError
from tests.doubles import ToyModule

EPOCHS = 3


class Interrupt(pl.Callback):
    """Sends Ctrl-C in an epoch: in a training batch, or in a validation batch."""

    def __init__(self, epoch: int, batch: int, hook: str) -> None:
        self.epoch, self.batch, self.hook = epoch, batch, hook

    def _maybe(self, hook: str, trainer: pl.Trainer, batch_idx: int) -> None:
        if (hook, trainer.current_epoch, batch_idx) == (
            self.hook,
            self.epoch,
            self.batch,
        ) and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._maybe("train", trainer, batch_idx)

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._maybe("val", trainer, batch_idx)


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    """Lightning leaves Ctrl-C ignored after an interrupt."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def fit(
    root: Path, folder: Path, resume: Path | None = None, extra: pl.Callback | None = None, **options: Any
) -> ToyModule:
    module, data = ToyModule(), SupervisedDataModule(root, batch_size=2, fold=0, n_folds=4)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LastCheckpoint(folder), *([extra] if extra else [])], plugins=[AtomicCheckpointIO()], **options,
    )  # fmt: skip
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trainer.fit(module, data, ckpt_path=resume, **({"weights_only": False} if resume else {}))
    return module


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize(
    ("epoch", "batch", "hook"),
    [(0, 0, "train"), (1, 1, "train"), (1, 3, "train"), (1, 0, "val"), (0, 2, "val"), (2, 4, "train"), (2, 0, "val")],
)
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped(
    tiny_competition: Path, tmp_path: Path, epoch: int, batch: int, hook: str
) -> None:
    whole = fit(tiny_competition, tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tiny_competition, tmp_path / "part", extra=Interrupt(epoch, batch, hook))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = fit(tiny_competition, tmp_path / "part", resume=tmp_path / "part" / "last.ckpt")
    assert not [warning for warning in caught if "not resumable" in str(warning.message)]
    assert torch.equal(resumed.level, whole.level)
    assert whole.seen[len(whole.seen) - len(resumed.seen) :] == resumed.seen
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "part")]
    assert states[0]["global_step"] == states[1]["global_step"]
    assert states[0]["epoch"] == states[1]["epoch"] == EPOCHS - 1


class TimeIsUp(pl.Callback):
    """Stops as `trainer.max_time` does."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = (trainer.current_epoch, batch_idx) == (1, 2)


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize("limit", [{"max_steps": 5}, {"max_steps": 6}, {"extra": TimeIsUp()}])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_ended_within_an_epoch_continues_there(
    tiny_competition: Path, tmp_path: Path, limit: dict[str, Any], accumulate: int
) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    whole = fit(tiny_competition, tmp_path / "whole", **options)
    part = fit(tiny_competition, tmp_path / "part", **limit, **options)
    resumed = fit(tiny_competition, tmp_path / "part", resume=tmp_path / "part" / "last.ckpt", **options)
    assert [*part.seen, *resumed.seen] == whole.seen
    assert torch.equal(resumed.level, whole.level)


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": torch.tensor(1)}, path)

    def fails(value: Any, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.warns(UserWarning, match="COULD NOT BE WRITTEN .*; the previous one stays, .* disk full"):
        AtomicCheckpointIO().save_checkpoint({"step": torch.tensor(2)}, path)
    with pytest.warns(UserWarning, match="there is none"):
        AtomicCheckpointIO().save_checkpoint({"step": torch.tensor(2)}, tmp_path / "best.ckpt")
    monkeypatch.undo()
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class Scores(pl.Callback):
    """Logs a score for each epoch, and lets no checkpoint be written in some."""

    def __init__(self, scores: list[float], full: set[int], patch: pytest.MonkeyPatch) -> None:
        self.scores, self.full, self.patch = scores, full, patch

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log("score", self.scores[trainer.current_epoch], batch_size=1)
        self.patch.undo()
        if trainer.current_epoch in self.full:
            self.patch.setattr(torch, "save", no_space)


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("scores", "full", "saved"),
    [
        ([0.1, 0.9, 0.5], set(), 1),
        ([0.1, 0.9, 0.5], {1}, 2),  # above what the file holds
        ([0.5, 0.9, 0.1], {1}, 0),
        ([0.9, 0.1, 0.5], {0}, 2),
        ([0.1, 0.5, 0.9], {0, 1, 2}, None),
    ],
)
@pytest.mark.parametrize("after_epoch", [True, False])  # Lightning saves after the epoch, or after the validation
def test_the_best_checkpoint_is_the_best_of_those_that_could_be_written(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    scores: list[float], full: set[int], saved: int | None, after_epoch: bool,
) -> None:  # fmt: skip
    best = BestCheckpoint(tmp_path, "best", "score", mode="max", enable_version_counter=False,
                          save_on_train_epoch_end=after_epoch)  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=[Scores(scores, full, monkeypatch), best], plugins=[AtomicCheckpointIO()],
        limit_train_batches=1, limit_val_batches=1,
    )  # fmt: skip
    trainer.fit(ToyModule(), SupervisedDataModule(tiny_competition, batch_size=2, fold=0, n_folds=4))
    monkeypatch.undo()
    if saved is None:
        assert (best.best_model_path, best.best_model_score) == ("", None)
        assert not list(tmp_path.iterdir())
        return
    state = torch.load(best.best_model_path, weights_only=True)
    assert state["epoch"] == saved
    assert best.best_model_score == pytest.approx(scores[saved])


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_an_exception_keeps_the_state_of_the_last_whole_epoch(tiny_competition: Path, tmp_path: Path) -> None:
    class Break(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(tiny_competition, tmp_path, extra=Break())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


def scored(
    root: Path, folder: Path, scores: list[float], patch: pytest.MonkeyPatch, *more: pl.Callback, resume: bool = False
) -> BestCheckpoint:
    """Fit an epoch for each score."""
    best = BestCheckpoint(folder, "best", "score", mode="max", enable_version_counter=False)
    trainer = pl.Trainer(
        max_epochs=len(scores), accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_train_batches=1, limit_val_batches=1, plugins=[AtomicCheckpointIO()],
        callbacks=[Scores(scores, set(), patch), *more, best, LastCheckpoint(folder)],
    )  # fmt: skip
    path = {"ckpt_path": folder / "last.ckpt", "weights_only": False} if resume else {}
    trainer.fit(ToyModule(), SupervisedDataModule(root, batch_size=2, fold=0, n_folds=4), **path)
    return best


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize(("score", "kept"), [(0.8, 1), (0.95, 2)])
def test_a_moved_run_keeps_its_best_score(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, kept: int
) -> None:
    scored(tiny_competition, tmp_path / "a", [0.1, 0.9], monkeypatch)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    original = (tmp_path / "a" / "best.ckpt").read_bytes()
    best = scored(tiny_competition, tmp_path / "b", [0.1, 0.9, score], monkeypatch, resume=True)
    assert best.best_model_score == pytest.approx(max(0.9, score))
    assert best.best_model_path == str(tmp_path / "b" / "best.ckpt")
    assert torch.load(tmp_path / "b" / "best.ckpt", weights_only=True)["epoch"] == kept
    assert ((tmp_path / "b" / "best.ckpt").read_bytes() == original) == (kept == 1)
    assert (tmp_path / "a" / "best.ckpt").read_bytes() == original
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore:Checkpoint directory")
def test_a_best_score_without_its_file_is_forgotten_aloud(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tiny_competition, tmp_path, [0.9], monkeypatch)
    (tmp_path / "best.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"best\.ckpt: not found, and its score 0\.9000 is forgotten"):
        best = scored(tiny_competition, tmp_path, [0.9, 0.5], monkeypatch, resume=True)
    assert best.best_model_score == pytest.approx(0.5)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_the_best_checkpoint_holds_weights_alone_and_the_last_one_resumes(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tiny_competition, tmp_path, [0.9], monkeypatch, EMA(0.5, 1))
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert {*best} == {"state_dict", "epoch", "global_step", "pytorch-lightning_version"}  # a ToyModule has no hparams
    assert {"optimizer_states", "lr_schedulers", "callbacks", "loops", "averaging"} <= {*last}
    assert torch.equal(best["state_dict"]["level"], last["state_dict"]["level"])  # the average in both


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_another_number_of_processes_does_not_resume(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tiny_competition, tmp_path, [0.9], monkeypatch)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save({**state, "processes": 2}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt: was trained by 2 processes, resumed by 1 \(trainer\.devices"):
        scored(tiny_competition, tmp_path, [0.9, 0.9], monkeypatch, resume=True)


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize("limit", [{}, {"max_steps": 7}])
def test_a_run_that_was_over_is_told_of(tiny_competition: Path, tmp_path: Path, limit: dict[str, Any]) -> None:
    fit(tiny_competition, tmp_path, **limit)
    with pytest.warns(UserWarning, match=r"last\.ckpt: the run was over, and nothing more was trained"):
        fit(tiny_competition, tmp_path, resume=tmp_path / "last.ckpt", **limit)

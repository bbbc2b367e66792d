from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from sartorius.callbacks.progress import Progress, batches_left, epoch_line
from sartorius.data.competition.datamodule import SupervisedDataModule
from tests.doubles import ToyModule


def test_the_line_of_an_epoch() -> None:
    metrics = {"train/loss": 1.2345, "val/map": 0.25, "val/map_astro": 0.1}
    assert epoch_line(3, metrics) == "epoch 3: train/loss 1.234, val/map 0.25"
    assert epoch_line(3, {"val/map": 0.0}) == "epoch 3: val/map 0"
    assert epoch_line(3, {}) == ""
    losses = {"val/loss": 0.5, **metrics}
    assert epoch_line(3, losses, "val/loss") == "epoch 3: train/loss 1.234, val/loss 0.5, val/map 0.25"
    assert epoch_line(3, metrics, "val/iou") == "epoch 3: train/loss 1.234, val/map 0.25"


def trainer(**metrics: float) -> Any:
    return SimpleNamespace(
        callback_metrics={k.replace("_", "/", 1): v for k, v in metrics.items()}, progress_bar_metrics={"score": 0.5},
        loggers=[], current_epoch=3, is_global_zero=True, sanity_checking=False, state=SimpleNamespace(fn="fit"),
    )  # fmt: skip


def test_a_score_is_shown_in_the_epoch_that_measured_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for hook in ("on_validation_end", "on_train_epoch_end"):
        monkeypatch.setattr(TQDMProgressBar, hook, lambda *_: None)
    progress, module = Progress(), cast(Any, None)
    running = trainer(train_loss=1.0, val_map=0.25)
    for validated, sanity in ((True, True), (True, False), (False, False)):
        running.sanity_checking = sanity
        if validated:
            progress.on_validation_end(running, module)
        progress.on_train_epoch_end(running, module)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["epoch 3: train/loss 1", "epoch 3: train/loss 1, val/map 0.25", "epoch 3: train/loss 1"]


def test_the_line_names_the_monitor_in_the_epoch_that_measured_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for hook in ("on_validation_end", "on_train_epoch_end"):
        monkeypatch.setattr(TQDMProgressBar, hook, lambda *_: None)
    progress, module = Progress(monitor="val/iou"), cast(Any, None)
    running = trainer(train_loss=1.0, val_iou=0.5)
    progress.on_validation_end(running, module)
    for _ in range(2):
        progress.on_train_epoch_end(running, module)
    assert capsys.readouterr().err.splitlines() == ["epoch 3: train/loss 1, val/iou 0.5", "epoch 3: train/loss 1"]


def test_the_bar_shows_the_terms_of_the_loss() -> None:
    running = trainer(train_loss=1.0, train_loss_mask=0.6543, val_map=0.25)
    assert Progress().get_metrics(running, cast(Any, None)) == {"score": 0.5, "mask": "0.654"}


def test_without_a_terminal_there_is_no_bar_but_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert progress.is_disabled
    progress.print("epoch 0")
    assert capsys.readouterr().err == "epoch 0\n"


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is so many seconds later each time it is read."""
    times = iter(range(10**6))
    return lambda: next(times) * seconds


class Losses(pl.Callback):
    """Keeps the loss of each batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_the_line_of_an_epoch_has_the_mean_loss_of_its_batches(
    tiny_competition: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = Losses()
    running = pl.Trainer(
        max_epochs=2, limit_train_batches=3, limit_val_batches=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_model_summary=False, callbacks=[losses, Progress(seconds=1e9)],
    )  # fmt: skip
    running.fit(ToyModule(), SupervisedDataModule(tiny_competition, batch_size=1, n_folds=4, num_workers=0))
    lines = [line for line in capsys.readouterr().err.splitlines() if "batch" not in line]
    means = [sum(losses.values[:3]) / 3, sum(losses.values[3:]) / 3]
    assert lines == [f"epoch {epoch}: train/loss {mean:.4g}" for epoch, mean in enumerate(means)]
    assert len(set(losses.values)) == 6


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (4.0, ["epoch 0: batch 1 of 3", "epoch 0: batch 3 of 3", "epoch 1: batch 2 of 3"]),
        (100.0, ["epoch 0: batch 1 of 3"]),
    ],
)
def test_without_a_terminal_there_is_a_line_every_few_seconds(
    tiny_competition: Path, capsys: pytest.CaptureFixture[str], seconds: float, expected: list[str]
) -> None:
    progress = Progress(seconds=seconds, clock=ticking(2.0))  # read once a batch
    running = pl.Trainer(
        max_epochs=2, limit_train_batches=3, limit_val_batches=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_model_summary=False, callbacks=[progress],
    )  # fmt: skip
    data = SupervisedDataModule(tiny_competition, batch_size=1, n_folds=4, num_workers=0)
    running.fit(ToyModule(), data)
    lines = [line for line in capsys.readouterr().err.splitlines() if "batch" in line]
    assert [line.split(",")[0] for line in lines] == expected
    assert "train/loss" in lines[0] and "a step" not in lines[0], "one step says nothing about their time"
    if len(lines) > 1:
        assert lines[1].endswith("2 s a step, about 6 s left")


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_validation_and_prediction_have_lines_too(tiny_competition: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(seconds=4.0, clock=ticking(3.0))
    running = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, callbacks=[progress]
    )
    data = SupervisedDataModule(tiny_competition, batch_size=1, n_folds=2, num_workers=0)
    running.validate(ToyModule(), data, verbose=False)
    running.predict(ToyModule(), data, return_predictions=False)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("validation: batch 2 of") and "3 s a step" in line for line in lines)
    assert any(line.startswith("prediction: batch 2 of") for line in lines)


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "left"), [(10, -1, 6 * 32 + 20), (10, 50, 40), (-1, 50, 40), (-1, -1, 20), (None, 5, 0)]
)
def test_what_a_fit_has_left(max_epochs: int | None, max_steps: int, left: int) -> None:
    running: Any = SimpleNamespace(
        num_training_batches=32, max_epochs=max_epochs, max_steps=max_steps, current_epoch=3, global_step=30,
        accumulate_grad_batches=2,
    )  # fmt: skip
    assert batches_left(running, 12) == left

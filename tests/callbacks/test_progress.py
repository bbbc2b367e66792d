from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytorch_lightning.callbacks import TQDMProgressBar

from sartorius.callbacks.progress import Progress, epoch_line


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

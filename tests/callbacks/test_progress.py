from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sartorius.callbacks.progress import Progress


def test_without_a_terminal_an_epoch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Any = Progress()
    assert progress.is_disabled
    metrics = {"train/loss": torch.tensor(1.2345), "val/map": torch.tensor(0.25), "val/map_astro": torch.tensor(0.1)}
    progress.on_train_epoch_end(SimpleNamespace(callback_metrics=metrics, current_epoch=3, is_global_zero=True), None)
    assert capsys.readouterr().err == "epoch 3: train/loss 1.234, val/map 0.25\n"


def test_nothing_measured_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Any = Progress()
    progress.on_train_epoch_end(SimpleNamespace(callback_metrics={}, current_epoch=0, is_global_zero=True), None)
    assert capsys.readouterr().err == ""

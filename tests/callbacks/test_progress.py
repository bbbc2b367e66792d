from __future__ import annotations

import pytest

from sartorius.callbacks.progress import Progress, epoch_line


def test_the_line_of_an_epoch() -> None:
    metrics = {"train/loss": 1.2345, "val/map": 0.25, "val/map_astro": 0.1}
    assert epoch_line(3, metrics) == "epoch 3: train/loss 1.234, val/map 0.25"
    assert epoch_line(3, {"val/map": 0.0}) == "epoch 3: val/map 0"
    assert epoch_line(3, {}) == ""


def test_without_a_terminal_there_is_no_bar_but_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert progress.is_disabled
    progress.print("epoch 0")
    assert capsys.readouterr().err == "epoch 0\n"

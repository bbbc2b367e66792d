from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from sartorius.callbacks.curves import Curves
from sartorius.loggers.csv import CSVLog


def test_the_end_of_a_fit_draws_what_is_not_written_yet(tmp_path: Path) -> None:
    logger = CSVLog(tmp_path / "metrics.csv")
    logger.log_metrics({"epoch": 0, "train/loss": 1.0}, 9)
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True)
    Curves(tmp_path).on_fit_end(trainer, None)  # type: ignore[arg-type]
    assert (tmp_path / "plots" / "curves.png").is_file()
    assert math.isclose(pd.read_csv(tmp_path / "metrics.csv")["train/loss"][0], 1.0)


def test_other_processes_draw_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,3.3\n")
    Curves(tmp_path).on_fit_end(SimpleNamespace(loggers=[], is_global_zero=False), None)  # type: ignore[arg-type]
    assert not (tmp_path / "plots").exists()

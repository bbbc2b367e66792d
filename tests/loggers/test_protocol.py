from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartorius.loggers.csv import CSVLog
from sartorius.loggers.protocol import CellLogger, FileLogger, TableLogger, loggers_with
from sartorius.loggers.tensorboard import TensorBoardLog
from sartorius.loggers.tolerant import TolerantLogger
from sartorius.loggers.wandb import WandbLog
from tests.callbacks.board import Board


@pytest.mark.parametrize("kind", [CellLogger, TableLogger, FileLogger])
def test_a_tolerant_logger_is_of_the_kinds_of_the_one_inside(tmp_path: Path, kind: Any) -> None:
    board, numbers = TolerantLogger(Board(), "logger.board"), TolerantLogger(CSVLog(tmp_path / "m.csv"), "logger.csv")
    trainer: Any = SimpleNamespace(loggers=[numbers, board])
    assert loggers_with(trainer, kind) == [board]


def test_kinds_of_our_loggers() -> None:
    kinds = (CellLogger, TableLogger, FileLogger)
    assert [issubclass(TensorBoardLog, kind) for kind in kinds] == [True, False, False]
    assert [issubclass(WandbLog, kind) for kind in kinds] == [True, True, True]

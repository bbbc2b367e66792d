from __future__ import annotations

from pathlib import Path

import pandas as pd

from sartorius.loggers.csv import CSVLog


def test_one_row_a_step(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "metrics.csv")
    log.log_metrics({"lr": 0.1}, 0)
    log.log_metrics({"epoch": 0, "loss": 2.0}, 0)
    log.log_metrics({"epoch": 0, "val": 0.5}, 4)
    log.log_metrics({"epoch": 1, "loss": 1.0}, 5)
    log.save()
    table = pd.read_csv(log.path)
    assert list(table) == ["epoch", "step", "loss", "lr", "val"]
    assert table.step.tolist() == [0, 4, 5]
    assert table.epoch.tolist() == [0, 0, 1]
    assert table.loss.dropna().tolist() == [2.0, 1.0]


def test_a_resumed_run_replaces_the_rows_that_were_lost(tmp_path: Path) -> None:
    first = CSVLog(tmp_path / "metrics.csv")
    for step in range(6):
        first.log_metrics({"epoch": step // 2, "loss": float(step)}, step)
    first.finalize("failed")
    second = CSVLog(tmp_path / "metrics.csv")
    second.log_metrics({"epoch": 2, "loss": 40.0}, 4)
    second.log_metrics({"epoch": 2, "other": 1.0}, 5)
    second.save()
    table = pd.read_csv(first.path)
    assert table.step.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.loss.tolist()[:5] == [0, 1, 2, 3, 40]
    assert table.loss.isna().tolist() == [False] * 5 + [True]


def test_nothing_logged_writes_nothing(tmp_path: Path) -> None:
    CSVLog(tmp_path / "metrics.csv").finalize("success")
    assert not list(tmp_path.iterdir())


def test_a_new_column_keeps_what_was_written(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "metrics.csv")
    for step in range(4):
        log.log_metrics({"epoch": 0, "loss": 0.1 * step}, step)
        log.save()
    log.log_metrics({"epoch": 0, "again": 1.5}, 3)  # the last row grows
    log.save()
    log.log_metrics({"epoch": 0, "loss": 5.0}, 4)
    log.finalize("success")
    table = pd.read_csv(log.path)
    assert list(table) == ["epoch", "step", "again", "loss"]
    assert table.loss.tolist() == [0.1 * 0, 0.1 * 1, 0.1 * 2, 0.1 * 3, 5.0]
    assert table.again.dropna().tolist() == [1.5]
    assert table.again.notna().tolist() == [False, False, False, True, False]


def test_a_save_writes_the_last_rows_only(tmp_path: Path) -> None:
    """What a save costs must not grow with the run: nothing but the last row is kept, and the file grows at its end."""
    log = CSVLog(tmp_path / "metrics.csv")
    for step in range(300):
        log.log_metrics({"loss": 1.0 / (step + 1)}, step)
        log.save()
        log.log_metrics({"lr": 0.5}, step)
        inode = log.path.stat().st_ino
        log.save()
        assert len(log._file.rows) == 1
        assert (log.path.stat().st_ino == inode) == (step > 0)  # written anew for the new column alone
    table = pd.read_csv(log.path)
    assert table.step.tolist() == list(range(300))
    assert table.lr.tolist() == [0.5] * 300
    assert table.loss.tolist() == [1.0 / (step + 1) for step in range(300)]

"""Logging that fails: a warning, and the training continues."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.loggers.csv import CSVLog
from sartorius.loggers.tolerant import SuppressErrors, TolerantLogger
from tests.doubles import ToyModule


class Broken(Logger):
    """Every call of it fails."""

    calls = 0

    @property
    def name(self) -> str:
        return "broken"

    @property
    def version(self) -> str:
        return "7"

    @property
    def experiment(self) -> Any:  # Lightning asks for it before a fit
        return self._fail()

    def _fail(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        raise ConnectionError("no route\nto host")

    log_metrics = log_hyperparams = save = finalize = log_graph = after_save_checkpoint = log_image = _fail


def test_only_the_first_failure_is_a_warning() -> None:
    suppress_errors = SuppressErrors("logger.x", "Numbers are missing")
    message = r"logger.x failed \(ValueError: a b\); the training continues. Numbers are missing"
    with pytest.warns(UserWarning, match=message), suppress_errors:
        raise ValueError("a\nb")
    for _ in range(3):
        with suppress_errors:
            raise KeyError("c")
    with suppress_errors:
        pass
    assert suppress_errors.failures == 1 + 3


def test_other_errors_and_ctrl_c_pass() -> None:
    with pytest.raises(KeyboardInterrupt), SuppressErrors("x", "y"):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="bug"), SuppressErrors("x", "y", OSError):
        raise ValueError("bug")


def test_a_wrapped_logger_is_itself_otherwise(tmp_path: Path) -> None:
    inner = CSVLog(tmp_path / "metrics.csv")
    logger = TolerantLogger(inner, "logger.csv")
    assert (logger.name, logger.version, logger.save_dir) == ("metrics", "", str(tmp_path))
    assert logger.path == inner.path
    assert not hasattr(logger, "log_image")
    logger.log_metrics({"a": 1.0}, step=3)
    logger.save()
    assert pd.read_csv(inner.path).to_dict("records") == [{"step": 3, "a": 1.0}]


def test_what_else_a_logger_can_do_is_tolerated_too() -> None:
    logger = TolerantLogger(Broken(), "logger.broken")
    assert hasattr(logger, "log_image")
    with pytest.warns(UserWarning, match="logger.broken failed"):
        assert logger.log_image("a", images=[]) is None
    assert logger.logger.calls == 1  # type: ignore[attr-defined]


def test_a_training_survives_a_logger_of_which_nothing_works(tiny_competition: Path, tmp_path: Path) -> None:
    broken, kept = TolerantLogger(Broken(), "logger.broken"), TolerantLogger(CSVLog(tmp_path / "m.csv"), "logger.csv")
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=[broken, kept], log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[pl.callbacks.LearningRateMonitor()],
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(ToyModule(), SupervisedDataModule(tiny_competition, batch_size=3, n_folds=4))
    told = [str(warning.message) for warning in caught if "the training continues" in str(warning.message)]
    assert len(told) == 1
    assert "logger.broken failed (ConnectionError: no route to host)" in told[0]
    assert broken.suppress_errors.failures > 4
    assert len(pd.read_csv(tmp_path / "m.csv")["train/loss"].dropna()) == trainer.global_step


def test_a_full_disk_costs_no_number_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TolerantLogger(CSVLog(tmp_path / "metrics.csv"), "logger.csv")

    def log(step: int) -> None:
        logger.log_metrics({"loss": float(step)}, step)
        logger.save()

    log(0)
    with monkeypatch.context() as full:
        full.setattr("builtins.open", no_space)
        with pytest.warns(UserWarning, match="No space left"):
            log(1)
        log(2)
    log(3)
    assert pd.read_csv(tmp_path / "metrics.csv").loss.tolist() == [0, 1, 2, 3]


def no_space(path: Any, mode: str = "r", *_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))

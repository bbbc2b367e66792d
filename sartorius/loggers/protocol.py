"""The kinds of content beside numbers that callbacks hand to the run's loggers.

A logger takes a kind by having its method; a run may have any number of loggers for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pytorch_lightning import Trainer

from sartorius.loggers.tolerant import TolerantLogger
from sartorius.structures.arrays import GreyImage, Scores
from sartorius.structures.instances import Instances


@dataclass(frozen=True)
class CellsView:
    """An image with its true and predicted cells.

    image: uint8 [H, W]. truth, prediction: cells of that size; scores: float32 [N] of the predicted ones. names: of
    the cell types. caption: a line of text.
    """

    image: GreyImage
    truth: Instances
    prediction: Instances
    scores: Scores
    names: tuple[str, ...]
    caption: str


@runtime_checkable
class CellLogger(Protocol):
    """A logger of images with cells."""

    def log_cells(self, key: str, view: CellsView, step: int) -> None:
        """Log the view of this key at a step."""


@runtime_checkable
class TableLogger(Protocol):
    """A logger of tables."""

    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table; its values are numbers, texts, RGB images uint8 [H, W, 3] and None."""


@runtime_checkable
class FileLogger(Protocol):
    """A logger that keeps files."""

    def log_files(self, name: str, kind: str, paths: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Link files and folders to the run, as one artifact of a kind."""


Kind = TypeVar("Kind")


def loggers_with(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """Return the loggers of a kind, the same in every process; a TolerantLogger is of those of the one inside it."""
    loggers: list[Any] = list(trainer.loggers)
    inside = [logger.logger if isinstance(logger, TolerantLogger) else logger for logger in loggers]
    return [logger for logger, inner in zip(loggers, inside, strict=True) if isinstance(inner, kind)]


def logged_step(trainer: Trainer) -> int:
    """Return the step under which Lightning logs now: batches that ended in an optimizer step so far."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped

"""metrics.csv: the logged numbers, one row a step, readable during the run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sartorius.loggers.growing_csv import GrowingCsv, read_rows

_FIRST = ("epoch", "step")


class CSVLog(Logger):
    """Logged numbers as one csv: columns epoch and step first, an empty field for what a row does not have.

    A run that continues in the same folder keeps the rows up to the step at which it continues; later ones are of the
    part that was lost.

    path: of the csv.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._file = GrowingCsv(path, _epoch_and_step_first)
        self._started = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.stem

    @property
    def version(self) -> str:
        """Empty: the run folder tells runs apart."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder holds the whole config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers at a step; those of one step and epoch share a row."""
        step = 0 if step is None else step
        if not self._started:
            self._file.restart([row for row in read_rows(self.path) if row.get("step", 0) <= step])
            self._started = True
        rows = self._file.rows
        last = rows[-1] if rows else {}
        epoch = last.get("epoch", metrics.get("epoch"))
        if last.get("step") != step or metrics.get("epoch", epoch) != epoch:
            rows.append({"step": step})
        rows[-1].update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the new rows; raises OSError where that cannot be done, and keeps them."""
        self._file.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left when a run ends, whatever its end."""
        self.save()


def _epoch_and_step_first(names: Sequence[str]) -> list[str]:
    return [name for name in _FIRST if name in names] + sorted({*names} - {*_FIRST})

"""metrics.csv: what was logged, one row a step, readable while the run goes on."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sartorius.files import write_text

_FRONT = ("epoch", "step")


class CSVLog(Logger):
    """Writes logged numbers to one csv: columns epoch and step first, an empty field for what a row does not have.

    A save writes the last row, which may have grown, and those that followed it: what it costs does not depend on how
    long the run is. Only where there is a new column the file is written anew, atomically. When a save fails (the disk
    is full) the rows stay in memory, and the next one writes them. A run that continues in the same folder keeps the
    rows up to the step at which it continues; later ones are of the part that was lost.

    Args:
        path: of the csv.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: list[dict[str, Any]] | None = None  # the last row of the file, then those that are not in it
        self._columns: list[str] = []  # of the file
        self._last = 0  # where the last row of the file begins, bytes

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
        """Nothing: the run folder holds the whole config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers at a step; those of one step and epoch share a row."""
        step = 0 if step is None else step
        if self._rows is None:
            self._rows = [row for row in _read(self.path) if row.get("step", 0) <= step]
        last = self._rows[-1] if self._rows else {}
        epoch = last.get("epoch", metrics.get("epoch"))
        if last.get("step") != step or metrics.get("epoch", epoch) != epoch:
            self._rows.append({"step": step})
        self._rows[-1].update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write what is new; raises OSError where that cannot be done."""
        if not self._rows:
            return
        names = {str(name) for row in self._rows for name in row}
        if names <= set(self._columns) and self.path.is_file():
            with open(self.path, "r+b") as file:
                file.seek(self._last)
                file.write(_lines(self._rows, self._columns).encode())
                file.truncate()
        else:
            columns = _ordered(names | set(self._columns))
            write_text(self.path, _lines([], columns, head=True) + self._earlier(columns) + _lines(self._rows, columns))
            self._columns = columns
            self._last = self.path.stat().st_size - len(_lines(self._rows, columns).encode())
        self._last += len(_lines(self._rows[:-1], self._columns).encode())
        self._rows = self._rows[-1:]

    def _earlier(self, columns: list[str]) -> str:
        """The rows of the file before the last one with other columns; "" when this has not written to it yet."""
        if not self._columns or not self.path.is_file():
            return ""
        with open(self.path, "rb") as file:
            return _lines(csv.DictReader(io.StringIO(file.read(self._last).decode())), columns)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left when a run ends, whatever its end."""
        self.save()


def _ordered(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    return [name for name in _FRONT if name in wanted] + sorted(wanted - {*_FRONT})


def _lines(rows: Iterable[Mapping[str, Any]], columns: list[str], head: bool = False) -> str:
    """The rows as lines of csv, under a line of the columns when `head`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict[str, float]]:
    """The rows of an earlier file without their empty fields; [] without a file."""
    if not path.is_file():
        return []
    return [{str(k): v for k, v in row.items() if pd.notna(v)} for row in pd.read_csv(path).to_dict("records")]

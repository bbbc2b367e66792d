"""A csv that grows row by row, whole and readable at any time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.files import naming, write_text

CsvRow = dict[str, Any]


class GrowingCsv:
    """Rows of a csv whose columns may become more; a field that a row lacks is empty.

    A save writes the last row of the file, which may have grown, and those that followed it: its cost does not depend
    on the length of the file. Only where there is a new column the file is written anew, atomically. After a failed
    save the rows stay in memory, and the next one writes them.

    path: of the csv. order: of the columns, from their names: those of the file first, then new ones as they came.
    """

    def __init__(self, path: str | Path, order: Callable[[Sequence[str]], list[str]]) -> None:
        self.path, self.order = Path(path), order
        self.rows: list[CsvRow] = []  # the last row of the file, then those that are not in it
        self._columns: list[str] = []  # of the file
        self._last = 0  # where the last row of the file begins, bytes

    def restart(self, rows: list[CsvRow]) -> None:
        """Replace the whole content by these rows, from the next save on."""
        self.rows, self._columns, self._last = rows, [], 0

    def save(self) -> None:
        """Write what is new; raises OSError where that cannot be done."""
        if not self.rows:
            return
        new = {str(name): None for row in self.rows for name in row if name not in self._columns}
        if new or not self.path.is_file():
            columns = self.order([*self._columns, *new])
            front = _lines([], columns, head=True) + self._earlier(columns)
            write_text(self.path, front + _lines(self.rows, columns))
            self._columns, self._last = columns, len(front.encode())
        else:
            with naming(self.path), open(self.path, "r+b") as file:
                file.seek(self._last)
                file.write(_lines(self.rows, self._columns).encode())
                file.truncate()
        self._last += len(_lines(self.rows[:-1], self._columns).encode())
        self.rows = self.rows[-1:]

    def _earlier(self, columns: list[str]) -> str:
        """Return the rows before the last one with other columns; "" where nothing was written yet."""
        if not self._columns or not self.path.is_file():
            return ""
        with open(self.path, "rb") as file:
            return _lines(csv.DictReader(io.StringIO(file.read(self._last).decode())), columns)


def _lines(rows: Iterable[Mapping[str, Any]], columns: list[str], head: bool = False) -> str:
    """Return the rows as lines of csv, under a line of the columns when `head`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: Path, needed: Iterable[str] = ()) -> list[CsvRow]:
    """Read the whole rows that have the `needed` fields, without empty ones; a killed run may have left half a row.

    [] without a file, and for one that is no csv.
    """
    try:
        table = pd.read_csv(path, nrows=path.read_bytes().count(b"\n") - 1)
    except (FileNotFoundError, ValueError):
        return []
    rows = [{str(k): v for k, v in row.items() if pd.notna(v)} for row in table.to_dict("records")]
    return [row for row in rows if {*needed} <= {*row}]

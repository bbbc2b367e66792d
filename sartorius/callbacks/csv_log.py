"""metrics.csv: what was logged, one row a step, readable while the run goes on."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from sartorius.files import write_csv


class CSVLog(Logger):
    """Writes logged numbers to one csv: columns epoch and step first, an empty field for what a row does not have.

    The file is written anew at each save, atomically. A run that continues in the same folder keeps the rows up to
    the step at which it continues; later ones are of the part that was lost.

    Args:
        path: of the csv.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: list[dict[str, float]] | None = None

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
        """Write the file."""
        if self._rows:
            table = pd.DataFrame(self._rows)
            front = [name for name in ("epoch", "step") if name in table]
            write_csv(self.path, table[front + sorted(str(name) for name in table if name not in front)])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file when a run ends, whatever its end."""
        self.save()


def _read(path: Path) -> list[dict[str, float]]:
    """The rows of an earlier file without their empty fields; [] without a file."""
    if not path.is_file():
        return []
    return [{str(k): v for k, v in row.items() if pd.notna(v)} for row in pd.read_csv(path).to_dict("records")]

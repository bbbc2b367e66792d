"""The leaderboard: one csv line for each training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.files import locked, write_csv


def record_run(path: str | Path, line: dict[str, Any]) -> None:
    """Add a line to the csv, in the place of an earlier one of the same `run` (a run that was resumed).

    Columns are those of the file, then new ones of `line`; a field that a line lacks is empty. Runs that finish
    at the same time write one after the other, and the file is replaced as a whole.
    """
    path = Path(path)
    with locked(path, wait=True):
        lines = pd.read_csv(path, dtype=str).to_dict("records") if path.is_file() else []
        kept = [earlier for earlier in lines if earlier.get("run") != line.get("run")]
        write_csv(path, pd.DataFrame([*kept, line]))

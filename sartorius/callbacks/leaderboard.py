"""The leaderboard: one csv line for each training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.files import write_csv


def record_run(path: str | Path, line: dict[str, Any]) -> None:
    """Add a line to the csv, in the place of an earlier one of the same `run` (a run that was resumed).

    Columns are those of the file, then new ones of `line`; a field that a line lacks is empty. Runs that finish
    at the same time write one after the other (a lock file beside it), and the file is replaced as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{path.name}.lock")):
        lines = pd.read_csv(path, dtype=str).to_dict("records") if path.is_file() else []
        kept = [earlier for earlier in lines if earlier.get("run") != line.get("run")]
        write_csv(path, pd.DataFrame([*kept, line]))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; freed by the system when a process dies. No lock where there is no fcntl."""
    with open(path, "w", encoding="utf-8") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""The trials of searches on the disk, a line each as they end, from which a stopped search continues.

A file of Optuna's own would need its lock, which a killed program leaves behind, and cannot be read again after half a
line. Here a last line without its end was cut off by a kill or a full disk: it is dropped, and that trial made again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import append_line, drop_cut_line, write_json
from sartorius.structures.reading import read_json


@dataclass(frozen=True)
class Tried:
    """The positions of a trial on the grid of each threshold, and its score."""

    positions: dict[str, int]
    score: float


class TrialLog:
    """Trials by the name of their search, in their order. Raises InputError for a file that is something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tried: defaultdict[str, list[Tried]] = defaultdict(list)
        self._read()

    def of(self, search: str) -> list[Tried]:
        """List the trials of a search; [] for a new one."""
        return list(self._tried[search])

    def add(self, search: str, tried: Tried) -> None:
        """Write the next trial of a search."""
        line = {"search": search, "trial": len(self._tried[search]), **tried.__dict__}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, json.dumps(line))
        self._tried[search].append(tried)

    def _read(self) -> None:
        for number, text in enumerate(drop_cut_line(self.path).splitlines(), start=1):
            try:
                line = json.loads(text)
                trial = Tried({str(key): int(value) for key, value in line["positions"].items()}, float(line["score"]))
                search, n = str(line["search"]), int(line["trial"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
                raise InputError(
                    f"{self.path}: line {number} is no trial of a search ({error!r}); delete the file to search anew"
                ) from error
            if n == len(self._tried[search]):  # else a second program wrote the same trial, too
                self._tried[search].append(trial)


def check_same_search(output: Path, about: Mapping[str, Any]) -> None:
    """Write what decides a search to `output`/study.json; raises InputError where another search was begun there."""
    path = output / "study.json"
    if path.is_file():
        before = read_json(path, "give another output=")
        known = before if isinstance(before, dict) else {}
        if other := [key for key, value in about.items() if known.get(key) != json.loads(json.dumps(value))]:
            raise InputError(
                f"{output}: holds a search with other {', '.join(other)}; give another output= or delete the folder"
            )
    write_json(path, about)

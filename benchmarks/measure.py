"""How a side is measured, and the row of the table that comes of it."""

from __future__ import annotations

import importlib
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Disagreement(AssertionError):
    """Both sides of a benchmark did not compute the same: there is nothing to compare."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `ours` and `peer` are in `unit`, where less is better.

    at_least: the bar for peer / ours; at_most: the bar for `ours` itself, in `unit`; None: nothing is asked.
    same: what both sides were found to agree on before they were measured.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    same: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, peer / ours; None when ours is nothing or less (a growth may be)."""
        return self.peer / self.ours if self.ours > 0 else None

    @property
    def bar(self) -> str:
        """The bar in words, "" without one."""
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}"
        return f">= {self.at_least:g}x" if self.at_least is not None else ""

    @property
    def met(self) -> bool:
        """Whether every bar of the row is met; True without one."""
        return (self.at_least is None or self.peer >= self.at_least * self.ours) and (
            self.at_most is None or self.ours <= self.at_most
        )


def expect(agrees: bool, what: str) -> str:
    """`what` when both sides agree on it; raises Disagreement otherwise."""
    if not agrees:
        raise Disagreement(f"the two sides do not agree: {what}")
    return what


def side_by_side(
    ours: Callable[[], object],
    peer: Callable[[], object],
    seconds: float = 6.0,
    at_most: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median milliseconds of both by the clock, called in turn so that a busy machine slows both.

    Each runs at least three times and at most `at_most` times, as often as `seconds` in all allow. What both need to
    have loaded must have been called once before.
    """
    spent: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    while len(spent[0]) < 3 or (len(spent[0]) < at_most and time.perf_counter() - began < seconds):
        for times, side in zip(spent, (ours, peer), strict=True):
            start = clock()
            side()
            times.append(1e3 * (clock() - start))
    return statistics.median(spent[0]), statistics.median(spent[1])


def in_subprocess(function: str, *arguments: Any, interpreter: Sequence[str] = (sys.executable,)) -> Any:
    """What `function` ("benchmarks.module:name") returns when a new process calls it with JSON-able arguments."""
    command = [*interpreter, "-m", "benchmarks.measure", function, json.dumps(arguments)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_megabytes() -> float:
    """The largest resident memory of this process so far, in MB (1e6 bytes).

    On Linux from VmHWM: getrusage's ru_maxrss begins with the peak of the process that started this one.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RUSAGE_UNITS_PER_MB


def resident_megabytes() -> float:
    """The resident memory of this process now, in MB; where the system does not say, its peak."""
    return _status("VmRSS") or peak_megabytes()


_RUSAGE_UNITS_PER_MB = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # bytes on macOS, KiB elsewhere


def _status(field: str) -> float | None:
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) * 1024 / 1e6 if found else None


if __name__ == "__main__":
    module, name = sys.argv[1].split(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))))

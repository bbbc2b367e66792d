"""The time that is left, which a restart does not change."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sartorius.files import write_json


class Clock(Protocol):
    """The time of the machine, in seconds since 1970."""

    def now(self) -> float:
        """Return the time."""

    def sleep(self, seconds: float) -> None:
        """Return so many seconds later."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Return the time."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Return so many seconds later."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Deadline:
    """A moment by which everything is done, `at` seconds since 1970."""

    at: float
    clock: Clock

    @property
    def left(self) -> float:
        """Seconds until then, below 0 after it."""
        return self.at - self.clock.now()


def keep_deadline(file: Path, started: float, hours: float, clock: Clock) -> Deadline:
    """Return the moment `hours` after the start that `file` holds, else after `started`, which is written there.

    A notebook that is run again within its hours keeps their end. Once they are over, or where the file is unreadable
    or tells a later start than now, it begins anew: Kaggle ended that session, and this is another.
    """
    try:
        first = float(json.loads(file.read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
        first = float("nan")
    if first <= clock.now() < first + hours * 3600:
        return Deadline(first + hours * 3600, clock)
    write_json(file, {"started": started})
    return Deadline(started + hours * 3600, clock)

"""The progress of loops over many images: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

SECONDS = 8.0  # between lines; with steps of up to two seconds there is one every ten

Item = TypeVar("Item")
Clock = Callable[[], float]


class ProgressLines:
    """Makes a line about a loop every few seconds, with the time that a step takes and what is left.

    seconds: between lines, and before the first. clock: seconds from any start.
    """

    def __init__(self, seconds: float = SECONDS, clock: Clock = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._printed = clock()
        self._loop, self._begun, self._first, self._done = "", 0.0, 0, 0

    def step(
        self,
        loop: str,
        done: int,
        total: int,
        left: int | None = None,
        shown: Callable[[], str] = str,
        now: bool = False,
    ) -> str:
        """The line when `done` of `total` steps are done, "" where none is due.

        A step of another `loop` than the one before it, or an earlier step, begins a new measurement. left: steps to
        do, None for those of this loop. shown: makes the text between the count and the time, called only for a line
        that is due. now: make the line although it is not due.
        """
        time_now = self._clock()
        if loop != self._loop or done <= self._done:
            self._loop, self._begun, self._first = loop, time_now, done
        self._done = done
        if not now and time_now - self._printed < self.seconds:
            return ""
        self._printed = time_now
        line = f"{loop} {done} of {total}{shown()}"
        if done <= self._first:
            return line
        each = (time_now - self._begun) / (done - self._first)
        return f"{line}, {each:.2g} s a step, about {duration(each * (total - done if left is None else left))} left"


def progress_bar(images: Sequence[Item], what: str, clock: Clock = time.monotonic) -> Iterable[Item]:
    """The images, under a bar named `what` where standard error is a terminal, else with a line every few seconds.

    Such as "scoring: 120 of 606, 0.21 s a step, about 2 min left".
    """
    if not sys.stderr.isatty():
        return _with_lines(images, what, ProgressLines(clock=clock))
    from rich.console import Console
    from rich.progress import track

    return track(images, what, console=Console(stderr=True))


def _with_lines(items: Sequence[Item], what: str, lines: ProgressLines) -> Iterator[Item]:
    for done, item in enumerate(items):
        if line := lines.step(f"{what}:", done, len(items)):
            print(line, file=sys.stderr, flush=True)
        yield item


def duration(seconds: float) -> str:
    """Such as "40 s", "3 min" or "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

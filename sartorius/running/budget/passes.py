"""Passes of models over all images, the most valuable first, and which of them still fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TimedMember:
    """A model of a kit: its name, its file and the number of views of each image that it joins."""

    name: str
    file: Path
    views: int


@dataclass(frozen=True)
class Pass:
    """A prediction of all images by a member, each in so many views."""

    member: TimedMember
    views: int

    @property
    def name(self) -> str:
        """A name for its folder: `member1_best_8_views`."""
        return f"{self.member.name}_{self.views}_view{'s' * (self.views > 1)}"


def smaller_views(views: int, above: int) -> Iterator[int]:
    """Yield numbers of views to try, from all `views` down by powers of two, those greater than `above`."""
    powers = [2**k for k in range(views.bit_length() - 1, -1, -1) if 2**k < views]
    yield from (count for count in [views, *powers] if count > above)


def next_pass(
    members: Sequence[TimedMember],
    done: Mapping[str, int],
    excluded: Callable[[Pass], bool],
    cost: Callable[[Pass], float],
    left: float,
) -> Pass | None:
    """Choose the next pass; None where no other fits.

    First each member sees every image once, in the order of the members; then, in the same order, a member's images
    are predicted again in as many views as there is time for. So views are given up first, then members.

    done: the views of each member's best whole pass, by its name. excluded: whether a pass was tried in vain. cost: of
    a pass in seconds, as estimated now. left: seconds for it.
    """
    for member in members:
        first = Pass(member, 1)
        if member.name not in done and not excluded(first) and cost(first) <= left:
            return first
    for member in members:
        for views in smaller_views(member.views, done.get(member.name, member.views)):
            chosen = Pass(member, views)
            if not excluded(chosen) and cost(chosen) <= left:
                return chosen
    return None


class Pace:
    """The time of a pass: until the first image, and of each further one.

    begun: when it was started, in seconds. least: images from which on the time of one is trusted.
    """

    def __init__(self, begun: float, least: int) -> None:
        self._begun, self._least = begun, max(least, 2)
        self._before: int | None = None
        self._first = self._last = (begun, 0)

    def note(self, now: float, images: int) -> None:
        """Take down how many images are predicted now, those of an earlier run too."""
        if self._before is None:
            self._before = images
        elif images > self._last[1] + self._before:
            self._last = (now, images - self._before)
            self._first = self._first if self._first[1] else self._last

    @property
    def startup(self) -> float:
        """Seconds until the first image, 0 before it."""
        return self._first[0] - self._begun if self._first[1] else 0.0

    @property
    def each(self) -> float | None:
        """Seconds of an image, None before there are enough of them."""
        (since, first), (until, last) = self._first, self._last
        return (until - since) / (last - first) if last >= self._least and last > first else None

    def overall(self, now: float) -> float:
        """Seconds of an image for a pass that has ended: with the start where too few images tell, 0 without any."""
        if self.each is not None or not self._last[1]:
            return self.each or 0.0
        return (now - self._begun) / self._last[1]

"""One picture after the other, from what all members saw of it to the joined detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sartorius.detections import Detections
from sartorius.errors import InputError
from sartorius.fusion.members import Member
from sartorius.fusion.methods import Method
from sartorius.fusion.pool import Seen, pool
from sartorius.fusion.sources import Source


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Joins the detections of its members, picture by picture.

    names: the cell types of all members. weights: float64 [K] of each member. min_score, level, picture_type: see
    `pool.pool`.
    """

    members: Sequence[Member]
    names: tuple[str, ...]
    weights: Mapping[str, NDArray[np.float64]]
    method: Method
    min_score: float
    level: bool
    picture_type: Literal["each", "majority"]

    def __post_init__(self) -> None:
        if self.picture_type not in ("each", "majority"):
            raise InputError(f"picture_type: expected each or majority, got {self.picture_type!r}")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score: expected a number from 0 to 1, got {self.min_score!r}")

    def files(self, picture: str) -> list[Path]:
        """The files that the picture's joined detections are made of."""
        return [member.home[picture].file(picture) for member in self.members if picture in member.home]

    def join(self, picture: str, bad: list[InputError] | None = None) -> Detections | None:
        """The joined detections of a picture that at least one member looked at, `agreement` set.

        bad: gets the errors of files that cannot be read, whose members then count as not having looked; the result is
        None where nobody is left. Without it the first error is raised. Raises InputError for members that hold
        different sizes of the picture.
        """
        seen = self._seen(picture, bad)
        if not seen:
            return None
        everything = pool(seen, min_score=self.min_score, level=self.level, picture_type=self.picture_type)
        if not len(everything):
            return replace(everything.detections, agreement=np.zeros(0, np.float32))
        return self.method(everything)

    def _seen(self, picture: str, bad: list[InputError] | None) -> list[Seen]:
        """What each member that has the picture saw, in their order.

        Submissions do not know the picture's size: they are read last, and not at all where those that know it cannot
        be read.
        """
        having = [(member, member.home[picture]) for member in self.members if picture in member.home]
        seen: dict[str, Seen] = {}
        first: tuple[Source, Detections] | None = None
        for member, source in sorted(having, key=lambda one: not one[1].typed):
            if not source.typed and first is None and any(other.typed for _, other in having):
                continue
            try:
                size = (first[1].height, first[1].width) if first is not None else None
                found = source.load(picture, size, self.names)
            except InputError as error:
                if bad is None:
                    raise
                bad.append(error)
                continue
            first = first or (source, found)
            _check_size(picture, source, found, *first)
            seen[member.name] = Seen(found, self.weights[member.name], source.cuts(self.names), source.typed)
        return [seen[member.name] for member, _ in having if member.name in seen]


def _check_size(picture: str, source: Source, found: Detections, other: Source, reference: Detections) -> None:
    if (found.height, found.width) != (reference.height, reference.width):
        raise InputError(
            f"picture {picture}: {found.width}x{found.height} pixels in {source.path}, "
            f"{reference.width}x{reference.height} in {other.path}: not the same picture; predict it again"
        )

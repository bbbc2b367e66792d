"""One image after the other, from what all members saw of it to the joined detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.fusion.members import Member
from sartorius.fusion.methods import Method
from sartorius.fusion.pool import Seen, pool
from sartorius.fusion.sources import Source
from sartorius.structures.detections import Detections


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Joins the detections of its members, image by image.

    names: the cell types of all members. weights: float64 [K] of each member. min_score, level, image_type: see
    `pool.pool`.
    """

    members: Sequence[Member]
    names: tuple[str, ...]
    weights: Mapping[str, NDArray[np.float64]]
    method: Method
    min_score: float
    level: bool
    image_type: Literal["each", "majority"]

    def __post_init__(self) -> None:
        if self.image_type not in ("each", "majority"):
            raise InputError(f"image_type: expected each or majority, got {self.image_type!r}")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score: expected a number from 0 to 1, got {self.min_score!r}")

    def files(self, image_id: str) -> list[Path]:
        """The files that the image's joined detections are made of."""
        return [member.home[image_id].file(image_id) for member in self.members if image_id in member.home]

    def join(self, image_id: str, bad: list[InputError] | None = None) -> Detections | None:
        """The joined detections of an image that at least one member looked at, `agreement` set.

        bad: gets the errors of files that cannot be read, whose members then count as not having looked; the result is
        None where nobody is left. Without it the first error is raised. Raises InputError for members that hold
        different sizes of the image.
        """
        seen = self._seen(image_id, bad)
        if not seen:
            return None
        everything = pool(seen, min_score=self.min_score, level=self.level, image_type=self.image_type)
        if not len(everything):
            return replace(everything.detections, agreement=np.zeros(0, np.float32))
        return self.method(everything)

    def _seen(self, image_id: str, bad: list[InputError] | None) -> list[Seen]:
        """What each member that has the image saw, in their order.

        Submissions do not know the image's size: they are read last, and not at all where those that know it cannot
        be read.
        """
        having = [(member, member.home[image_id]) for member in self.members if image_id in member.home]
        seen: dict[str, Seen] = {}
        first: tuple[Source, Detections] | None = None
        for member, source in sorted(having, key=lambda one: not one[1].typed):
            if not source.typed and first is None and any(other.typed for _, other in having):
                continue
            try:
                size = (first[1].height, first[1].width) if first is not None else None
                found = source.load(image_id, size, self.names)
            except InputError as error:
                if bad is None:
                    raise
                bad.append(error)
                continue
            first = first or (source, found)
            _check_size(image_id, source, found, *first)
            seen[member.name] = Seen(found, self.weights[member.name], source.cuts(self.names), source.typed)
        return [seen[member.name] for member, _ in having if member.name in seen]


def _check_size(image_id: str, source: Source, found: Detections, other: Source, reference: Detections) -> None:
    if (found.height, found.width) != (reference.height, reference.width):
        raise InputError(
            f"image {image_id}: {found.width}x{found.height} pixels in {source.path}, "
            f"{reference.width}x{reference.height} in {other.path}: not the same image; predict it again"
        )

"""Dimensions of an array of planes, in the array's order, as axes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Dimensions = Sequence[tuple[str, int]]  # axis and length of each; several may be of one axis


def lengths(dimensions: Dimensions) -> dict[str, int]:
    """Return the length of each axis that is longer than 1."""
    found: dict[str, int] = {}
    for axis, length in dimensions:
        if length > 1:
            found[axis] = found.get(axis, 1) * length
    return found


def places(dimensions: Dimensions, index: Mapping[str, int]) -> tuple[int, ...]:
    """Return the place on each dimension of a place on each axis, 0 where `index` names none."""
    left, found = dict(index), []
    for axis, length in reversed(dimensions):
        left[axis], place = divmod(left.get(axis, 0), length)
        found.append(place)
    return tuple(reversed(found))

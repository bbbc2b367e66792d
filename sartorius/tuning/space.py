"""What a search of thresholds may try: an even grid of values for each threshold of post-processing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError

ByType = Mapping[str, NDArray[np.float64]]  # each threshold by name, float64 [K], a value for each cell type
_DIGITS = 6  # 0.05 + 3 * 0.05 is 0.2 in the files too


@dataclass(frozen=True)
class Grid:
    """The values low, low + step, ... high."""

    low: float
    high: float
    step: float

    @property
    def last(self) -> int:
        """Position of `high`; that of `low` is 0."""
        return round((self.high - self.low) / self.step)

    def value(self, position: int) -> float:
        """The value at a position."""
        return round(self.low + position * self.step, _DIGITS)

    def nearest(self, value: float) -> int:
        """Position of the grid's value that is nearest to `value`."""
        return min(max(round((value - self.low) / self.step), 0), self.last)


@dataclass(frozen=True)
class SearchSpace:
    """The grid of each threshold, as a mapping of low, high and step; None leaves a threshold as it is.

    Units are those of `postprocess.Thresholds`. Raises InputError where a grid is none, or nothing may change.
    """

    score: Mapping[str, float] | None
    mask: Mapping[str, float] | None
    box_nms: Mapping[str, float] | None
    mask_nms: Mapping[str, float] | None
    min_area: Mapping[str, float] | None

    def __post_init__(self) -> None:
        if not self.grids:
            raise InputError("search: every threshold is null, so there is nothing to tune; give one low, high, step")

    @property
    def grids(self) -> dict[str, Grid]:
        """The grid of each threshold that is searched."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _grid(name, values) for name, values in given.items() if values is not None}

    def floor(self, start: ByType) -> dict[str, float]:
        """The lowest value that each threshold takes, that of `start` included."""
        grids = self.grids
        return {
            name: min(float(values.min()), grids[name].low if name in grids else math.inf)
            for name, values in start.items()
        }


def _grid(name: str, values: Mapping[str, float]) -> Grid:
    where = f"search.{name}"
    if set(values) != {"low", "high", "step"}:
        raise InputError(f"{where}: expected low, high and step, got {', '.join(map(str, values)) or 'nothing'}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}.{key}: expected a number, got {value!r}")
    grid = Grid(**values)
    upper = math.inf if name == "min_area" else 1.0
    if not 0 <= grid.low <= grid.high <= upper:
        raise InputError(f"{where}: expected 0 <= low <= high <= {upper:g}, got low {grid.low:g}, high {grid.high:g}")
    if grid.step <= 0:
        raise InputError(f"{where}.step: expected a number above 0, got {grid.step:g}")
    if abs(grid.low + grid.last * grid.step - grid.high) > 1e-6 * grid.step:
        raise InputError(
            f"{where}: steps of {grid.step:g} from {grid.low:g} do not end at {grid.high:g}; "
            f"set high={grid.value(grid.last):g} or another step"
        )
    return grid

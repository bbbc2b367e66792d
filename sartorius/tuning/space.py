"""The search space of thresholds: an even grid of values for each setting that a step of post-processing offers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sartorius.errors import InputError
from sartorius.postprocess.finalise import Postprocess, settings_of
from sartorius.postprocess.thresholds import per_type
from sartorius.structures.arrays import Floats

ByType = Mapping[str, Floats]  # settings by `step.setting`, float64 [K], a value for each cell type
_DIGITS = 6  # 0.05 + 3 * 0.05 is 0.2 in the files too


@dataclass(frozen=True)
class ThresholdGrid:
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


class SearchSpace:
    """The ranges to search: those that the steps offer, unless others are given.

    ranges: by step and setting, mappings of low, high and step, as far as they differ; None leaves a setting, or all of
    a step, as it is. Ranges of steps that a post-processing lacks do not count.
    """

    def __init__(self, **ranges: Mapping[str, Mapping[str, float] | None] | None) -> None:
        self.ranges = ranges

    def grids(self, post: Postprocess) -> dict[str, ThresholdGrid]:
        """Build the grid of each setting that is searched, by `step.setting`, those with a range given first.

        Raises InputError for a range of an unknown setting, a bad range, and where nothing is left to search.
        """
        offered, chosen = post.searchable, dict[str, Mapping[str, Any] | None]()
        for step, settings in self.ranges.items():
            own = [name for name in offered if name.partition(".")[0] == step]
            given = dict.fromkeys(own) if settings is None else {f"{step}.{key}": r for key, r in settings.items()}
            if unknown := [name for name in given if name not in offered and step in post.steps]:
                known = ", ".join(offered)
                raise InputError(f"search.{unknown[0]}: post-processing offers no such setting, only {known}")
            chosen |= {name: values for name, values in given.items() if name in offered}
        chosen |= {name: {} for name in offered if name not in chosen}
        grids = {name: _grid(name, values, post) for name, values in chosen.items() if values is not None}
        if not grids:
            raise InputError("search: every threshold is null, so there is nothing to tune; give one low, high, step")
        return grids


def floor(grids: Mapping[str, ThresholdGrid], start: ByType) -> dict[str, float]:
    """Find the lowest value that each setting takes, that of `start` included."""
    return {
        name: min(float(values.min()), grids[name].low if name in grids else math.inf) for name, values in start.items()
    }


def setting_of_class(post: Postprocess) -> dict[type, str]:
    """Map each class of step to its searchable setting, as `step.setting`."""
    return {type(step): f"{name}.{setting}" for name, step in post.steps.items() for setting in step.searchable}


def thresholds_of(post: Postprocess, names: Sequence[str]) -> dict[str, Floats]:
    """Read every searchable setting of the post-processing, float64 [K] for the cell type names."""
    settings = {name: settings_of(step) for name, step in post.steps.items()}
    keys = {key: key.partition(".") for key in post.searchable}
    return {key: per_type(key, settings[step][setting], names) for key, (step, _, setting) in keys.items()}


def with_thresholds(post: Postprocess, names: Sequence[str], thresholds: ByType) -> Postprocess:
    """Replace thresholds of `post` for the named cell types; its values for types not named stay."""
    changed: dict[str, Any] = {}
    for key, values in thresholds.items():
        step, _, setting = key.partition(".")
        old = settings_of(post.steps[step])[setting]
        rest = dict(old) if isinstance(old, Mapping) else {"default": old}
        whole = isinstance(post.searchable[key].step, int)
        changed[key] = rest | {
            name: int(value) if value.is_integer() and whole else value
            for name, value in zip(names, values.tolist(), strict=True)
        }
    return post.with_settings(changed)


def _grid(name: str, values: Mapping[str, Any], post: Postprocess) -> ThresholdGrid:
    where = f"search.{name}"
    given = asdict(post.searchable[name]) | dict(values)
    if set(given) != {"low", "high", "step"}:
        raise InputError(f"{where}: expected low, high and step, got {', '.join(map(str, values))}")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}.{key}: expected a number, got {value!r}")
    grid = ThresholdGrid(**given)
    if grid.low > grid.high:
        raise InputError(f"{where}: expected low <= high, got low {grid.low:g}, high {grid.high:g}")
    for end in (grid.low, grid.high):
        try:
            post.with_settings({name: end})
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    if grid.step <= 0:
        raise InputError(f"{where}.step: expected a number above 0, got {grid.step:g}")
    if abs(grid.low + grid.last * grid.step - grid.high) > 1e-6 * grid.step:
        raise InputError(
            f"{where}: steps of {grid.step:g} from {grid.low:g} do not end at {grid.high:g}; "
            f"set high={grid.value(grid.last):g} or another step"
        )
    return grid

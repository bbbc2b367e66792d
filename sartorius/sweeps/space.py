"""The search space: Hydra's sweep overrides as Optuna's distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from sartorius.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution of an override's values.

    `interval(low, high)`: floats; `int(interval(low, high))`: integers, high included; tagged `log`: by logarithm.
    `range(start, stop, step)` of integers: as in Python. Any other discrete sweep: its values, without an order. Raises
    InputError where the limits do not fit.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    try:
        if override.is_interval_sweep():
            drawn = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
            return drawn(sweep.start, sweep.end, log="log" in sweep.tags)
        whole = override.is_range_sweep() and all(isinstance(n, int) for n in (sweep.start, sweep.stop, sweep.step))
        if whole and (values := list(sweep.range())):
            return IntDistribution(min(values), max(values), step=abs(sweep.step))
        return CategoricalDistribution(tuple(override.sweep_string_iterator()))
    except ValueError as error:
        raise InputError(f"{override.input_line}: {error}") from error

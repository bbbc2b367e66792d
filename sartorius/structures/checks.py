"""Checks of settings. Each names the setting, what was expected and what came, and raises InputError.

Settings are keyword arguments after the config group they belong to (`""` for none), so that the message names the key
as it is written on the command line: `fractions("copy_paste", mirror=1.5)` raises "copy_paste.mirror: expected a number
from 0 to 1, got 1.5". A mapping is checked value by value: `fractions("postprocess", score={"cort": 2})` names
postprocess.score.cort.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from numbers import Integral, Real
from typing import Any

from sartorius.errors import InputError


def expect(fine: bool, group: str, key: str, value: object, expected: str) -> None:
    """Raise InputError for the setting `group`.`key` unless `fine`."""
    if not fine:
        raise InputError(f"{group}{'.' * bool(group)}{key}: expected {expected}, got {value!r}")


def numbers(group: str, low: float, high: float = inf, /, **settings: Any) -> None:
    """Check that each setting is a number from `low` to `high`, or a mapping to such numbers."""
    expected = f"a number from {low:g} to {high:g}" if high < inf else f"a number of at least {low:g}"
    for key, value in _each(settings):
        expect(is_number(value) and low <= value <= high, group, key, value, expected)


def fractions(group: str, /, **settings: Any) -> None:
    """Check that each setting is a number from 0 to 1, or a mapping to such numbers."""
    numbers(group, 0, 1, **settings)


def positive(group: str, /, **settings: Any) -> None:
    """Check that each setting is a finite number above 0, or a mapping to such numbers."""
    for key, value in _each(settings):
        expect(is_number(value) and 0 < value < inf, group, key, value, "a number above 0")


def whole(group: str, low: int, /, **settings: Any) -> None:
    """Check that each setting is an integer of at least `low`, or a mapping to such integers."""
    for key, value in _each(settings):
        fine = isinstance(value, Integral) and is_number(value) and int(value) >= low
        expect(fine, group, key, value, f"a whole number of at least {low}")


def switches(group: str, /, **settings: Any) -> None:
    """Check that each setting is true or false."""
    for key, value in settings.items():
        expect(isinstance(value, bool), group, key, value, "true or false")


def one_of(group: str, choices: Collection[str], /, **settings: Any) -> None:
    """Check that each setting is one of the choices."""
    for key, value in settings.items():
        expect(value in choices, group, key, value, f"one of {', '.join(choices)}")


def spans(group: str, /, **settings: Any) -> None:
    """Check that each setting is a pair of numbers, the lower one first."""
    for key, value in settings.items():
        pair = isinstance(value, Sequence) and len(value) == 2 and all(map(is_number, value)) and value[0] <= value[1]
        expect(pair, group, key, value, "[from, to], in this order")


def _each(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Flatten mappings into settings with keys of their own."""
    return [
        (f"{key}.{name}".rstrip("."), number)
        for key, value in settings.items()
        for name, number in (value.items() if isinstance(value, Mapping) else [("", value)])
    ]


def is_number(value: Any) -> bool:
    """Whether it is a real number; NaN and infinities are, booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)

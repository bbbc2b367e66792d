"""Checks of settings in constructors, by `rules`. Each raises InputError: the setting, what was expected, what came.

Settings are keyword arguments after the config group they belong to (`""` for none), so that the message names the key
as it is written on the command line: `fractions("copy_paste", mirror=1.5)` raises "copy_paste.mirror: expected a number
from 0 to 1, got 1.5". A mapping is checked value by value: `fractions("postprocess", score={"cort": 2})` names
postprocess.score.cort.
"""

from collections.abc import Collection
from math import inf
from typing import Any

from sartorius.errors import InputError
from sartorius.structures import rules
from sartorius.structures.rules import Rule


def check(group: str, rule: Rule, /, **settings: Any) -> None:
    """Check that each setting is admitted by the rule, or a mapping to values that are."""
    for key, value in settings.items():
        for problem in rules.by_name(rule).problems(f"{group}{'.' * bool(group)}{key}", value):
            raise InputError(problem)


def expect(fine: bool, group: str, key: str, value: object, expected: str) -> None:
    """Raise InputError for the setting `group`.`key` unless `fine`."""
    if not fine:
        raise InputError(f"{group}{'.' * bool(group)}{key}: expected {expected}, got {value!r}")


def numbers(group: str, low: float, high: float = inf, /, **settings: Any) -> None:
    """Check that each setting is a finite number from `low` to `high`, or a mapping to such numbers."""
    check(group, rules.number(low, high), **settings)


def fractions(group: str, /, **settings: Any) -> None:
    """Check that each setting is a number from 0 to 1, or a mapping to such numbers."""
    check(group, rules.fraction, **settings)


def positive(group: str, /, **settings: Any) -> None:
    """Check that each setting is a finite number above 0, or a mapping to such numbers."""
    check(group, rules.number(above=0), **settings)


def whole(group: str, low: int, /, **settings: Any) -> None:
    """Check that each setting is an integer of at least `low`, or a mapping to such integers."""
    check(group, rules.whole(low), **settings)


def switches(group: str, /, **settings: Any) -> None:
    """Check that each setting is true or false."""
    check(group, rules.flag, **settings)


def one_of(group: str, choices: Collection[str], /, **settings: Any) -> None:
    """Check that each setting is one of the choices."""
    check(group, rules.one_of(*choices), **settings)


def spans(group: str, /, **settings: Any) -> None:
    """Check that each setting is a pair of numbers, the lower one first."""
    check(group, rules.span(rules.number()), **settings)

"""Rules of settings: which values are admitted, and how that is worded.

Rules are joined by `|`: `whole(1) | nothing` admits 3 and None. NaN and infinities are refused by all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A set of values. expected: its name, after "expected". within: rules of entries, or of the alternatives of `|`.

    entries: the rule of each entry of a mapping, if it admits mappings. opens: the entries have rules of their own.
    """

    expected: str
    admits: Callable[[Any], bool]
    within: tuple[Rule, ...] = ()
    entries: Rule | None = None
    opens: bool = False

    def __or__(self, other: Rule) -> Rule:
        """Return the rule that admits what either does."""
        return Rule(
            f"{self.expected}, or {other.expected}",
            lambda value: self.admits(value) or other.admits(value),
            (self, other),
            self.entries or other.entries,
            self.opens or other.opens,
        )

    def problems(self, key: str, value: object) -> Iterator[str]:
        """Describe each value at or below `key` that is not admitted."""
        if isinstance(value, Mapping) and self.entries is not None:
            for name, entry in value.items():
                yield from self.entries.problems(f"{key}.{name}", entry)
        elif not self.admits(value):
            yield f"{key}: expected {self.expected}, got {value!r}"

    def takes(self, value: object) -> bool:
        """Whether the value is admitted, or could be part of one that is."""
        return self.admits(value) or any(rule.takes(value) for rule in self.within)


def is_number(value: object) -> bool:
    """Whether it is a real number; NaN and infinities are, booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(low: float = -inf, high: float = inf, *, above: float | None = None) -> Rule:
    """Admit finite numbers from `low` (or above `above`) to `high`."""

    def admits(value: Any) -> bool:
        return is_number(value) and isfinite(value) and low <= value <= high and (above is None or value > above)

    if above is not None:
        return Rule(f"a number above {above:g}" + (f", up to {high:g}" if high < inf else ""), admits)
    if low == -inf:
        return Rule("a number", admits)
    return Rule(f"a number from {low:g} to {high:g}" if high < inf else f"a number of at least {low:g}", admits)


def whole(low: int, high: float = inf) -> Rule:
    """Admit integers from `low` to `high`."""
    end = f" from {low} to {int(high)}" if high < inf else f" of at least {low}"
    return Rule(
        f"a whole number{end}",
        lambda value: isinstance(value, Integral) and is_number(value) and low <= int(value) <= high,
    )


def one_of(*choices: object) -> Rule:
    """Admit these values."""
    kinds = {type(choice) for choice in choices}
    listed = ", ".join("null" if choice is None else str(choice) for choice in choices)
    return Rule(
        f"one of {listed}" if len(choices) > 1 else listed, lambda value: type(value) in kinds and value in choices
    )


def list_of(entry: Rule, length: int | None = None, least: int = 1) -> Rule:
    """Admit lists of `length` entries, or of at least `least`, each admitted by `entry`."""
    count = f"a list of {length}" if length is not None else "a list"

    def admits(value: Any) -> bool:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        fits = len(value) == length if length is not None else len(value) >= least
        return fits and all(map(entry.admits, value))

    return Rule(f"{count} with each entry {entry.expected}", admits, (entry,))


def span(entry: Rule) -> Rule:
    """Admit [from, to] in this order, each admitted by `entry`."""
    pair = list_of(entry, 2)
    return Rule(
        f"[from, to], in this order, each {entry.expected}",
        lambda value: pair.admits(value) and value[0] <= value[1],
        (entry,),
    )


def map_of(entry: Rule) -> Rule:
    """Admit mappings, also empty ones, whose entries are each admitted by `entry`."""
    return Rule(
        f"a mapping to {entry.expected}",
        lambda value: isinstance(value, Mapping) and all(map(entry.admits, value.values())),
        (entry,),
        entries=entry,
    )


def by_name(rule: Rule) -> Rule:
    """Admit what `rule` does, and mappings to such values, for instance a threshold for each cell type."""
    several = map_of(rule)
    return Rule(rule.expected, lambda value: rule.admits(value) or several.admits(value), (rule,), entries=rule)


def matching(pattern: str, expected: str) -> Rule:
    """Admit text that matches a regular expression as a whole."""
    return Rule(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


anything = Rule("anything", lambda value: True)
nothing = one_of(None)
flag = Rule("true or false", lambda value: isinstance(value, bool))
text = Rule("text", _is_text)
path = Rule("a path", _is_text)
target = matching(r"[^\W\d]\w*(\.[^\W\d]\w*)+", "the full name of a class or function")
part = Rule("a group of settings", lambda value: isinstance(value, Mapping), opens=True)
built = Rule(
    "a group of settings with a _target_", lambda value: isinstance(value, Mapping) and "_target_" in value, opens=True
)
fraction = number(0, 1)

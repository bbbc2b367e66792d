"""The errors of wrong input, which commands print in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_LISTED = 10  # problems that a message names


class InputError(ValueError):
    """Wrong input from the person who runs a command.

    The message names the file, row or image, what was expected, what came, and what to do.
    """

    @property
    def problems(self) -> Sequence[str]:
        """The sentences of the message, one a problem."""
        return [str(self)]


class InputErrors(InputError):
    """Several problems at once; the message names the first ones and how many more there are."""

    def __init__(self, problems: Sequence[object]) -> None:
        super().__init__(problems)  # all of them, so that the error can be pickled

    @property
    def problems(self) -> Sequence[str]:
        """All sentences."""
        return [str(problem) for problem in self.args[0]]

    def __str__(self) -> str:
        more = len(self.problems) - _LISTED
        return "; ".join(self.problems[:_LISTED]) + (f"; and {more} more" if more > 0 else "")


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Append the problems of an InputError to the list instead of raising it."""
    try:
        yield
    except InputError as error:
        problems += error.problems


def raise_all(problems: Sequence[object]) -> None:
    """Raise InputErrors where there is any problem."""
    if problems:
        raise InputErrors(problems)


def one_line(text: str) -> str:
    """Put text into one line, with ? for what a terminal would obey: it may hold names from a file of anybody's."""
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))

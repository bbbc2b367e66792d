"""Several problems in one error."""

from __future__ import annotations

import pickle

import pytest

from sartorius.errors import InputError, InputErrors, collected, one_line, raise_all


def test_problems_are_noted_flat_and_raised_together() -> None:
    problems: list[str] = []
    for error in (InputError("a"), InputErrors(["b", "c"])):
        with collected(problems):
            raise error
    with collected(problems):
        pass
    assert problems == ["a", "b", "c"]
    with pytest.raises(InputError, match="^a; b; c$") as raised:
        raise_all(problems)
    assert raised.value.problems == problems
    raise_all([])


def test_ten_are_named() -> None:
    error = InputErrors([str(k) for k in range(12)])
    assert str(error) == "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 2 more"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and len(again.problems) == 12


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), collected([]):
        raise KeyError("x")


def test_no_text_of_a_file_moves_the_cursor() -> None:
    assert one_line("a\n  b\tc µm é 细胞") == "a b c µm é 细胞"
    assert one_line("\x1b[31mred\x07 \u202ecba\x00 \ud800") == "?[31mred? ?cba? ?"

from __future__ import annotations

from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.tuning.trial_log import TrialLog, Tried

A, B = Tried({"score": 3, "mask": 0}, 0.1 + 0.2), Tried({"score": 4, "mask": 1}, 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "search.jsonl"


def test_what_was_tried_comes_back(path: Path) -> None:
    log = TrialLog(path)
    assert log.of("x") == [] and not path.exists()
    for search, tried in (("x", A), ("y", B), ("x", B)):
        log.add(search, tried)
    for again in (log, TrialLog(path)):
        assert (again.of("x"), again.of("y"), again.of("z")) == ([A, B], [B], [])
    assert list(TrialLog(path).of("x")[0].positions) == ["score", "mask"], "in their order"


def test_half_a_line_is_made_again(path: Path) -> None:
    TrialLog(path).add("x", A)
    whole = path.read_bytes()
    for cut in (1, 10, len(whole) - 1):
        path.write_bytes(whole + whole[:cut])
        log = TrialLog(path)
        assert log.of("x") == [A] and path.read_bytes() == whole
    log.add("x", B)
    assert TrialLog(path).of("x") == [A, B]
    path.write_bytes(whole[:10])
    assert TrialLog(path).of("x") == [] and path.read_bytes() == b""


def test_a_second_program_does_not_double_trials(path: Path) -> None:
    path.parent.mkdir()
    first, second = TrialLog(path), TrialLog(path)
    for log in (first, second):
        log.add("x", A)
        log.add("x", B)
    assert TrialLog(path).of("x") == [A, B]


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"search": "x", "trial": 0, "positions": 1, "score": 0}', "{}"])
def test_another_file_is_refused(path: Path, line: str) -> None:
    TrialLog(path).add("x", A)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"search.jsonl: line 2 is no trial of a search .*; delete the file"):
        TrialLog(path)

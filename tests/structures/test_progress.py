from __future__ import annotations

from collections.abc import Iterator

import pytest

from sartorius.structures.progress import ProgressLines, duration, progress_bar


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_is_due_after_some_seconds() -> None:
    clock = Clock()
    lines = ProgressLines(seconds=8.0, clock=clock)
    said = []
    for done in range(1, 11):
        clock.now += 3.0
        said.append(lines.step("scoring:", done, 10))
    assert said[:2] == ["", ""]
    assert said[2] == "scoring: 3 of 10, 3 s a step, about 21 s left"
    assert [bool(line) for line in said] == [done in (3, 6, 9) for done in range(1, 11)]


def test_the_times_of_one_loop_are_not_those_of_another() -> None:
    clock = Clock()
    lines = ProgressLines(seconds=8.0, clock=clock)
    lines.step("epoch 0: batch", 1, 4)
    clock.now = 100.0
    assert lines.step("validation: batch", 1, 4) == "validation: batch 1 of 4"
    clock.now = 110.0
    assert lines.step("validation: batch", 3, 4, left=60) == "validation: batch 3 of 4, 5 s a step, about 5 min left"
    clock.now = 120.0
    assert lines.step("validation: batch", 1, 4) == "validation: batch 1 of 4", "the next validation"
    assert lines.step("epoch 1: batch", 1, 4, shown=lambda: ", loss 2", now=True) == "epoch 1: batch 1 of 4, loss 2"


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    seen = []
    for image_id in progress_bar(["a", "b", "c", "d"], "scoring", clock):
        seen.append(image_id)
        clock.now += 6.0
    assert seen == ["a", "b", "c", "d"]
    assert capsys.readouterr().err.splitlines() == ["scoring: 2 of 4, 6 s a step, about 12 s left"]
    assert list(progress_bar([], "scoring")) == []
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    items: Iterator[str] = iter(progress_bar(["a", "b"], "scoring"))
    assert list(items) == ["a", "b"]
    assert " of " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

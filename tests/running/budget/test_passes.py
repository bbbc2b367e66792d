"""Deadlines, the order of passes, the time of an image, commands in processes and the images of the competition."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sartorius.errors import InputError
from sartorius.running.budget.deadline import keep_deadline
from sartorius.running.budget.inputs import expected_ids, find_test
from sartorius.running.budget.jobs import hydra_text, last_line, start_process
from sartorius.running.budget.passes import Pace, Pass, TimedMember, next_pass, smaller_views
from tests.running.budget.fakes import FakeClock

A, B = TimedMember("a", Path("a"), 8), TimedMember("b", Path("b"), 1)


def test_a_restart_within_the_hours_keeps_their_end(tmp_path: Path) -> None:
    clock, file = FakeClock(1000.0), tmp_path / "started.json"
    assert keep_deadline(file, 990.0, 1, clock).at == 990 + 3600
    clock.time += 3000
    again = keep_deadline(file, 4000.0, 1, clock)
    assert again.at == 990 + 3600 and again.left == 590


@pytest.mark.parametrize("content", ["", "{}", '{"started": "now"}', '{"started": NaN}', '{"started": 9e9}', "[]"])
def test_a_new_start_where_the_hours_are_over_or_the_file_tells_nothing(tmp_path: Path, content: str) -> None:
    clock, file = FakeClock(1000.0), tmp_path / "started.json"
    file.write_text(content)
    assert keep_deadline(file, 1000.0, 1, clock).at == 4600
    clock.time = 4600
    assert keep_deadline(file, 4600.0, 1, clock).at == 8200
    assert json.loads(file.read_text()) == {"started": 4600.0}


def test_passes_come_in_the_order_of_their_worth() -> None:
    done: dict[str, int] = {}
    order = []
    while (chosen := next_pass([A, B], done, lambda p: False, lambda p: 1.0, 1.0)) is not None:
        order.append(chosen.name)
        done[chosen.member.name] = chosen.views
    assert order == ["a_1_view", "b_1_view", "a_8_views"]


@pytest.mark.parametrize(("left", "expected"), [(800, 8), (799, 4), (399, 2), (199, None), (0, None)])
def test_as_many_views_as_fit(left: float, expected: int | None) -> None:
    chosen = next_pass([A], {"a": 1}, lambda p: False, lambda p: 100.0 * p.views, left)
    assert chosen == (None if expected is None else Pass(A, expected))


def test_numbers_of_views() -> None:
    assert list(smaller_views(8, 1)) == [8, 4, 2]
    assert list(smaller_views(24, 4)) == [24, 16, 8]
    assert list(smaller_views(3, 1)) == [3, 2]
    assert list(smaller_views(1, 1)) == []


def test_what_was_tried_in_vain_is_not_chosen() -> None:
    assert next_pass([A, B], {}, lambda p: p.member is A, lambda p: 0.0, 1.0) == Pass(B, 1)
    assert next_pass([A], {"a": 1}, lambda p: p.views == 8, lambda p: 0.0, 1.0) == Pass(A, 4)


def test_the_time_of_an_image_is_measured_behind_the_start() -> None:
    pace = Pace(100.0, 3)
    for now, images in [(100, 5), (110, 5), (120, 6), (121, 6), (124, 7)]:
        pace.note(now, images)
        assert pace.each is None
    assert pace.overall(124) == 24 / 2
    pace.note(130, 8)
    assert (pace.startup, pace.each, pace.overall(999)) == (20, 5.0, 5.0)
    assert Pace(0.0, 3).overall(50) == 0.0


@pytest.mark.parametrize(
    "value",
    [1, 0.5, None, True, [], ["a", 1.5], "", "a,b", 'q"u\\o"te\\', "Jörg (1)", {"a": {"b": [1, "}"]}}, "null", "1"],
)
def test_options_come_back_as_they_were(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"x={hydra_text(value)}"])
    assert override.value() == value


def test_a_command_in_a_process(tmp_path: Path) -> None:
    file, log = tmp_path / 'Jörg (1), "x".csv', tmp_path / "logs" / "a.log"
    file.write_text("id,predicted\na,\n")
    job = start_process("submit", {"validate": str(file), "postprocess": {}}, log)
    while job.code() is None:
        time.sleep(0.05)
    job.stop()
    assert (job.code(), "a valid submission" in log.read_text()) == (0, True), log.read_text()
    assert last_line(log).startswith("next: kaggle") and last_line(tmp_path / "none") == "it printed nothing"


def test_a_command_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """As after `kill -9` of the notebook, with the process that loads its data: the next one may write the folder."""
    (tmp_path / "waiting.py").write_text(
        "import os, pathlib, time\n"
        "if child := os.fork():\n    pathlib.Path('pid').write_text(f'{os.getpid()} {child}')\n"
        "time.sleep(600)\n"
    )
    program = (
        "import pathlib, sartorius, time; sartorius.__path__.append('.')\n"
        "from sartorius.running.budget.jobs import start_process\n"
        "start_process('waiting', {}, pathlib.Path('log'))\ntime.sleep(600)"
    )
    (tmp_path / "sitecustomize.py").write_text("import sartorius; sartorius.__path__.append('.')\n")
    root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{root}"}
    starter = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    pid = tmp_path / "pid"
    while not (pid.is_file() and " " in pid.read_text()):
        assert starter.poll() is None
        time.sleep(0.05)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    while any(map(runs, pid.read_text().split())):
        time.sleep(0.05)


def runs(pid: str) -> bool:
    """Whether a process does anything; one that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def competition(folder: Path, names: list[str], sample: str) -> None:
    (folder / "test").mkdir(parents=True)
    (folder / "train").mkdir()
    for name in names:
        (folder / "test" / name).touch()
    (folder / "sample_submission.csv").write_text(sample)


def test_images_are_found_wherever_they_are_mounted(tmp_path: Path) -> None:
    competition(tmp_path / "competitions" / "x", ["b.png", "a.tif", "notes.txt"], "id,predicted\na,1 2\na,5 6\nc,\n")
    (tmp_path / "datasets" / "kit" / "test").mkdir(parents=True)
    test, problems = find_test(tmp_path), list[str]()
    assert test == tmp_path / "competitions" / "x" / "test"
    assert expected_ids(test, problems) == ["a", "b", "c"]
    assert problems == [f"image c: in sample_submission.csv, but without a file in {test}"]
    test.with_name("sample_submission.csv").write_text("damaged")
    problems.clear()
    assert expected_ids(test, problems) == ["a", "b"] and "expected id,predicted" in problems[0]


def test_no_images_and_those_of_two_competitions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one folder `test` beside sample_submission.csv in it, found none"):
        find_test(tmp_path)
    competition(tmp_path / "x", ["a.png"], "id,predicted\n")
    competition(tmp_path / "y", ["a.png"], "id,predicted\n")
    with pytest.raises(InputError, match="x/test, .*y/test|y/test, .*x/test"):
        find_test(tmp_path)

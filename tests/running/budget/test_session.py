"""The passes of a session on a fake clock: which run, what is submitted, and that the file is complete at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartorius.formats.submission import read_submission, validate_submission
from sartorius.running.budget.deadline import keep_deadline
from sartorius.running.budget.options import BudgetSettings, Finishing
from sartorius.running.budget.passes import TimedMember
from sartorius.running.budget.rows import SubmissionRows
from sartorius.running.budget.session import Session
from sartorius.structures.detections import DetectionsFolder
from tests.running.budget.fakes import SIZE, FakeClock, FakeJobs

IDS = [f"p{number:02d}" for number in range(20)]
SETTINGS = BudgetSettings(spare=10, measured=3, poll=1, refresh=5, joining=0.5)
PLAIN = ["a_1_view", "b_1_view", "joined"]


class Run:
    """A session of two members of 8 views in a folder; the submission is checked after every sleep."""

    def __init__(self, folder: Path, seconds: float, each: dict[str, float], ids: Sequence[str] = IDS, **more: Any):
        self.clock = FakeClock(watch=self.check)
        self.jobs = FakeJobs(self.clock, [i for i in ids if i in IDS], each, **more)
        self.folder, self.seconds, self.ids, self.stop_at = folder, seconds, ids, float("inf")
        self.filled = 0

    def check(self) -> None:
        if self.clock.time >= self.stop_at:
            raise KeyboardInterrupt
        assert validate_submission(self.folder / "submission.csv", dict.fromkeys(self.ids, SIZE)) == []
        before, self.filled = self.filled, sum(map(bool, self.rows.values()))
        assert self.filled >= before

    def run(self, members: str = "ab", views: int = 8, **finishing: Any) -> list[str]:
        deadline = keep_deadline(self.folder / "started.json", self.clock.time, self.seconds / 3600, self.clock)
        chosen = {"tta": None, "ensemble": {}, "weights": {}, "postprocess": {}, "filter": "saved", **finishing}
        session = Session(
            members=[TimedMember(name, Path(f"{name}.ckpt"), views) for name in members],
            images=Path("images"),
            work=self.folder / "work",
            rows=SubmissionRows(self.folder / "submission.csv", self.ids, self.clock),
            deadline=deadline,
            start=self.jobs,
            settings=SETTINGS,
            finishing=Finishing(**chosen),
        )
        (self.folder / "work").mkdir(exist_ok=True)
        missing = session.run()
        self.check()
        assert self.clock.time <= deadline.at
        return missing

    @property
    def passes(self) -> list[str]:
        return [name for name, _ in self.jobs.started]

    @property
    def rows(self) -> dict[str, list[str]]:
        return read_submission(self.folder / "submission.csv")

    def rows_of(self, name: str) -> dict[str, list[str]]:
        """The rows that a folder of detections gives, made without a session."""
        rows = SubmissionRows(self.folder / "alone.csv", self.ids, self.clock)
        rows.take(self.folder / "work" / name / "detections", {}, "saved", lambda: False)
        return rows.texts


def test_with_time_enough_all_passes_run_and_their_join_is_submitted(tmp_path: Path) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0, "b": 2.0})
    assert run.run(weights={"a": 2, "b": 1}, tta={"x": 1}) == []
    assert run.passes == [*PLAIN, "a_8_views", "joined", "b_8_views", "joined"]
    assert run.rows == run.rows_of("joined") and sum(map(len, run.rows.values())) > 20
    predict, join = run.jobs.options[0], run.jobs.options[-1]
    assert (predict["views"], predict["tta"], predict["on_error"]) == (1, {"x": 1}, "skip")
    work = tmp_path / "work"
    assert join["members"] == {name: [str(work / f"{name}_8_views" / "detections")] for name in "ab"}
    assert join["weights"] == {"a": 2, "b": 1} and join["images"] == "all"


def test_views_are_left_out_before_members(tmp_path: Path) -> None:
    # 5 + 20 x 1 s each member; joining 5 + 20 x 0.5; 8 views would take 165 s
    run = Run(tmp_path, 130, {"a": 1.0, "b": 1.0})
    assert run.run() == []
    assert run.passes == PLAIN
    fewer = Run(tmp_path / "more", 190, {"a": 1.0, "b": 1.0})
    assert fewer.run() == []
    assert fewer.passes == [*PLAIN, "a_4_views", "joined"]


def test_a_member_that_is_too_slow_is_stopped_once_it_is_measured(tmp_path: Path) -> None:
    run = Run(tmp_path, 130, {"a": 1.0, "b": 30.0})
    assert run.run(views=1) == []
    assert run.passes == ["a_1_view", "b_1_view"]
    assert run.rows == run.rows_of("a_1_view")
    assert run.clock.time < 1130 - 10


def test_the_only_pass_that_does_not_fit_gives_what_it_reached(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run(tmp_path, 60, {"a": 4.0, "b": 0.1})
    missing = run.run()
    reached = (60 - 10 - 5) // 4
    assert missing == IDS[reached:]
    assert run.passes == ["a_1_view"]
    assert [image_id for image_id, texts in run.rows.items() if texts] == IDS[:reached]
    said = capsys.readouterr().out
    assert f"EMPTY ROW: {IDS[reached]}: no file of it, or not reached in time" in said


def test_without_any_time_every_image_has_an_empty_row(tmp_path: Path) -> None:
    run = Run(tmp_path, 5, {"a": 1.0})
    assert run.run() == IDS
    assert run.passes == [] and run.rows == {image_id: [] for image_id in IDS}


def test_a_member_that_fails_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run(tmp_path, 10_000, {"b": 1.0}, out_of_memory=["b_8_views"])
    assert run.run() == []
    assert run.passes == ["a_1_view", "b_1_view", "b_8_views"]
    assert run.rows == run.rows_of("b_1_view")
    assert "a_1_view: LEFT OUT, it failed: error: memory ran out" in capsys.readouterr().out


def test_where_all_fail_every_row_is_empty(tmp_path: Path) -> None:
    run = Run(tmp_path, 10_000, {})
    assert run.run() == IDS
    assert run.passes == ["a_1_view", "b_1_view"]


def test_images_that_cannot_be_read_have_an_empty_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0}, ids=[*IDS, "absent"], skipped={"p03": "p03.png: cut off"})
    assert run.run("a", views=1) == ["p03", "absent"]
    assert not run.rows["p03"] and not run.rows["absent"] and run.rows["p04"]
    said = capsys.readouterr().out
    assert "EMPTY ROW: p03: p03.png: cut off" in said and "EMPTY ROW: absent" in said


@pytest.mark.parametrize("at", [1, 6, 17, 32, 50, 60, 90, 150, 240, 300, 400])
def test_a_session_that_is_killed_goes_on_with_the_same_deadline(tmp_path: Path, at: int) -> None:
    run = Run(tmp_path, 600, {"a": 1.0, "b": 1.0})
    run.stop_at = run.clock.time + at
    with pytest.raises(KeyboardInterrupt):
        run.run()
    before = len(run.jobs.started)
    there = {path.parent.parent.name: len(DetectionsFolder(path.parent).image_ids()) for path in run_metas(tmp_path)}
    run.stop_at = float("inf")
    run.clock.time += 3
    assert run.run() == []
    assert run.clock.time <= 1600
    for name, todo in run.jobs.started[before:]:
        assert name == "joined" or todo == len(IDS) - there.get(name, 0)
        there[name] = len(IDS)
    assert run.rows == run.rows_of("joined")
    assert {"a_8_views", "b_1_view"} <= set(run.passes)


def run_metas(folder: Path) -> list[Path]:
    return [path for path in folder.glob("work/*/detections/meta.json") if "joined" not in path.parts]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_takes_long_the_end_is_kept_and_the_file_is_complete(tmp_path: Path, seed: int) -> None:
    """`Run` checks the file after every sleep, and the end."""
    random = np.random.default_rng(seed)
    each = {name: float(2 ** random.uniform(-4, 4)) for name in "abc" if random.random() < 0.8}
    joining, startup = float(2 ** random.uniform(-6, 3)), float(2 ** random.uniform(-1, 5))
    run = Run(tmp_path, float(2 ** random.uniform(3, 10)), each, joining=joining, startup=startup)
    missing = run.run("abc")
    assert [image_id for image_id in IDS if image_id not in missing] == IDS[: len(IDS) - len(missing)]
    assert not missing or all(not name.startswith("joined") for name in run.passes)


def test_a_join_that_takes_too_long_leaves_the_submission_of_one_member(tmp_path: Path) -> None:
    run = Run(tmp_path, 200, {"a": 1.0, "b": 1.0}, joining=100.0)
    assert run.run(views=1) == []
    assert run.passes == PLAIN
    assert run.rows == run.rows_of("a_1_view")


def test_damaged_detections_keep_the_row_that_was_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0})
    run.run("a", views=1)
    before = run.rows
    folder = tmp_path / "work" / "a_1_view" / "detections"
    (folder / "p05.npz").write_bytes(b"half a file")
    assert run.run("a", views=1) == []
    assert run.rows == before and all(before.values())
    assert "EARLIER ROW: p05: " in capsys.readouterr().out


@pytest.mark.parametrize("left", [10, 6, 1])
def test_a_restart_without_time_for_anything_keeps_the_submission(tmp_path: Path, left: float) -> None:
    whole = Run(tmp_path / "whole", 10_000, {"a": 1.0, "b": 1.0})
    partly = Run(tmp_path / "partly", 1000, {"a": 10.0, "b": 1.0})
    partly.stop_at = partly.clock.time + 100
    with pytest.raises(KeyboardInterrupt):
        partly.run()
    whole.run(views=1)
    assert (whole.filled, partly.filled) == (20, 8)
    for run in (whole, partly):
        before, run.stop_at = run.rows, float("inf")
        run.clock.time = 1000 + run.seconds - left
        assert run.run(views=1) == [image_id for image_id in IDS if not run.rows[image_id]]
        assert {image_id: run.rows[image_id] for image_id in IDS if before[image_id]} == {
            image_id: texts for image_id, texts in before.items() if texts
        }


def test_a_restart_takes_what_the_first_pass_had_not_submitted_yet(tmp_path: Path) -> None:
    run = Run(tmp_path, 1000, {"a": 10.0})
    run.stop_at = run.clock.time + 49  # 4 images, the last at 45; the file is of 46 and before
    with pytest.raises(KeyboardInterrupt):
        run.run(views=1)
    (tmp_path / "submission.csv").unlink()
    run.stop_at, run.filled, run.clock.time = float("inf"), 0, 1000 + 1000 - 8
    assert run.run() == IDS[4:] and all(run.rows[image_id] for image_id in IDS[:4])


def test_a_join_that_fails_after_a_restart_keeps_the_submission(tmp_path: Path) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0, "b": 1.0})
    run.run(views=1)
    before, run.jobs.out_of_memory = run.rows, ["joined"]
    assert run.run(views=1) == [] and run.rows == before == run.rows_of("joined")


@pytest.mark.parametrize("content", [None, "", "id,predicted\nother,\n", "damaged"])
def test_where_no_submission_is_left_and_the_join_fails_that_of_one_pass_is_taken(
    tmp_path: Path, content: str | None
) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0, "b": 1.0})
    run.run(views=1)
    (tmp_path / "submission.csv").unlink()
    if content is not None:
        (tmp_path / "submission.csv").write_text(content)
    run.jobs.out_of_memory, run.filled = ["joined"], 0
    assert run.run(views=1) == [] and run.rows == run.rows_of("a_1_view")


def test_a_submission_that_lacks_cells_is_filled_from_single_passes(tmp_path: Path) -> None:
    run = Run(tmp_path, 10_000, {"a": 1.0, "b": 1.0})
    run.run(views=1)
    joined, single = run.rows, run.rows_of("a_1_view")
    text = (tmp_path / "submission.csv").read_text().splitlines(keepends=True)
    (tmp_path / "submission.csv").write_text("".join(line for line in text if not line.startswith("p07,")) + "p07,\n")
    run.jobs.out_of_memory, run.filled = ["joined"], 0
    assert run.run(views=1) == [] and run.rows == {**joined, "p07": single["p07"]}


def test_changes_of_thresholds_are_those_of_the_result(tmp_path: Path) -> None:
    strict = {"score": {"threshold": 1.0}}
    single = Run(tmp_path / "single", 10_000, {"a": 1.0})
    single.run("a", views=1, postprocess=strict)
    assert not any(single.rows.values())
    alone = Run(tmp_path / "alone", 10_000, {"a": 1.0})  # the second fails: the first keeps its own thresholds
    alone.run(views=1, postprocess=strict)
    assert alone.rows == alone.rows_of("a_1_view") and any(alone.rows.values())

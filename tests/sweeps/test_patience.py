"""Launchers whose processes die, as joblib, submitit and Ray show it to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sartorius.sweeps.members import FAILED, FINISHED, RUNNING, SweepMember, read_member, write_member
from sartorius.sweeps.patience import Patience


class Pool:
    """Runs members two at a time; the pool breaks, with all that run, when one of `kills` does."""

    def __init__(self, folder: Path, kills: set[int]) -> None:
        self.folder, self.kills, self.begun = folder, kills, list[list[int]]()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        numbers = list(range(initial_job_idx, initial_job_idx + len(job_overrides)))
        self.begun.append(numbers)
        for k in range(0, len(numbers), 2):
            pair = numbers[k : k + 2]
            for number in pair:
                write_member(self.folder, SweepMember(number, (f"x={number}",), RUNNING))
            if self.kills & set(pair):
                raise RuntimeError("a process of the pool died")
            for number in pair:
                write_member(self.folder, SweepMember(number, (f"x={number}",), FINISHED, score=1.0))


def statuses(folder: Path, count: int) -> list[str | None]:
    found = [read_member(folder, number) for number in range(count)]
    return [None if member is None else member.status for member in found]


def test_a_pool_that_breaks(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {2})
    assert Patience(pool, tmp_path).launch([[f"x={k}"] for k in range(6)], 0) == []
    assert pool.begun == [[0, 1, 2, 3, 4, 5], [2], [3], [4, 5]]
    assert statuses(tmp_path, 6) == [FINISHED, FINISHED, FAILED, FINISHED, FINISHED, FINISHED]
    died = read_member(tmp_path, 2)
    assert died is not None
    assert died.error == "its process ended without a result: killed, out of memory or out of time"


def test_every_process_dies(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {0, 1, 2})
    Patience(pool, tmp_path).launch([["x=0"], ["x=1"], ["x=2"]], 0)
    assert statuses(tmp_path, 3) == [FAILED] * 3


def broken(*_: object) -> None:
    raise OSError("no sbatch here")


@pytest.mark.parametrize("launch", [broken])
def test_a_launcher_that_cannot_begin_is_an_error(tmp_path: Path, launch: Callable[..., None]) -> None:
    pool = Pool(tmp_path, set())
    pool.launch = launch  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no sbatch here"):
        Patience(pool, tmp_path).launch([["x=0"]], 0)
    assert statuses(tmp_path, 1) == [None]


def test_what_was_killed_is_known_to_be_until_it_ends(tmp_path: Path) -> None:
    """0 was killed with the whole command, 1 alone, 2 failed; 3 is another sweep's."""
    write_member(tmp_path, SweepMember(0, ("x=0",), RUNNING))
    write_member(tmp_path, SweepMember(1, ("x=1",), FAILED, error="died", killed=True))
    write_member(tmp_path, SweepMember(2, ("x=2",), FAILED, error="a bug"))
    write_member(tmp_path, SweepMember(3, ("x=4",), RUNNING))
    seen = []
    pool = Pool(tmp_path, set())
    pool.launch = lambda *_: seen.extend(read_member(tmp_path, n) for n in range(4))  # type: ignore[method-assign]
    Patience(pool, tmp_path).launch([[f"x={k}"] for k in range(4)], 0)
    assert seen == [SweepMember(0, ("x=0",), killed=True), SweepMember(1, ("x=1",), killed=True), None, None]
    after = [read_member(tmp_path, n) for n in range(4)]
    assert [member.killed for member in after if member is not None] == [True, True, False, False]


def test_what_was_left_of_an_earlier_call_is_not_taken_for_this_one(tmp_path: Path) -> None:
    write_member(tmp_path, SweepMember(0, ("x=0",), RUNNING))
    write_member(tmp_path, SweepMember(1, ("x=1",), FINISHED, score=2.0))
    pool = Pool(tmp_path, set())
    pool.launch = lambda *_: None  # type: ignore[method-assign]
    Patience(pool, tmp_path).launch([["x=0"], ["x=1"]], 0)
    assert statuses(tmp_path, 2) == [FAILED, FINISHED]

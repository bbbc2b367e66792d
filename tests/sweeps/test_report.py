"""The end of a sweep: its table, and what a launcher raised."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sartorius.sweeps.members import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING, SweepMember
from sartorius.sweeps.sweepers import reported
from sartorius.sweeps.task import MembersFailed


def end(folder: Path, *statuses: str, error: BaseException | None = None) -> list[str]:
    """Members with these records, after a launcher that raised `error`; returns the statuses in the table."""
    found = [SweepMember(n, (f"x={n}",), status, score=1.0) for n, status in enumerate(statuses)]
    try:
        with reported(folder, lambda: found):
            if error is not None:
                raise error
    finally:
        table = folder / "sweep.csv"
        statuses = tuple(pd.read_csv(table).sort_values("member").status) if table.exists() else ()
    return list(statuses)


def test_all_have_a_result(tmp_path: Path) -> None:
    assert end(tmp_path, FINISHED, PRUNED) == [FINISHED, PRUNED]


@pytest.mark.parametrize("lost", [FAILED, RUNNING])
def test_a_member_without_a_result(tmp_path: Path, lost: str) -> None:
    with pytest.raises(MembersFailed):
        end(tmp_path, FINISHED, lost)
    assert pd.read_csv(tmp_path / "sweep.csv").status.tolist() == [FINISHED, FAILED]


def test_a_process_that_died(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MembersFailed):
        end(tmp_path, RUNNING, FINISHED, WAITING, error=RuntimeError("a process of the pool\n died"))
    table = pd.read_csv(tmp_path / "sweep.csv", keep_default_na=False).set_index("member")
    assert table.status.to_dict() == {0: FAILED, 1: FINISHED, 2: WAITING}
    assert table.error[0] == "its process ended without a result: killed, out of memory or out of time"
    assert capsys.readouterr().err == "error: RuntimeError: a process of the pool died\n"


def test_a_launcher_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no sbatch here"):
        end(tmp_path, WAITING, WAITING, error=OSError("no sbatch here"))
    assert not (tmp_path / "sweep.csv").exists()


def test_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        end(tmp_path, FINISHED, RUNNING, WAITING, error=KeyboardInterrupt())
    assert pd.read_csv(tmp_path / "sweep.csv").status.tolist() == [FINISHED, STOPPED, WAITING]

"""Processes started together, and every way in which they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.running import processes
from sartorius.running.signals import KilledError, Terminated
from tests.running import process_work as work

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def alive(process: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def test_the_first_returns_and_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processes.launch(work.tell, [tmp_path], 3) == "returned by 0"
    assert capfd.readouterr().out == "printed by 0\n"
    told = [(tmp_path / f"{k}.txt").read_text().split() for k in range(3)]
    assert [one[0] for one in told] == ["0", "1", "2"]
    assert len({tuple(one[1:]) for one in told}) == 1  # one port
    assert told[0][1:3] == ["3", "127.0.0.1"] and told[0][4] == "7"
    assert "LOCAL_RANK" not in os.environ


@pytest.mark.parametrize("failing", [[0], [1], [0, 1]])
def test_an_input_error_of_one_ends_all_and_is_raised_once(tmp_path: Path, failing: list[int]) -> None:
    with pytest.raises(InputError, match="^wrong number [01]$"):
        processes.launch(work.fail, [tmp_path, failing, "input"], 2)
    assert not any(alive(int(path.read_text())) for path in tmp_path.glob("*.started"))


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"process 2 of 2 failed(.|\n)*process_work.py(.|\n)*ZeroDivisionError: a bug"
    ):
        processes.launch(work.fail, [tmp_path, [1], "bug"], 2)


def test_a_killed_process_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(KilledError, match=r"process 2 of 2 was killed \(SIGKILL\).*memory.* \| last words"):
        processes.launch(work.fail, [tmp_path, [1], "kill"], 2)
    with pytest.raises(InputError, match="process 1 of 2 ended by itself with code 3"):
        processes.launch(work.fail, [tmp_path, [0], "exit"], 2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_reaches_all_of_them(tmp_path: Path, signum: int, raised: type[BaseException]) -> None:
    def interrupt() -> None:
        soon(lambda: len(list(tmp_path.glob("*.started"))) == 2)
        os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    threading.Thread(target=interrupt).start()
    with pytest.raises(raised):
        processes.launch(work.wait, [tmp_path], 2)
    assert signal.getsignal(signum) is before
    assert not any(alive(int(path.read_text())) for path in tmp_path.glob("*.started"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at processes")
def test_they_do_not_outlive_a_starter_that_is_killed(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from sartorius.running import processes
from tests.running import process_work as work
processes.launch(work.wait, [Path({str(tmp_path)!r})], 2)
"""
    starter = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    assert soon(lambda: len([path for path in tmp_path.glob("*.started") if path.read_text()]) == 2)
    starter.kill()
    starter.wait()
    assert soon(lambda: not any(alive(int(path.read_text())) for path in tmp_path.glob("*.started")))


STEP = {"SLURM_JOB_NAME": "train", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "6"}


@pytest.mark.parametrize(
    ("environment", "number", "count"),
    [
        ({}, 0, 1),
        ({"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, 1, 2),  # launch
        ({"WORLD_SIZE": "2"}, 0, 1),  # of whatever
        ({**STEP, "SLURM_PROCID": "5", "LOCAL_RANK": "1"}, 5, 6),  # the second of the third machine
        ({**STEP, "SLURM_PROCID": "0", "LOCAL_RANK": "1", "RANK": "4", "WORLD_SIZE": "6"}, 4, 6),  # torchrun in a job
        ({"SLURM_JOB_NAME": "a.sh", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, 0, 1),  # a batch script without srun
        ({**STEP, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "3"}, 0, 1),  # a shell of salloc
        ({**STEP, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "3"}, 0, 1),  # srun --pty bash
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, 0, 1),  # one task, as submitit starts
    ],
)
def test_the_number_of_a_process_and_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], number: int, count: int
) -> None:
    for name in [*STEP, "SLURM_PROCID", "LOCAL_RANK", "RANK", "WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processes.rank(), processes.count()) == (number, count)

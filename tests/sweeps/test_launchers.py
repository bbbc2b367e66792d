"""Real processes: members on other cores, one that dies, and a search that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from sartorius.running import wiring
from sartorius.running.commands import command

wiring.CONF_DIR = Path("conf").resolve()

@command("small")
def main(cfg):
    from hydra.core.hydra_config import HydraConfig
    if os.environ.get("KILL") == str(HydraConfig.get().job.num):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("HANG") == str(HydraConfig.get().job.num):
        time.sleep(60)
    print("threads", os.environ.get("OMP_NUM_THREADS"), flush=True)
    return 1 - (cfg.x - 1) ** 2

main()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    own = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    pipe, path = subprocess.PIPE, os.pathsep.join([str(ROOT), str(ROOT / "sartorius" / "sweeps" / "plugin")])
    return subprocess.Popen(
        [sys.executable, "program.py", "-m", *arguments],
        cwd=folder, env={**own, "PYTHONPATH": path, **environment},
        stdout=pipe, stderr=pipe, text=True,
    )  # fmt: skip


def test_a_dead_process_among_those_on_other_cores(conf: Path, tmp_path: Path) -> None:
    """The pool ends with it; the same command runs what is left."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = ["x=0,1,2,3", "hydra/launcher=cores", "hydra.launcher.n_jobs=2"]
    output, errors = (process := start(tmp_path, *options, KILL="1")).communicate(timeout=250)
    assert process.returncode == 1, errors
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv").set_index("member")
    assert table.status[1] == "failed"
    assert set(table.status[[0, 2, 3]]) <= {"finished", "failed", "waiting"}
    assert "member 1 failed: its process ended without a result" in output
    assert "error: TerminatedWorkerError" in errors
    assert "Traceback" not in errors

    output, errors = (process := start(tmp_path, *options)).communicate(timeout=250)
    assert process.returncode == 0, errors
    assert pd.read_csv(tmp_path / "sweep" / "sweep.csv").status.tolist() == ["finished"] * 4
    assert f"threads {max((os.cpu_count() or 1) // 2, 1)}" in output


def test_members_in_processes_of_submitit(conf: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    _, errors = (process := start(tmp_path, "x=0,1", "hydra/launcher=slurm_local", KILL="1")).communicate(timeout=250)
    assert process.returncode == 1, errors
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv").set_index("member")
    assert table.status.to_dict() == {0: "finished", 1: "failed"}


def test_a_search_that_is_killed_goes_on(conf: Path, tmp_path: Path) -> None:
    options = ["sweep=search", "hydra.sweeper.n_trials=4"]
    process = start(tmp_path, *options, HANG="2")
    until = time.monotonic() + 120
    while not (tmp_path / "sweep" / "members" / "2.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "sweep" / "sweep.csv").exists()

    output, errors = (process := start(tmp_path, *options)).communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "2 of 4 trials are there; 1 that were killed are repeated" in output
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert sorted(table.member) == [0, 1, 3, 4]
    assert set(table.status) == {"finished"}

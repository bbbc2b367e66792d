"""Two processes on the CPU (gloo): what is logged is logged once, of the images of both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from sartorius.callbacks.batch_losses import BatchLosses
from sartorius.callbacks.curves import Curves
from sartorius.loggers.csv import CSVLog
from sartorius.loggers.tolerant import TolerantLogger
from sartorius.running import processes
from tests.callbacks.board import Board
from tests.callbacks.test_dashboards import fit

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, TRAINED, BATCH = 2, 8, 2  # images trained on and in a batch


def train_and_tell(root: Path, folder: Path, started: int) -> None:
    """Train with all that logs; each process leaves what its logger was shown in a file of its own."""
    board = Board()
    fit(
        root, folder, loggers=[TolerantLogger(board, "board"), TolerantLogger(CSVLog(folder / "metrics.csv"), "csv")],
        more=[BatchLosses(folder, 1, 1e9), Curves(folder)], strategy="ddp" if started > 1 else "auto",
        devices=started,
    )  # fmt: skip
    _, rows = board.tables.get("images_best", ([], []))
    told = {
        "metrics": sorted(board.metrics),
        "steps": {name: [step for step, _ in own] for name, own in board.cells.items()},
        "table": [row[:-1] for row in rows], "files": sorted(board.files), "pid": os.getpid(),
    }  # fmt: skip
    (folder / f"{processes.rank()}.json").write_text(json.dumps(told))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_show_what_one_does(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    train_and_tell(tiny_competition, tmp_path / "one", 1)
    processes.launch(train_and_tell, [tiny_competition, tmp_path / "two", 2], 2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one/0.json", "two/0.json", "two/1.json"))
    assert two["pid"] != other["pid"]
    nothing = {"steps": {}, "table": [], "files": []}
    assert {name: other[name] for name in nothing} == nothing
    for name in ("metrics", "table", "files"):
        assert two[name] == one[name]
    assert {len(steps) for steps in two["steps"].values()} == {2}  # one of each validation
    for name, started in (("one", 1), ("two", 2)):
        batches = pd.read_csv(tmp_path / name / "batches.csv")
        assert batches.step.tolist() == list(range(EPOCHS * TRAINED // (BATCH * started)))
        assert not batches.duplicated(["epoch", "batch"]).any()
        assert not pd.read_csv(tmp_path / name / "metrics.csv").duplicated(["epoch", "step"]).any()
        assert (tmp_path / name / "plots" / "curves.png").is_file()

"""The GPU check, whole on the CPU in its tiny mode, and how it keeps a failing part to itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_check import PARTS, PRECISIONS, Part, Row, Worker, chosen, run_parts, table
from gpu_networks import difference, matched

from sartorius.structures.detections import Detections

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (Part("machine", "ok", {"a": "s"}, 5, needs=()), Part("second", "ok", {"b": "s", "c": "MB"}, 5, needs=()))


def check(folder: Path, code: int, **variables: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of gpu_check.json by part and name, of the script that must end with `code`."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "OUT": str(folder / "out")}
    script = ["sh", str(ROOT / "experiments" / "gpu_check.sh")]
    done = subprocess.run(
        script, env={**environment, "DEVICE": "cpu", "TINY": "1", **variables}, cwd=folder, capture_output=True,
        text=True, timeout=1000,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["out"]
    rows = json.loads((folder / "out" / "gpu_check.json").read_text())
    lines = (folder / "out" / "gpu_check.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [[f"| {row['part']}", row["measured"]] for row in rows]
    return {(row["part"], row["measured"]): row for row in rows}


def worker(program: str) -> Worker:
    """A worker whose process runs this Python program."""
    return Worker([sys.executable, "-c", f"import json, os, sys\n{program}"], open(os.devnull, "w"))


def statuses(program: str, parts: tuple[Part, ...], budget: float = 100.0) -> list[tuple[str, str]]:
    asked = worker(program)
    rows = list(run_parts(parts, asked, budget))
    asked.end()
    asked.log.close()
    return [(row.status, row.note) for row in rows]


ANSWERS = """
for line in sys.stdin:
    function, arguments, limit = json.loads(line)
    if function == "die":
        os._exit(3)
    if function == "raise":
        print(json.dumps({"error": "ValueError: broken"}), flush=True)
        break
    value = {"nan": float("nan"), "skip": None}.get(function, 1.5)
    print(json.dumps({"rows": {name: [value, function, False] for name in "abc"}}), flush=True)
"""


@pytest.mark.parametrize(
    ("function", "status", "note"),
    [
        ("die", "failed", "the process ended with exit code 3; see the log"),
        ("raise", "failed", "ValueError: broken"),
        ("nan", "failed", "nan; nan"),
        ("skip", "skipped", "skip"),
        ("ok", "ok", "ok"),
    ],
)
def test_a_part_that_fails_costs_its_own_rows(function: str, status: str, note: str) -> None:
    first = Part("first", function, {"a": "s"}, 5, needs=())
    assert statuses(ANSWERS, (first, NEEDED[1])) == [(status, note), ("ok", "ok"), ("ok", "ok")]


def test_a_part_without_what_it_needs_is_skipped() -> None:
    third = Part("third", "ok", {"a": "s"}, 5, needs=("first",))
    parts = (Part("first", "raise", {"a": "s"}, 5, needs=()), third, NEEDED[0])
    assert statuses(ANSWERS, parts) == [
        ("failed", "ValueError: broken"),
        ("skipped", "it needs 'first', which failed or was skipped"),
        ("ok", "ok"),
    ]


def test_a_part_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_check.SHORTEST_LIMIT", 0.2)
    monkeypatch.setattr("gpu_check.SPARE", 0.1)
    hangs = "import time\ntime.sleep(60)"
    (row,) = statuses(hangs, (Part("first", "ok", {"a": "s"}, 0.01, needs=()),))
    assert row == ("failed", "not done after 0 s; see the log")


def test_what_does_not_fit_the_budget_is_skipped() -> None:
    long = Part("long", "ok", {"a": "s"}, 50, needs=())
    assert statuses(ANSWERS, (long, NEEDED[0]), budget=40) == [
        ("skipped", "it takes about 50 s; of 40 s 40 are left"),
        ("ok", "ok"),
    ]


def test_parts_are_chosen_with_what_they_need() -> None:
    assert chosen("*") == list(PARTS)
    assert [part.name for part in chosen("evaluated*, U-Net in 32-true")] == [
        "machine", "images", "U-Net in 32-true", "checkpoint", "evaluated twice",
    ]  # fmt: skip
    assert chosen("nothing") == []
    names = [part.name for part in PARTS]
    assert all(names.index(need) < names.index(part.name) for part in PARTS for need in part.needs)
    assert sum(part.seconds for part in PARTS) <= 480


def test_the_table_is_markdown() -> None:
    rows = [Row("first", "a", 1234.56, "MB", "ok", "x|y", 2.5), Row("first", "b", None, "s", "skipped", "no CUDA", 2.5)]
    assert table(rows).splitlines()[2:] == [
        "| first | a | 1235 | MB | ok | x/y | 2.5 |",
        "| first | b |  | s | skipped | no CUDA | 2.5 |",
    ]


@pytest.mark.slow
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    rows = check(tmp_path, 1, DEVICE="cuda", ONLY="images")
    assert rows["machine", "memory of the device"]["status"] == "failed"
    assert "no CUDA device; DEVICE=cpu TINY=1" in rows["machine", "memory of the device"]["note"]
    assert rows["images", "images drawn"]["note"] == "it needs 'machine', which failed or was skipped"


@pytest.mark.slow
def test_a_planted_failure_is_in_the_table(tmp_path: Path) -> None:
    rows = check(
        tmp_path, 1, ONLY="U-Net in 32-true,CPU beside the device: Mask*", OVERRIDES="model.network.encoder.name=absent"
    )
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert {row["part"] for row in failed} == {"U-Net in 32-true"} and len(failed) == 4
    assert all("absent" in row["note"] and row["value"] is None for row in failed)
    assert rows["CPU beside the device: Mask R-CNN R50", "detections matched"]["value"] == 100.0


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_every_part_runs_on_the_cpu(tmp_path: Path) -> None:
    rows = check(
        tmp_path, 0, BUDGET="1000", **({} if shutil.which("g++") else {"ONLY": "[!c]*,checkpoint,cascade*,crop*"})
    )
    compiled = "compile" if shutil.which("g++") else ""
    assert list(rows) == [(p.name, name) for p in PARTS for name in p.rows if p.name != "compile" or compiled]
    skipped = {key: row["note"] for key, row in rows.items() if row["status"] == "skipped"}
    assert all(row["status"] == "ok" and row["value"] is not None for key, row in rows.items() if key not in skipped)
    without_cuda = {key for key in rows if "memory" in key[1] and key[0] != "machine"} | {
        key for key in rows if "TF32" in key[1] or key[0].endswith(f" in {PRECISIONS[2]}")
    }
    assert without_cuda <= set(skipped) and all("no CUDA" in skipped[key] for key in without_cuda)
    # a network of four steps finds no cell
    assert {key: skipped[key] for key in set(skipped) - without_cuda} in (
        {},
        {("CPU beside the device: U-Net", "detections matched"): "neither detects a cell"},
    )
    assert rows["evaluated twice", "scores that differ"]["value"] == 0
    assert rows["DDP in one process", "whole command"]["note"] == "gloo"


def test_detections_are_matched_by_box_type_and_score() -> None:
    empty = Detections.empty("a", 64, 64)
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    two = replace(
        empty, boxes=boxes, scores=np.array([0.9, 0.5], np.float32), cell_types=np.array([0, 1]),
        masks=np.zeros((2, 28, 28), np.float16),
    )  # fmt: skip
    assert matched(two, two) == 100 and matched(empty, empty) is None and matched(two, empty) == 0
    assert matched(two, replace(two, cell_types=np.array([0, 0]))) == 50
    assert matched(two, replace(two, boxes=boxes + 0.5)) == 50  # IoU 9.5^2 / (200 - 9.5^2), 19.5^2 / (800 - 19.5^2)
    assert matched(two, replace(two, scores=two.scores + np.array([0, 0.02], np.float32))) == 50
    assert difference([torch.tensor([4.0, -8.0])], [torch.tensor([4.0, -7.0])]) == 1 / 8

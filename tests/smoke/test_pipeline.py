"""The commands one after the other, as a person runs them: train, predict, evaluate, submit."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "experiment=maskrcnn_r50", "debug=fast", "transform=none", "trainer.precision=32-true", "model.body=resnet18",
    "model.network.box_features=16", "model.network.mask_layers=[8]", "model.network.rpn.after_nms=[50,50]",
    "model.network.roi_heads.detections=20", "data.n_folds=4", "leaderboard=runs/leaderboard.csv",
    "largest_checkpoint=null",
]  # fmt: skip
TOY_TRAIN = "tests.smoke.toy_train"
TOY = [
    "--config-dir",
    str(ROOT / "tests" / "smoke" / "conf"),
    "model=toy",
    "transform=none",
    "data.num_workers=0",
    "data.n_folds=4",
]


def start(folder: Path, command: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", command if "." in command else f"sartorius.{command}", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(program, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(folder: Path, command: str, *arguments: str, code: int = 0) -> str:
    """What a command prints; fails unless it exits with `code`."""
    process = start(folder, command, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return output + errors


def next_step(printed: str) -> list[str]:
    """The command of the last line that names one: its module and its arguments."""
    line = [line for line in printed.splitlines() if line.startswith("next: ")][-1]
    return shlex.split(line)[3:]


def test_train_predict_evaluate_submit(tiny_competition: Path, tmp_path: Path) -> None:
    data = f"data.root={tiny_competition}"
    printed = run(tmp_path, "train", *TINY, data)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert folder.name.endswith("_maskrcnn_r50_fold0_seed0")
    assert pd.read_csv(tmp_path / "runs" / "leaderboard.csv").experiment.tolist() == ["maskrcnn_r50"]

    best = f"checkpoint={folder.relative_to(tmp_path) / 'checkpoints' / 'best.ckpt'}"
    assert next_step(printed) == [
        "sartorius.predict",
        f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}",
        "images=FOLDER",
    ]
    printed = run(
        tmp_path, "predict", best, f"images={tiny_competition / 'test'}", "output=found", "data.num_workers=0"
    )
    assert sorted(path.name for path in (tmp_path / "found" / "overlays").iterdir()) == ["test00.png", "test01.png"]

    run(tmp_path, "evaluate", f"detections=[{folder / 'detections'}]", data, "output=scored")
    again, first = (pd.read_csv(path / "per_image.csv") for path in (tmp_path / "scored", folder))
    assert again.image_id.tolist() == first.image_id.tolist()
    assert again.average_precision.tolist() == first.average_precision.tolist()

    output = run(tmp_path, *next_step(printed), data)
    assert "valid" in output
    assert "valid" in run(tmp_path, "submit", "validate=submission.csv", data)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_and_resume(tiny_competition: Path, tmp_path: Path) -> None:
    arguments = [*TOY, f"data.root={tiny_competition}", "trainer.accelerator=cpu", "callbacks.early_stopping=null"]
    process = start(tmp_path, TOY_TRAIN, *arguments, "trainer.max_epochs=1000000")
    until = time.monotonic() + 60
    while not (saved := list(tmp_path.glob("runs/*/checkpoints/last.ckpt"))) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"ckpt_path={saved[0]}" in errors
    assert "Traceback" not in errors

    folder = saved[0].parents[1]
    assert not (folder / "metrics.json").exists()
    epochs = len(pd.read_csv(folder / "metrics.csv")["val/map"].dropna()) + 2
    run(tmp_path, TOY_TRAIN, *arguments, f"trainer.max_epochs={epochs}", f"ckpt_path={saved[0]}")
    curve = pd.read_csv(folder / "metrics.csv")
    assert curve.epoch[curve["val/map"].notna()].tolist() == list(range(epochs))
    assert (folder / "metrics.json").is_file()
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == [folder.name]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    errors = run(tmp_path, "train", "data.root=nowhere", "trainer.accelerator=cpu", code=1).splitlines()
    assert errors[-1].startswith("error: nowhere")
    assert "Traceback" not in "".join(errors)

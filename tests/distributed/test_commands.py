"""The commands in two processes, and runs killed in the middle of an epoch, as a person runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sartorius.structures.detections import DetectionsFolder

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "data.n_folds=4",
    "data.num_workers=0", "trainer.log_every_n_steps=1", "callbacks.early_stopping=null",
    "transform.crop.height=32", "transform.crop.width=32",
]  # fmt: skip
UNET = [
    "experiment=unet_effb0", "model.network.encoder.name=resnet10t", "model.network.encoder.levels=3",
    "model.network.channels=[8,8]", "model.decoder.min_area=1", *SMALL,
]  # fmt: skip
MASK = [
    "experiment=maskrcnn_r50", "model.body=resnet18", "model.network.box_features=16", "model.network.mask_layers=[8]",
    "model.network.rpn.after_nms=[50,50]", "model.network.roi_heads.detections=20", *SMALL,
]  # fmt: skip
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


def run(folder: Path, command: str, *arguments: str, code: int = 0) -> str:
    """What a command prints; fails unless it exits with `code`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", f"sartorius.{command}", *arguments]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("train", ["data.root=nowhere"], "error: nowhere"),
        ("evaluate", ["checkpoint=nowhere"], "error: nowhere"),
        ("predict", ["checkpoint=nowhere", "images=nowhere"], "error: nowhere"),
    ],
)
def test_an_error_of_all_processes_is_one_line(tmp_path: Path, command: str, options: list[str], error: str) -> None:
    lines = run(tmp_path, command, *TWO, *options, code=1).splitlines()
    assert [line for line in lines if line.startswith(error)] == lines[-1:]
    assert not any("Traceback" in line or "process" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_leaves_one_folder_a_member(tiny_competition: Path, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", f"data.root={tiny_competition}"]
    text = run(tmp_path, "train", "-m", *UNET, *TWO, *options, "data.fold=0,1", "hydra.sweep.subdir=${hydra.job.num}")
    assert text.count("epoch 0: train/loss") == 2  # said by one process of each member
    assert "sync_dist" not in text and "DistributedSampler" not in text
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert not list((tmp_path / "runs").glob("20*"))
    for member in ("0", "1"):
        folder = sweep / member
        table = pd.read_csv(folder / "per_image.csv")
        assert len(table) == 3 == len(DetectionsFolder(folder / "detections").image_ids())
        assert len(list((folder / "overlays").iterdir())) == 3
        curve = pd.read_csv(folder / "metrics.csv")
        assert not curve.duplicated(["epoch", "step"]).any()
    assert len(pd.read_csv(tmp_path / "runs" / "leaderboard.csv")) == 2


@pytest.fixture(scope="module")
def checkpoint(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    options = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "leaderboard=null"]
    run(folder, "train", *UNET, *options, f"data.root={tiny_competition}", "hydra.run.dir=run")
    return folder / "run" / "checkpoints" / "best.ckpt"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_evaluate_and_predict_the_same(checkpoint: Path, tiny_competition: Path, tmp_path: Path) -> None:
    both = [f"checkpoint={checkpoint}", "data.num_workers=0", "postprocess.score.threshold.default=0.0"]
    predicted = [*both, f"images={tiny_competition / 'train'}"]
    for name, more in (("one", ["trainer.accelerator=cpu"]), ("two", TWO)):
        run(tmp_path, "evaluate", *both, *more, f"output={name}/evaluated")
        run(tmp_path, "predict", *predicted, *more, f"output={name}/predicted")
    kinds = ("evaluated/detections", *(f"predicted/{of}" for of in ("detections", "overlays", "labels", "tables")))
    for kind, count in zip(kinds, (3 + 1, 12 + 1, 12, 12, 2), strict=True):
        files = [sorted((tmp_path / name / kind).iterdir()) for name in ("one", "two")]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        assert len(files[0]) == count
        assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    for name in ("per_image.csv", "metrics.json"):
        assert (tmp_path / "one/evaluated" / name).read_bytes() == (tmp_path / "two/evaluated" / name).read_bytes()
    assert "12 of them by an earlier run" in run(tmp_path, "predict", *predicted, *TWO, "output=two/predicted")


def weights(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint that decides on what follows, flat."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    found: dict[str, Any] = {"epoch": state["epoch"], "step": state["global_step"]}
    for part in ("state_dict", "averaging", "optimizer_states", "lr_schedulers"):
        found |= dict(flat(state.get(part), part))
    return found


def flat(value: Any, name: str) -> Any:
    if isinstance(value, dict | list | tuple):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(child, f"{name}.{key}")
    else:
        yield name, value


KINDS = {
    "unet": [*UNET, "averaging=ema", "copy_paste=default", "data.num_workers=2", "+callbacks.kill.batch=4"],
    "mask": [*MASK, "copy_paste=default", "+callbacks.kill.batch=1"],
    "two": [*UNET, *TWO, "averaging=ema", "data.batch_size=1", "+callbacks.kill.batch=3"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_within_an_epoch_ends_in_the_same_weights(
    tiny_competition: Path, tmp_path: Path, kind: str
) -> None:
    """SIGKILL in the second epoch of three; the resumed run repeats that epoch with the same random numbers."""
    same = [
        "data.batch_size=2", *KINDS[kind], "data.train_repeats=2", "trainer.max_epochs=3", "leaderboard=null",
        "trainer.check_val_every_n_epoch=1", "+callbacks.kill._target_=tests.distributed.work.Signal",
        f"data.root={tiny_competition}",
    ]  # fmt: skip
    run(tmp_path, "train", *same, "+callbacks.kill.epoch=9", "hydra.run.dir=whole")
    code = 1 if kind == "two" else -9
    died = run(tmp_path, "train", *same, "+callbacks.kill.epoch=1", "hydra.run.dir=part", code=code)
    assert kind != "two" or "error: process 1 of 2 was killed (SIGKILL)" in died
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    run(tmp_path, "train", *same, "+callbacks.kill.epoch=9", f"ckpt_path={last}")
    whole, part = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert whole.keys() == part.keys() and len(whole) > 50
    for name, value in whole.items():
        assert torch.equal(value, part[name]) if isinstance(value, torch.Tensor) else value == part[name], name
    for name in ("metrics.csv", "batches.csv", "per_image.csv"):
        tables = [pd.read_csv(tmp_path / folder / name) for folder in ("whole", "part")]
        measured = [column for column in tables[0] if column.startswith("throughput/")]
        pd.testing.assert_frame_equal(*(table.drop(columns=measured) for table in tables), check_exact=True)
    assert not pd.read_csv(tmp_path / "part" / "batches.csv").duplicated(["epoch", "batch"]).any()


@pytest.mark.slow
def test_more_processes_than_images(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((48, 64), 128, np.uint8)).save(tmp_path / "images" / "a.png")
    run(tmp_path, "predict", f"checkpoint={checkpoint}", "images=images", "output=found", "data.num_workers=0", *TWO)
    assert DetectionsFolder(tmp_path / "found" / "detections").image_ids() == ["a"]
    assert len((tmp_path / "found" / "tables" / "images.csv").read_text().splitlines()) == 2

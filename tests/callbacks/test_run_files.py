"""What a run leaves: the files of RunRecord, PredictionWriter, Overlays and the checkpoints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from sartorius.callbacks.run_record import RunRecord, git_state
from sartorius.structures.detections import DetectionsFolder
from sartorius.visualise.overlays import write_png
from tests.callbacks.conftest import Run
from tests.doubles import ToyModule


def test_the_run_folder_holds_everything(run: Run) -> None:
    files = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    images = run.data.val_images
    assert files == {
        "config.yaml", "git.json", "metrics.csv", "metrics.json", "per_image.csv",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "detections/meta.json",
        *(f"detections/{image_id}.npz" for image_id in images),
        *(f"overlays/{image_id}.png" for image_id in images[:2]),
        *(f"overlays/epoch_001/{image_id}.png" for image_id in images[:2]),
    }  # fmt: skip


def test_the_numbers_agree(run: Run) -> None:
    numbers = json.loads((run.folder / "metrics.json").read_text())
    table = pd.read_csv(run.folder / "per_image.csv")
    line = pd.read_csv(run.folder.parent / "leaderboard.csv").iloc[0]
    assert numbers["competition_map"] == pytest.approx(table.average_precision.mean())
    assert line["map"] == pytest.approx(numbers["competition_map"])
    assert (line.experiment, line.fold, line.seed, line.epochs) == ("toy", 0, 0, 2)
    assert numbers["epoch"] == torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    assert numbers["seconds"] >= 0
    curve = pd.read_csv(run.folder / "metrics.csv")
    assert curve["val/map"].dropna().max() == pytest.approx(numbers["competition_map"])
    for name in ("f1", "pq", "aji"):
        best = curve[f"val/{name}"][curve["val/map"].idxmax()]
        assert line[name] == pytest.approx(numbers[name]) == table[name].mean() == pytest.approx(best, abs=1e-6)


def test_the_config_is_the_resolved_one(run: Run) -> None:
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["model"]["lr"] == 0.1


def test_loggers_get_the_config(run: Run) -> None:
    assert run.hyper_parameters == yaml.safe_load((run.folder / "config.yaml").read_text())


def test_detections_say_where_they_come_from(run: Run) -> None:
    folder = DetectionsFolder(run.folder / "detections")
    assert folder.image_ids() == run.data.val_images
    assert folder.meta["fold"] == 0
    assert folder.meta["data"] == "tiny"
    assert folder.meta["cell_types"] == ["shsy5y", "astro", "cort"]
    assert folder.meta["postprocess"]["min_area"]["pixels"] == 0
    assert folder.meta["export_settings"] == {"score": 0.1}
    assert len(folder.load(run.data.val_images[0])) == 1


def test_overlays_show_truth_and_prediction(run: Run) -> None:
    with Image.open(run.folder / "overlays" / f"{run.data.val_images[0]}.png") as image:
        assert image.size == (2 * 2 * 64 + 8, 2 * 48 + 40)


def test_png_colours_are_not_swapped(tmp_path: Path) -> None:
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    write_png(tmp_path / "a.png", red)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), red)


def test_git_state_in_and_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_state() == {"commit": None, "branch": None, "dirty": None}
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", "-b", "main"], check=True)
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    state = git_state()
    assert (len(state["commit"]), state["branch"], state["dirty"]) == (40, "main", False)
    (tmp_path / "new").touch()
    assert git_state()["dirty"] is True
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "branch": None, "dirty": None}


def test_seconds_are_those_of_the_fit_and_of_the_one_it_resumed(tmp_path) -> None:
    """Validating the best checkpoint restores the state of its epoch, which must not replace the count of the fit."""
    earlier = RunRecord(tmp_path, None, {})
    earlier._spent["seconds"] = 100.0
    record = RunRecord(tmp_path, None, {})
    record.load_state_dict(earlier.state_dict())
    record.on_fit_start(SimpleNamespace(is_global_zero=False), None)
    assert record.state_dict()["seconds"] == 100.0
    record._spent["seconds"] += 50.0
    record.load_state_dict(earlier.state_dict())  # what trainer.validate(ckpt_path=best) does
    assert record.state_dict()["seconds"] == 150.0


def test_a_fit_deletes_what_a_killed_run_left_half_written(tmp_path: Path) -> None:
    left = [tmp_path / ".metrics.7.partial.csv", tmp_path / "checkpoints" / ".last.7.partial.ckpt"]
    (tmp_path / "checkpoints").mkdir()
    for path in (*left, tmp_path / "checkpoints" / "last.ckpt"):
        path.touch()
    RunRecord(tmp_path, None, {}).on_fit_start(SimpleNamespace(is_global_zero=True, loggers=[]), ToyModule())
    assert not any(path.exists() for path in left)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()

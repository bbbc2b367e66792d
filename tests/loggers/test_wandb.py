"""What W&B is sent: outlines, boxes, groups; where it cannot be reached; and an offline run, read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image

from sartorius.loggers.protocol import CellsView
from sartorius.loggers.tolerant import TolerantLogger
from sartorius.loggers.wandb import WandbLog, boxes_of, outline_types
from sartorius.structures.instances import Instances
from sartorius.train import main

NAMES = ("shsy5y", "astro", "cort")


def log_to(folder: Path, **options: Any) -> WandbLog:
    given: dict[str, Any] = {
        "project": "p", "save_dir": str(folder), "name": "run", "id": "abc", "group": "g", "job_type": "fold0",
        "tags": ["t"], "offline": True, "init_timeout": 1, "finish_timeout": 1, "boxes": 3, "rim": 2, **options,
    }  # fmt: skip
    return WandbLog(**given)


def two_cells() -> Instances:
    layers = np.zeros((2, 12, 20), np.uint16)
    layers[0, 1:9, 1:9] = 1
    layers[1, 3:11, 6:16] = 2
    return Instances(layers, np.array([0, 2]))


def test_outlines_by_type() -> None:
    drawn = outline_types(two_cells(), rim=2)
    assert drawn.dtype == np.uint8
    assert (drawn == 3).sum() == 8 * 10 - 4 * 6  # the later layer lies on top
    assert drawn[1, 1] == drawn[2, 2] == 1
    assert drawn[3, 3] == 0  # inside
    assert not outline_types(Instances.empty(5, 6), 2).any()
    assert outline_types(two_cells(), rim=20)[4, 4] == 1  # a rim wider than the cell fills it


def test_boxes_of_the_highest_scores() -> None:
    cells, scores = two_cells(), np.array([0.25, 0.75], np.float32)
    (box,) = boxes_of(cells, scores, NAMES, limit=1)
    assert box == {
        "position": {"minX": 6, "maxX": 16, "minY": 3, "maxY": 11},
        "domain": "pixel", "class_id": 3, "box_caption": "cort 0.75", "scores": {"confidence": 0.75},
    }  # fmt: skip
    assert [one["box_caption"] for one in boxes_of(cells, None, NAMES, limit=2)] == ["shsy5y", "cort"]
    assert boxes_of(cells, None, NAMES, limit=1) == []  # a part of the truth would mislead
    assert boxes_of(Instances.empty(5, 6), np.zeros(0, np.float32), NAMES, limit=3) == []


class Run:
    """A stand-in for W&B's run."""

    id = "abc"

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.folders: list[str | None] = []  # where W&B would put files, at each call
        self.artifacts: list[tuple[Any, list[str]]] = []
        self.config = SimpleNamespace(update=lambda *_, **__: None)

    def log(self, metrics: dict[str, Any]) -> None:
        self.folders.append(os.environ.get("WANDB_DATA_DIR"))
        self.logged.append(metrics)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.folders.append(os.environ.get("WANDB_DATA_DIR"))
        self.artifacts.append((artifact, aliases))

    def define_metric(self, *_: Any, **__: Any) -> None: ...


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each `wandb.init`, none of which starts anything."""
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> Run:
        calls.append(options)
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("connection refused")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    return calls


def test_the_run_is_named_and_grouped(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    log = log_to(tmp_path / "run")
    assert not started  # nothing before the first call
    log.log_metrics({"a": 1.0}, step=4)
    (options,) = started
    assert (options["id"], options["group"], options["job_type"]) == ("abc", "g", "fold0")
    assert (options["name"], options["tags"], options["resume"]) == ("run", ["t"], "allow")
    assert options["settings"]["init_timeout"] == 1
    assert "anonymous" not in options
    assert log.experiment.logged == [{"a": 1.0, "trainer/global_step": 4}]
    assert (tmp_path / "run").is_dir()


def test_without_a_server_the_run_is_logged_offline(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    log = TolerantLogger(log_to(tmp_path, offline=False), "logger.wandb")
    with pytest.warns(UserWarning, match=r"cannot be reached \(CommError: connection refused\).*wandb sync"):
        log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"a": 2.0}, step=1)
    assert [options.get("mode") for options in started] == [None, "offline"]
    assert [metrics["a"] for metrics in log.experiment.logged] == [1.0, 2.0]
    assert log.suppress_errors.failures == 0
    assert "WANDB_MODE" not in os.environ  # or the next run of a sweep would be offline too


def test_where_nothing_works_it_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def init(**options: Any) -> Any:
        calls.append(options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb, "init", init)
    log = TolerantLogger(log_to(tmp_path), "logger.wandb")
    with pytest.warns(UserWarning, match="logger.wandb failed .*No space left"):
        log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"a": 2.0}, step=1)
    assert len(calls) == 1
    assert log.suppress_errors.failures == 2


def test_a_view_becomes_an_image_with_masks_and_boxes(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    log, cells = log_to(tmp_path), two_cells()
    grey = np.full((12, 20), 128, np.uint8)
    log.log_cells("images/a", CellsView(grey, cells, cells, np.array([0.5, 0.9], np.float32), NAMES, "caption"), 7)
    log.log_cells(
        "images/b",
        CellsView(grey, cells, Instances.empty(12, 20), np.zeros(0, np.float32), NAMES, "nothing"),
        7,
    )
    first, second = (metrics[f"images/{name}"] for metrics, name in zip(log.experiment.logged, "ab", strict=True))
    assert set(first._masks) == set(first._boxes) == {"truth", "prediction"}
    assert set(second._boxes) == {"truth"}
    assert first._caption == "caption"
    assert log.experiment.logged[0]["trainer/global_step"] == 7


def test_files_are_sent_from_where_they_are(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    (tmp_path / "detections").mkdir()
    for name in ("detections/a.npz", "metrics.json"):
        (tmp_path / name).write_text(name)
    log = log_to(tmp_path)
    paths = [tmp_path / "detections", tmp_path / "metrics.json"]
    log.log_files("predictions", "predictions", paths, {"val/map": 0.5})
    ((artifact, aliases),) = log.experiment.artifacts
    assert (artifact.name, artifact.type, artifact.metadata) == ("predictions-abc", "predictions", {"val/map": 0.5})
    assert set(artifact.manifest.entries) == {"detections/a.npz", "metrics.json"}
    assert artifact.manifest.entries["metrics.json"].local_path == str(tmp_path / "metrics.json")
    assert aliases == ["best"]


@pytest.mark.parametrize("own", [None, "mine"])
def test_what_waits_to_be_sent_waits_in_the_run_folder(
    tmp_path: Path, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    if own is not None:
        monkeypatch.setenv("WANDB_DATA_DIR", own)
    runs = [log_to(tmp_path / name) for name in ("a", "b")]  # members of a sweep, one after the other
    for log in runs:
        log.log_rows("t", ["x"], [[1.0]], 0)
        log.log_files("predictions", "predictions", [], {})
    assert [log.experiment.folders for log in runs] == [[own or str(tmp_path / name / "wandb")] * 2 for name in "ab"]
    assert os.environ.get("WANDB_DATA_DIR") == own


def inspected(folder: Path) -> list[dict[str, Any]]:
    """The records of an offline run, by wandb's own reader."""
    (run,) = folder.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_offline_runs_of_a_multirun_read_back(
    tiny_competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folds, offline: the numbers, config, images, table, lines and files of both, in one group."""
    options = [
        "experiment=unet_cpu", "data.fold=0,1", "data.n_folds=4", "debug=fast", "logger=[wandb,tensorboard]",
        f"data.root={tiny_competition}", f"hydra.sweep.dir={tmp_path}/both", "model.weights=none",
        "postprocess.score.threshold=0.0", "postprocess.min_area.pixels=0",
    ]  # fmt: skip
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(sys, "argv", ["train", "-m", *options, *quiet])
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))  # where W&B would keep things
    try:
        main()
    finally:
        wandb.teardown()
    assert "WANDB_DATA_DIR" not in os.environ
    assert not (tmp_path / "home").exists()
    runs = sorted(path.parent for path in (tmp_path / "both").glob("*/wandb"))
    assert len(runs) == 2
    ids = set()
    for fold, folder in enumerate(runs):
        records = inspected(folder)
        run = next(record["run"] for record in records if record["type"] == "run")
        ids.add(run["run_id"])
        assert (run["run_group"], run["job_type"], run["display_name"]) == ("both", f"fold{fold}", folder.name)
        keys = {key for record in records if record["type"] == "history" for key in record["history"]["item"]}
        for key in ("train/loss", "lr-AdamW/pg1", "val/map", "val/precision_50", "throughput/waiting"):
            assert key in keys
        assert any(key.startswith("images/") and ".masks.truth" in key for key in keys)
        config = next(record for record in records if record["type"] == "config")["config"]["update"]
        assert config["data"]["fold"] == fold
        artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
        assert {"model", "postprocess", "predictions"} <= {artifact["type"] for artifact in artifacts}
        sent = [Path(entry["local_path"]) for artifact in artifacts for entry in artifact["manifest"]["contents"]]
        assert len(sent) > 5
        assert all(path.is_file() and path.is_relative_to(folder) for path in sent)  # the run's own folder, no other
        (files,) = folder.glob("wandb/offline-run-*/files")
        with Image.open(next(files.glob("media/images/mask/images/*.png"))) as mask:
            assert mask.size == (64, 48)
            assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 1, 2, 3}
        table = json.loads(next(files.glob("media/table/images_best*.json")).read_text())
        assert len(table["data"]) == 1  # debug=fast
        assert list(folder.glob("tensorboard/events*"))
        assert len((folder / "batches.csv").read_text().splitlines()) == 1 + 2
    assert len(ids) == 2

"""Commands killed (SIGKILL) in the middle of their work, then continued, to the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from sartorius import ensemble, predict, pseudo_label, tune
from sartorius.data.competition.folder import Competition
from sartorius.fusion.join import Ensemble
from sartorius.modules.unet import UNetModule
from sartorius.networks import checkpoints
from sartorius.running import building, wiring
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.doubles import toy_config
from tests.dying import BEFORE_THE_NAME
from tests.postprocess.pipelines import saved
from tests.postprocess.shapes import random_detections
from tests.test_light_install import save_checkpoint

COMMANDS: dict[str, Any] = {"ensemble": ensemble, "predict": predict, "pseudo_label": pseudo_label, "tune": tune}
POST = saved(score=0.2, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
PICTURES = 40

# Half a line is in the file.
IN_A_LINE = """
from sartorius.tuning.trial_log import TrialLog
count, add = 0, TrialLog.add
def dying(self, search, tried):
    global count
    count += 1
    if count == {n}:
        with open(self.path, "a") as file:
            file.write('{{"search": "fin')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    add(self, search, tried)
TrialLog.add = dying
"""


def write_folder(path: Path, first_seed: int = 0) -> Path:
    written = DetectionsFolder(path)
    written.write_meta(cell_types=list(CELL_TYPES), mask_size=14, postprocess=POST)
    for k in range(PICTURES):
        found = random_detections(first_seed + k, 6)
        inside = np.clip(found.boxes, 0, [found.width, found.height] * 2)
        arrays = inside, found.scores, found.cell_types, found.masks
        written.write(Detections(f"p{k:02d}", found.height, found.width, *arrays, CELL_TYPES))
    return path


def kill(command: str, when: str, *overrides: str) -> None:
    """Run a command in a process of its own that dies of `when`."""
    lines = ["import os, runpy, signal, sys", when, f"sys.argv[0] = 'sartorius.{command}'"]
    program = "\n".join([*lines, f"runpy.run_module('sartorius.{command}', run_name='__main__', alter_sys=True)"])
    done = subprocess.run([sys.executable, "-c", program, *overrides], capture_output=True, timeout=120, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run(command: str, *overrides: str) -> Any:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        return COMMANDS[command].main(compose(command, overrides=list(overrides)))


def content(path: Path) -> dict[str, bytes]:
    """The bytes of every file, hidden ones too, by its name in the folder; without Hydra's notes about a command."""
    files = [one for one in sorted(path.rglob("*")) if one.is_file() and ".hydra" not in one.parts]
    return {str(one.relative_to(path)): one.read_bytes() for one in files if one.suffix != ".log"}


def test_an_ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [write_folder(tmp_path / "a"), write_folder(tmp_path / "b", 100)]
    (members[0] / "p03.npz").write_bytes(b"half a file")
    given = f"members=[{members[0]},{members[1]}]", "on_error=skip"
    kill("ensemble", BEFORE_THE_NAME.format(n=20), *given, f"output={tmp_path / 'killed'}")
    there = DetectionsFolder(tmp_path / "killed" / "detections")
    before = there.image_ids()
    assert 5 < len(before) < PICTURES and list(there.folder.glob(".*")), "a file had no name yet"
    asked: list[str] = []
    join = Ensemble.join
    monkeypatch.setattr(Ensemble, "join", lambda self, name, **more: asked.append(name) or join(self, name, **more))
    outcome = run("ensemble", *given, f"output={tmp_path / 'killed'}")
    assert (outcome.joined, outcome.kept) == (PICTURES - len(before), len(before))
    assert asked == [image_id for image_id in DetectionsFolder(members[0]).image_ids() if image_id not in before]
    assert list(outcome.skipped) == ["p03"], "said by the killed run"
    run("ensemble", *given, f"output={tmp_path / 'whole'}")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(content(tmp_path / "whole")) == PICTURES + 1


@pytest.mark.slow
def test_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "images" / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).normal(128, 12, (60, 30, 40)).astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / ("sub" * (number % 2)) / f"{number:02d}.png")
    given = (
        f"checkpoint={tmp_path / 'a.ckpt'}", f"images={tmp_path / 'images'}", "data.num_workers=0",
        "trainer.accelerator=cpu", "write=[labels,table]",
    )  # fmt: skip
    kill("predict", BEFORE_THE_NAME.format(n=96), *given, f"output={tmp_path / 'killed'}")
    there = DetectionsFolder(tmp_path / "killed" / "detections")
    before = there.image_ids()
    assert 20 < len(before) < 40 and list(there.folder.parent.rglob(".*.partial*")), "a file had no name yet"
    asked: list[str] = []
    detect = UNetModule.detect
    monkeypatch.setattr(
        UNetModule, "detect", lambda self, batch: asked.extend(t.image_id for t in batch.targets) or detect(self, batch)
    )
    run("predict", *given, f"output={tmp_path / 'killed'}")
    assert sorted([*asked, *before]) == there.image_ids() and len(there.image_ids()) == 60
    run("predict", *given, f"output={tmp_path / 'whole'}")
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        assert not list(folder.rglob(".*.partial*"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_pseudo_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "a")
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    given = f"detections={folder}", "pseudo_labels.min_score=0.5", "pseudo_labels.doubtful_score=0.3"
    kill("pseudo_label", BEFORE_THE_NAME.format(n=20), *given, f"output={tmp_path / 'killed' / 'p.csv'}")
    assert not (tmp_path / "killed" / "p.csv").exists()
    done = len(list((tmp_path / "killed").rglob("*.part.json")))
    assert 5 < done < PICTURES
    asked: list[str] = []
    load = DetectionsFolder.load
    monkeypatch.setattr(DetectionsFolder, "load", lambda self, image_id: asked.append(image_id) or load(self, image_id))
    run("pseudo_label", *given, f"output={tmp_path / 'killed' / 'p.csv'}")
    assert len(asked) == PICTURES - done
    run("pseudo_label", *given, f"output={tmp_path / 'whole' / 'p.csv'}")
    assert content(tmp_path / "killed") == content(tmp_path / "whole") and len(content(tmp_path / "whole")) == 1


def test_a_search_of_thresholds(tiny_competition: Path, tmp_path: Path) -> None:
    truth, random = Competition(tiny_competition), np.random.default_rng(0)
    written = DetectionsFolder(tmp_path / "a")
    written.write_meta(cell_types=list(truth.cell_type_names), mask_size=28, postprocess=POST)
    for image_id in truth.ids:
        cells = truth.instances(image_id)
        written.write(Detections.from_instances(image_id, cells, random.uniform(0, 1, len(cells))))
    given = [f"detections={written.folder}", f"data.root={tiny_competition}", "trials=12", "folds=0"]
    given += ["least_images=1", "bootstrap.samples=50", "accept_loss=true"]
    kill("tune", IN_A_LINE.format(n=20), *given, f"output={tmp_path / 'killed'}")
    log = tmp_path / "killed" / "search.jsonl"
    assert len(log.read_text().splitlines()) == 20 and not log.read_text().endswith("\n")
    before = os.stat(log).st_ino
    for name in ("killed", "whole"):
        run("tune", *given, f"output={tmp_path / name}")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(log.read_text().splitlines()) == 3 * 12 and os.stat(log).st_ino == before, "gone on with"


# An image takes a while.
SLOWLY = """
import runpy, sys, time
from sartorius.structures.detections import Detections
from tests import doubles
save = Detections.save
Detections.save = lambda self, folder: (time.sleep(0.05), save(self, folder))[1]
sys.argv[0] = sys.argv.pop(1)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("command", ["predict", "ensemble"])
def test_sigterm_ends_a_command(command: str, tmp_path: Path) -> None:
    """Within the image: nothing is left of it, and the images before it are whole."""
    if command == "predict":
        module = building.build_module(toy_config())
        torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "a.ckpt")
        (tmp_path / "images").mkdir()
        for k in range(100):
            Image.fromarray(np.full((48, 64), k, np.uint8)).save(tmp_path / "images" / f"p{k:02d}.png")
        given = ["checkpoint=a.ckpt", "images=images", "data.num_workers=0", "trainer.accelerator=cpu"]
    else:
        given = [f"members=[{write_folder(tmp_path / 'a')},{write_folder(tmp_path / 'b', 100)}]"]
    program = [sys.executable, "-c", SLOWLY, f"sartorius.{command}", *given, "output=out"]
    environment, pipe = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, subprocess.PIPE
    process = subprocess.Popen(program, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
    written = DetectionsFolder(tmp_path / "out" / "detections")
    until = time.monotonic() + 120
    while not (begun := written.image_ids()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert begun and process.returncode == 128 + signal.SIGTERM, errors
    assert errors.splitlines()[-1] == "terminated" and "Traceback" not in errors
    assert len(written.image_ids()) < PICTURES and len(list(written)) == len(written.image_ids())
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]

"""Predictions and what comes of them, where the packages of trainings, sweeps and figures are not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sartorius import export
from sartorius.networks import checkpoints
from sartorius.running import building, wiring
from tests.smoke.test_unet_family import UNET

ROOT = Path(__file__).resolve().parents[1]

# Python reads a module of this name before anything else, in the processes that the commands start too.
WITHOUT = """
import importlib.metadata
from importlib.machinery import PathFinder

MISSING = ("wandb", "optuna", "sklearn", "scikit-learn", "albumentations", "matplotlib")
find_spec, distribution = PathFinder.find_spec, importlib.metadata.distribution

def find_others(name, *arguments):
    return None if name.partition(".")[0] in MISSING else find_spec(name, *arguments)

def distribution_of_others(name):
    if name.lower() in MISSING:
        raise importlib.metadata.PackageNotFoundError(name)
    return distribution(name)

PathFinder.find_spec, importlib.metadata.distribution = find_others, distribution_of_others
"""
WITHOUT_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise OSError("no network here")

socket.getaddrinfo = socket.gethostbyname = refuse
"""
CHAIN = [
    ["predict", "checkpoint=best.ckpt", "images=images", "output=found", "trainer.accelerator=cpu"],
    [
        "convert",
        "detections=found/detections",
        "images=images",
        "output=converted",
        "write=[labels,rois,table,overlay]",
    ],
    ["submit", "detections=found/detections", "output=submission.csv"],
    ["submit", "validate=submission.csv"],
]


def save_checkpoint(path: Path) -> None:
    """A U-Net of two levels that has learned nothing."""
    module = building.build_module(wiring.compose("train", UNET), pretrained=False)
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "best.ckpt")
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(100, 150, (48, 64)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "light").mkdir()
    (tmp_path / "light" / "sitecustomize.py").write_text(WITHOUT)
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": f"{folder / 'light'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_predict_to_submission_without_the_packages_of_training(folder: Path) -> None:
    probe = "import importlib.util as u; print([u.find_spec(n) for n in ('wandb', 'sklearn', 'matplotlib')])"
    assert python(folder, "-c", probe) == "[None, None, None]\n"
    for name, *options in CHAIN:
        python(folder, "-m", f"sartorius.{name}", *options)
    assert (folder / "submission.csv").is_file()
    program = "import numpy, sartorius; print(len(sartorius.load('best.ckpt', device='cpu')(numpy.eye(40)).table()))"
    assert int(python(folder, "-c", program).split()[-1]) >= 0


def test_a_bundle_without_the_packages_of_training_and_a_network(folder: Path) -> None:
    """Written where they are, used where they are not."""
    (folder / "here").mkdir()
    os.rename(folder / "best.ckpt", folder / "here" / "best.ckpt")
    export.main(wiring.compose("export", [f"checkpoint={folder / 'here' / 'best.ckpt'}", f"output={folder}/model.zip"]))
    shutil.rmtree(folder / "here")
    (folder / "light" / "sitecustomize.py").write_text(WITHOUT + WITHOUT_NETWORK)
    python(folder, "-m", "sartorius.predict", "checkpoint=model.zip", *CHAIN[0][2:])
    assert (folder / "found" / "labels" / "a.tif").is_file()
    assert "as expected" in python(folder, "-m", "sartorius.export", "validate=model.zip")

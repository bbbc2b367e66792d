"""Kits for Kaggle: what is in them, what is refused, and the notebook run in a sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartorius.errors import InputError
from sartorius.exports.kaggle import notebook
from sartorius.kaggle import main
from sartorius.postprocess.saved import to_file
from sartorius.running import wiring
from sartorius.running.budget.kit import open_session, read_kit
from tests.postprocess.pipelines import pipeline
from tests.test_light_install import save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two checkpoints, and a freeze of a machine that lacks nothing."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "best.ckpt")
    shutil.copy("best.ckpt", "other.zip")
    needed = [line.partition(" ")[0] for line in metadata.requires("sartorius") or []]
    names = {line.split(">")[0].split("<")[0].split("=")[0].split(";")[0] for line in needed}
    (tmp_path / "freeze.txt").write_text("".join(f"{name}==9999\n" for name in sorted(names)))
    return tmp_path


def write(*options: str) -> None:
    main(wiring.compose("kaggle", ["installed=freeze.txt", "always=[]", "user=me", *options]))


def test_a_kit_holds_what_the_notebook_needs(folder: Path, capsys: pytest.CaptureFixture) -> None:
    to_file("tuned.yaml", pipeline(score=0.7), "tuned")
    options = ["members=[best.ckpt,other.zip]", "tta=d4", "tta.scales=[1,2]", "weights=[2,1]", "hours=0.5"]
    for _ in range(2):  # the second replaces the first
        write(*options, "fusion=vote", "postprocess.file=tuned.yaml")
    dataset, kernel = folder / "kit" / "dataset", folder / "kit" / "notebook"
    files = {path.name for path in dataset.iterdir()}
    wheel = "sartorius-0.1.0-py3-none-any.whl"
    members = ["member1_best.ckpt", "member2_other.bundle"]  # a zip would be unpacked by Kaggle
    assert files == {*members, wheel, notebook.KIT, "dataset-metadata.json"}
    assert (dataset / members[1]).read_bytes() == Path("other.zip").read_bytes()
    about = read_kit(dataset)
    assert [(member["file"], member["views"]) for member in about["members"]] == [(name, 16) for name in members]
    assert about["weights"] == {"member1_best": 2, "member2_other": 1} and about["hours"] == 0.5
    assert about["fusion"]["_target_"].endswith("Vote") or "vote" in about["fusion"]["_target_"].lower()
    assert about["postprocess"]["score"]["threshold"] == 0.7 and "file" not in about["postprocess"]
    kernels = json.loads((kernel / "kernel-metadata.json").read_text())
    assert kernels["id"] == "me/sartorius-kit-notebook" and kernels["dataset_sources"] == ["me/sartorius-kit"]
    assert (kernels["enable_internet"], kernels["enable_gpu"], kernels["is_private"]) == (False, True, True)
    assert kernels["competition_sources"] == ["sartorius-cell-instance-segmentation"]
    assert json.loads((dataset / "dataset-metadata.json").read_text())["id"] == "me/sartorius-kit"
    cells = json.loads((kernel / kernels["code_file"]).read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for text in code:
        compile(text, "cell", "exec")
    assert '"--no-deps"' in code[0] and '"--no-index"' in code[0] and len(code) == 3
    printed = capsys.readouterr().out
    assert "next: kaggle datasets create -p kit/dataset\nnext: kaggle kernels push -p kit/notebook\n" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give members="),
        (["members=[best.ckpt]", "run=kit"], "give members="),
        (["members=[none.ckpt]"], "none.ckpt: no such"),
        (["members=[freeze.txt]"], "freeze.txt: "),
        (["members=[best.ckpt]", "weights=[1,2]"], "weights: 2 for 1 members"),
        (["members=[best.ckpt]", "filter=none.npz"], "filter=none.npz: no such file"),
        (["members=[best.ckpt]", "hours=0"], "hours: expected a number above 0"),
        (["members=[best.ckpt]", "name=My_Kit"], "name: expected lower case letters"),
        (["run=none"], "no sartorius_kit.json in it"),
        (["run=kit", "inputs=none"], "no sartorius_kit.json in it"),
    ],
)
def test_what_is_refused(folder: Path, options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(*options)


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    (folder / "kit" / "dataset").mkdir(parents=True)
    (folder / "kit" / "dataset" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than a kit"):
        write("members=[best.ckpt]")
    assert (folder / "kit" / "dataset" / "mine.txt").read_text() == "mine"


def test_another_kit_or_other_images_work_in_another_folder(folder: Path) -> None:
    test = folder / "input" / "data" / "test"
    test.mkdir(parents=True)
    (test / "a.png").touch()
    (test.parent / "sample_submission.csv").write_text("id,predicted\na,\n")
    write("members=[best.ckpt]")
    opened = [open_session(folder / "kit" / "dataset", folder / "input", folder, 5.0)]
    opened.append(open_session(folder / "kit" / "dataset", folder / "input", folder, 6.0))
    (test / "b.png").touch()
    opened.append(open_session(folder / "kit" / "dataset", folder / "input", folder, 7.0))
    write("members=[best.ckpt]", "tta=flips")
    opened.append(open_session(folder / "kit" / "dataset", folder / "input", folder, 8.0))
    folders = [session.work for session in opened]
    assert folders[0] == folders[1] and len(set(folders)) == 3
    assert [list(session.rows.texts) for session in opened[1:3]] == [["a"], ["a", "b"]]


def repacked(name: str, folder: Path) -> None:
    """The wheel of a package that is installed here; without a network there is no other."""
    installed = metadata.distribution(name)
    stem = f"{name.replace('-', '_')}-{installed.version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file in installed.files or []:
            if file.parts[0] == ".." or "__pycache__" in file.parts or file.name in ("INSTALLER", "REQUESTED"):
                continue
            place = f"{stem}.dist-info/{file.name}" if file.parts[0].endswith(".dist-info") else file.as_posix()
            if file.name != "RECORD":
                wheel.write(file.locate(), place)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.mark.slow
def test_the_notebook_without_a_network_on_images_one_of_which_is_damaged(folder: Path) -> None:
    (folder / "wheels").mkdir()
    for name in ("hydra-core", "omegaconf", "antlr4-python3-runtime"):
        repacked(name, folder / "wheels")
    (folder / "images").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).normal(128, 12, (64, 80)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "images" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    options = ["members=[best.ckpt,other.zip]", "tta=flips", "wheels=wheels", "dry_run=true", "images=images"]
    done = subprocess.run(
        [sys.executable, "-m", "sartorius.kaggle", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wheels of hydra-core, omegaconf, antlr4-python3-runtime, sartorius" in done.stdout
    assert "EMPTY ROW: damaged: " in done.stdout and "LEFT OUT" not in done.stdout and "failed" not in done.stdout
    assert "submission.csv: member1_best_4_views, member2_other_4_views" in done.stdout
    assert "dry run: a valid submission of " in done.stdout and " in 3 images" in done.stdout
    assert "put your name on Kaggle in place of USERNAME" in done.stdout

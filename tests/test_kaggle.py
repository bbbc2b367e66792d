"""Kits for Kaggle: what is in them, what is refused, and the notebook run in a sandbox."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from sartorius.errors import InputError
from sartorius.exports.kaggle import notebook
from sartorius.kaggle import main
from sartorius.networks import checkpoints
from sartorius.postprocess.saved import to_file
from sartorius.rescoring import saved as saved_filter
from sartorius.running import wiring
from sartorius.running.budget.jobs import hydra_text
from sartorius.running.budget.kit import open_session, read_kit
from sartorius.structures.cell_types import CELL_TYPES
from tests.postprocess.pipelines import pipeline
from tests.rescoring.size_filter import larger_than
from tests.test_light_install import save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two checkpoints, and a freeze of a machine that lacks nothing."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "best.ckpt")
    shutil.copy("best.ckpt", "other.zip")
    names = {re.split(r"[^\w.-]", line)[0] for line in metadata.requires("sartorius") or []}
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
    assert about["fusion"]["_target_"].endswith(".Vote")
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
        (["run=none", "installed=null"], "no sartorius_kit.json in it"),
        (["members=[best.ckpt]", "filter=freeze.txt"], "freeze.txt"),
        (["members=[best.ckpt]", "images=images"], "images: has no effect with members= without dry_run=true"),
        (["members=[best.ckpt]", "started=5"], "started: has no effect with members="),
        (["members=[best.ckpt]", "dry_run=true", "images=none"], "none"),
        (["run=none", "dry_run=true", "installed=null"], "dry_run: has no effect with run="),
        (["run=none", "images=images", "installed=null"], "images: has no effect with run="),
        (["run=none", "weights=[1]", "installed=null"], "weights: has no effect with run="),
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


def test_a_kit_needs_the_images_of_the_competition(folder: Path) -> None:
    write("members=[best.ckpt]")
    with pytest.raises(InputError, match="^none: expected one folder `test` beside sample_submission.csv"):
        main(wiring.compose("kaggle", ["run=kit/dataset", "inputs=none"]))


@pytest.mark.parametrize(
    "options",
    [
        ["members=[none.ckpt]"],
        ["members=[best.ckpt]", "weights=[1,2]"],
        ["members=[best.ckpt]", "always=[hydra-core]", "wheels=input"],
        ["members=[best.ckpt]", "left_out=[none]"],
    ],
)
def test_a_kit_that_cannot_be_written_leaves_the_old_one(folder: Path, options: list[str]) -> None:
    (folder / "input").mkdir()
    write("members=[best.ckpt]")
    before = {path: path.read_bytes() for path in (folder / "kit").rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        write(*options)
    assert {path: path.read_bytes() for path in (folder / "kit").rglob("*") if path.is_file()} == before
    assert len(list((folder / "kit").iterdir())) == 2


def test_a_member_of_the_kit_that_is_replaced(folder: Path) -> None:
    content = Path("best.ckpt").read_bytes()
    write("members=[best.ckpt,other.zip]")
    for _ in range(2):
        write("members=[kit/dataset/member2_other.bundle,kit/dataset/member1_best.ckpt]", "weights=[1,2]")
        (folder / "kit" / "dataset" / "member1_other.bundle").rename("kit/dataset/member2_other.bundle")
        (folder / "kit" / "dataset" / "member2_best.ckpt").rename("kit/dataset/member1_best.ckpt")
    assert Path("kit/dataset/member1_best.ckpt").read_bytes() == content


def test_a_file_in_place_of_a_kit_is_left_alone(folder: Path) -> None:
    (folder / "kit").mkdir()
    (folder / "kit" / "notebook").write_text("mine")
    with pytest.raises(InputError, match="kit/notebook: holds something else than a kit"):
        write("members=[best.ckpt]")
    assert (folder / "kit" / "notebook").read_text() == "mine"


def test_names_of_members_are_keys_of_a_command_line(folder: Path) -> None:
    stems = ["epoch=3-step=10", "model (1)", "a,b", "x'y", "ä", "a[1]", "a&b", "a_b", "v1.0-x"]
    for stem in stems:
        shutil.copy("best.ckpt", f"{stem}.ckpt")
    write(f"members={hydra_text([f'{stem}.ckpt' for stem in stems])}", f"weights={hydra_text([1] * len(stems))}")
    about = read_kit(folder / "kit" / "dataset")
    safe = ["epoch_3-step_10", "model__1_", "a_b", "x_y", "_", "a_1_", "a_b", "a_b", "v1.0-x"]
    names = [f"member{number}_{name}" for number, name in enumerate(safe, start=1)]
    assert [member["name"] for member in about["members"]] == list(about["weights"]) == names
    assert all((folder / "kit" / "dataset" / f"{name}.ckpt").is_file() for name in names)
    value = {name: [f"work/{name}"] for name in names}
    (override,) = OverridesParser.create().parse_overrides([f"members={hydra_text(value)}"])
    assert override.value() == value


def test_filters_of_members_that_a_join_leaves_out_are_warned_of(folder: Path) -> None:
    larger_than(9).save("filter.npz")
    state = torch.load("best.ckpt", weights_only=False)
    state[checkpoints.KEY][saved_filter.KEY] = saved_filter.to_save("filter.npz", CELL_TYPES)
    torch.save(state, "filtered.ckpt")
    with pytest.warns(UserWarning, match="join of several members is not filtered, though filtered.ckpt came with"):
        write("members=[best.ckpt,filtered.ckpt]")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        write("members=[filtered.ckpt]")
        write("members=[best.ckpt,filtered.ckpt]", "filter=none")
        write("members=[best.ckpt,filtered.ckpt]", "filter=filter.npz")
    assert (folder / "kit" / "dataset" / "filter.npz").read_bytes() == Path("filter.npz").read_bytes()


def test_what_is_left_out_is_not_imported_by_what_a_notebook_runs() -> None:
    """But imagecodecs, for images of other kinds, and roifile, for a file that is not written."""
    paths = {".".join(path.with_suffix("").parts): path for path in map(relative, (ROOT / "sartorius").rglob("*.py"))}
    paths = {name.removesuffix(".__init__"): ROOT / path for name, path in paths.items()}
    todo, seen = {"sartorius.predict", "sartorius.ensemble", "sartorius.running.budget.kit"}, set[str]()
    while todo:
        seen.add(name := todo.pop())
        if name in paths:
            todo |= imported(ast.parse(paths[name].read_text())) - seen
    packages = metadata.packages_distributions()
    used = {distribution for name in seen for distribution in packages.get(name.partition(".")[0], ())}
    assert used & set(wiring.compose("kaggle", []).left_out) == {"imagecodecs", "roifile"}
    assert "scikit-image" in used


def relative(path: Path) -> Path:
    return path.relative_to(ROOT)


def imported(module: ast.Module) -> set[str]:
    """The names that a module imports anywhere but for its types alone."""
    found: set[str] = set()
    blocks: list[ast.AST] = [module]
    while blocks:
        node = blocks.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        blocks += ast.iter_child_nodes(node)
    return found


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

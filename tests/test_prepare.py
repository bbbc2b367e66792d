"""The prepare verb: a page of text, a table, folds; nothing written into the data; errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sartorius.data.cleaning import Cleaning
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds, read_folds
from sartorius.data.livecell.folder import LiveCell
from sartorius.errors import InputError
from sartorius.labelling.sources.folder import import_folder
from sartorius.prepare import prepare, prepare_livecell
from sartorius.structures.cell_types import CELL_TYPES
from tests.data.livecell.livecell_folder import write_livecell
from tests.labelling.sources.test_formats import drawn, write_image, write_labels

ROOT = Path(__file__).resolve().parents[1]


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_writes_audit_and_folds_beside_untouched_data(tiny_competition: Path, tmp_path: Path) -> None:
    before = listing(tiny_competition)
    text = prepare(tiny_competition, tmp_path / "out", tmp_path / "f.csv", 3, 1, Cleaning(), list(CELL_TYPES))
    assert listing(tiny_competition) == before
    assert "12 labelled images" in text
    assert (tmp_path / "out" / "audit.txt").read_text() in text
    assert len(pd.read_csv(tmp_path / "out" / "audit.csv")) == 12
    competition = Competition(tiny_competition)
    assert read_folds(tmp_path / "f.csv", competition).table.equals(make_folds(competition, 3, 1).table)


def test_broken_folder_is_audited_but_gets_no_folds(own_competition: Path, tmp_path: Path) -> None:
    (own_competition / "train" / "astro01.png").unlink()
    with pytest.raises(InputError, match=r"1 problems in .*, whose images cannot be used \(.*astro01\.png"):
        prepare(own_competition, tmp_path / "out", tmp_path / "f.csv", 3, 1, None, list(CELL_TYPES))
    assert "astro01.png" in (tmp_path / "out" / "audit.txt").read_text()
    assert not (tmp_path / "f.csv").exists()


def test_a_folder_without_a_usable_image(own_competition: Path, tmp_path: Path) -> None:
    table = pd.read_csv(own_competition / "train.csv", dtype=str, keep_default_na=False)
    table.assign(cell_type="neuron").to_csv(own_competition / "train.csv", index=False)
    with pytest.raises(InputError, match=r"12 problems in .* has cell type 'neuron'.*cell_types=\[neuron\]"):
        prepare(own_competition, tmp_path / "out", tmp_path / "f.csv", 3, 1, Cleaning(), list(CELL_TYPES))
    assert "0 labelled images, 0 cells" in (tmp_path / "out" / "audit.txt").read_text()
    assert "12 labelled images" in prepare(
        own_competition, tmp_path / "out", tmp_path / "f.csv", 3, 1, None, ["neuron"]
    )


def test_rows_that_repeat_another_are_noted(own_competition: Path, tmp_path: Path) -> None:
    lines = (own_competition / "train.csv").read_text().splitlines()
    (own_competition / "train.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    text = prepare(own_competition, tmp_path / "out", tmp_path / "f.csv", 3, 1, None, list(CELL_TYPES))
    assert "rows that repeat another one: 1 (row 32 is row 2 again)" in text


def test_a_livecell_folder_without_a_usable_image(tmp_path: Path) -> None:
    root = write_livecell(tmp_path / "livecell")
    for path in root.rglob("*.tif"):
        path.write_bytes(b"none")
    with pytest.raises(InputError, match="12 problems in"):
        prepare_livecell(LiveCell(root), tmp_path / "out")
    assert "0 cells" in (tmp_path / "out" / "audit.txt").read_text()


def test_livecell_is_audited_beside_untouched_data(tmp_path: Path) -> None:
    root = write_livecell(tmp_path / "livecell")
    before = listing(root)
    text = prepare_livecell(LiveCell(root), tmp_path / "out")
    assert listing(root) == before
    assert "8 train, 2 val, 2 test images" in text
    assert (tmp_path / "out" / "audit.txt").read_text() in text
    assert len(pd.read_csv(tmp_path / "out" / "audit.csv")) == 12
    next(root.rglob("*.tif")).unlink()
    with pytest.raises(InputError, match=r"1 problems in .*, whose images cannot be used \(.*unpack images\.zip"):
        prepare_livecell(LiveCell(root), tmp_path / "again")
    assert "unpack images.zip" in (tmp_path / "again" / "audit.txt").read_text()


def run(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sartorius.prepare", *overrides]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


def test_command_on_a_competition_folder(tiny_competition: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "source=competition", f"data.root={tiny_competition}", "n_folds=4")
    assert done.returncode == 0, done.stderr
    assert "By cell type" in done.stdout
    written = tmp_path / "runs" / "prepare" / "sartorius"
    assert sorted(path.name for path in written.iterdir()) == ["audit.csv", "audit.txt", "folds.csv"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["runs"]  # Hydra leaves nothing behind


def test_command_on_a_missing_folder_ends_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "data.root=nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere: not found; get the data with `kaggle")
    assert len(done.stderr.splitlines()) == 1


def test_command_writes_a_synthetic_folder(tmp_path: Path) -> None:
    small = "source.images={cort: 2, shsy5y: 2, astro: 2}"
    done = run(tmp_path, "source=synthetic", small, "source.test=1", "source.unlabelled=1", "n_folds=2")
    assert done.returncode == 0, done.stderr
    competition = Competition(tmp_path / "data" / "synthetic")
    assert len(competition.ids) == 6
    assert read_folds(tmp_path / "runs" / "prepare" / "synthetic" / "folds.csv", competition).n_folds == 2


def test_command_on_livecell(tmp_path: Path) -> None:
    small = "source.images={train: 2, val: 1, test: 1}"
    done = run(tmp_path, "source=synthetic_livecell", small, "source.height=64", "source.width=64", "source.shared=1")
    assert done.returncode == 0, done.stderr
    assert "train and val: 1 images of one name" in done.stdout
    root = tmp_path / "data" / "synthetic_livecell"
    again = run(tmp_path, "source=livecell", f"data.root={root}", "output=out")
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.csv", "audit.txt"]
    missing = run(tmp_path, "source=livecell")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: data/livecell: not found; get the data as https://")
    assert len(missing.stderr.splitlines()) == 1


def test_command_on_own_labels(tmp_path: Path) -> None:
    """The page, the folds beside the data, and a next command that reads them."""
    for k in range(4):
        one = drawn(k, overlap=False)
        write_image(tmp_path / "raw" / f"d{k // 2}_{k}.tif", one)
        write_labels(tmp_path / "raw", "_masks.tif", {f"d{k // 2}_{k}": one})
    write_image(tmp_path / "raw" / "new.tif", drawn(9))
    patterns = ("source=folder", "images=raw/**/*.tif", "labels=raw/**/*_masks.tif", "output=mine")
    done = run(tmp_path, *patterns, "group=(?P<group>[^_]+)_", "cell_type=round one")
    assert done.returncode == 0, done.stderr
    assert "mine: 4 labelled images, 32 cells, 1 unlabelled" in done.stdout
    assert "images without labels, in train_semi_supervised/: 1 (new)" in done.stdout
    assert "in whose paths group= finds nothing, as correct needs: 1 (new)" in done.stdout
    assert done.stdout.endswith("next: python -m sartorius.plan data.root=mine\n")
    competition = Competition(tmp_path / "mine", ["round one"])
    assert read_folds(tmp_path / "mine" / "folds.csv", competition).n_folds == 2  # as many as groups
    assert (tmp_path / "mine" / "audit.txt").is_file() and (tmp_path / "mine" / "audit.csv").is_file()
    missing = run(tmp_path, "source=folder", "labels=x", "output=y")
    assert missing.stderr == "error: 'images' is not set; give it on the command line: images=...\n"
    again = run(tmp_path, *patterns[:3])
    assert again.returncode == 1 and again.stderr == "error: output: give the folder to write, such as output=mine\n"


def test_own_folds_that_stay_are_told(tmp_path: Path) -> None:
    for name in "abcd":
        write_image(tmp_path / "raw" / f"{name}.tif", drawn(0, overlap=False))
        write_labels(tmp_path / "raw", "_masks.tif", {name: drawn(0, overlap=False)})
    root = import_folder(tmp_path / "mine", f"{tmp_path}/raw/*.tif", f"{tmp_path}/raw/*_masks.tif").root
    pages = [prepare(root, tmp_path / "out", root / "folds.csv", n, 0, None, ["cell"]) for n in (4, 4, 2, 5)]
    assert ["keeps its 4 folds" in page for page in pages] == [False, False, True, False]
    assert f"{root / 'folds.csv'} keeps its 4 folds; delete it for n_folds=2" in pages[2]

"""Bad ids of images at every place where ids enter: a clear error, and no file outside the output folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds, read_folds
from sartorius.data.images import list_images
from sartorius.data.livecell.folder import LiveCell
from sartorius.data.pseudo_labels.source import PseudoLabelled
from sartorius.errors import InputError
from sartorius.formats.submission import read_submission, write_submission
from sartorius.fusion.members import open_members
from sartorius.rescoring.pseudo_labels import read_truth
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.bad_ids import BAD_IDS
from tests.conftest import write_competition
from tests.data.files.reading import source
from tests.data.livecell.livecell_folder import edit, write_livecell
from tests.data.pseudo_folder import CELLS, row, settings, write_file, write_images


def train_csv(folder: Path, bad: str) -> None:
    root = write_competition(folder / "data")
    table = pd.read_csv(root / "train.csv", dtype=str, keep_default_na=False)
    table.loc[2, "id"] = bad
    table.to_csv(root / "train.csv", index=False)
    Competition(root)


def folds(folder: Path, bad: str) -> None:
    competition = Competition(write_competition(folder / "data"))
    table = make_folds(competition, 3, 0).table
    table.loc[2, "id"] = bad
    table.to_csv(folder / "folds.csv", index=False)
    read_folds(folder / "folds.csv", competition)


def pseudo_labels(folder: Path, bad: str) -> None:
    write_images(folder / "images", ["a"])
    file = write_file(folder, [row("a", CELLS[0], 0.9), row(bad, CELLS[1], 0.9)])
    PseudoLabelled(settings(file, folder / "images"), CELL_TYPES)


def truth_of_pseudo_labels(folder: Path, bad: str) -> None:
    pd.DataFrame({"id": ["a", bad], "annotation": ["1 2", "3 4"]}).to_csv(folder / "t.csv", index=False)
    read_truth(folder / "t.csv", ["a"])


def submission(folder: Path, bad: str) -> None:
    write_submission(folder / "s.csv", {"a": ["1 2"], bad: ["1 2"]})
    read_submission(folder / "s.csv")


def member_csv(folder: Path, bad: str) -> None:
    write_submission(folder / "s.csv", {"a": ["1 2"], bad: ["1 2"]})
    open_members([str(folder / "s.csv")], score=0.5, mask_size=8, cell_type=None)


def livecell(folder: Path, bad: str) -> None:
    if "/" in bad and not bad.endswith(".."):
        pytest.skip("only the name behind the last slash is taken")
    root = write_livecell(folder / "data")
    edit(root, lambda content: content["images"][0].update(file_name=f"{bad}.tif" if bad.strip(".") else bad))
    LiveCell(root).split("train")


def detections(image_id: str) -> Detections:
    boxes = np.array([[1, 1, 5, 5]], np.float32)
    return Detections(
        image_id, 9, 9, boxes, np.ones(1, np.float32), np.zeros(1, np.int64), np.ones((1, 8, 8), np.float16)
    )


def npz(folder: Path, bad: str) -> None:
    path = detections("a").save(folder / "detections")
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "image_id": np.array(bad if not bad.endswith("\0") else bad[:-1])})
    DetectionsFolder(folder / "detections").load("a")


def saving(folder: Path, bad: str) -> None:
    detections(bad).save(folder / "detections")


ENTRIES: list[Callable[[Path, str], None]] = [
    train_csv, folds, pseudo_labels, truth_of_pseudo_labels, submission, member_csv, livecell, npz, saving,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_a_bad_id_is_refused_where_it_enters(tmp_path: Path, entry: Callable[[Path, str], None], bad: str) -> None:
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    with pytest.raises(InputError) as error:
        entry(inside, bad)
    assert str(inside) in str(error.value) and "\n" not in str(error.value)
    assert entry is folds or "image id" in str(error.value)
    assert [*tmp_path.rglob("*")][:3] == [tmp_path / "a", tmp_path / "a" / "b", inside]
    assert all(path.is_relative_to(inside) for path in tmp_path.rglob("*.*")) and not Path("/abs").exists()


@pytest.mark.parametrize("name", ["a\\b", "a\nb", ".hidden", "a\x7f"], ids=repr)
def test_names_of_image_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    with pytest.raises(InputError, match="cannot be an image id|no images in it"):
        list_images(tmp_path) or source(tmp_path)
    with pytest.raises(InputError, match="cannot be an image id"):
        source(path)


def test_ids_of_a_coco_file_in_folders_are_their_names(tmp_path: Path) -> None:
    root = write_livecell(tmp_path / "data")
    name = json.loads((root / "livecell_coco_train.json").read_text())["images"][0]["file_name"]
    edit(root, lambda content: content["images"][0].update(file_name=f"../../{name}"))
    split = LiveCell(root).split("train")
    assert name[:-4] in split.ids and split.path(name[:-4]).is_relative_to(root)

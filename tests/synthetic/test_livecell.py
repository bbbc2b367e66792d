"""The synthetic LIVECell: its layout, that its annotations give the drawn masks back, and that it is deterministic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sartorius.data.livecell.audit import audit_livecell
from sartorius.data.livecell.coco import read_coco
from sartorius.data.livecell.coco_cells import cell_runs
from sartorius.data.livecell.folder import CELL_LINES, LiveCell, field_of
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.instances import Instances
from sartorius.synthetic.cells import POPULATIONS
from sartorius.synthetic.image import Appearance, draw_image
from sartorius.synthetic.livecell import LINES, CocoFile, _plan, write_synthetic_livecell

SMALL: dict[str, Any] = {"seed": 0, "images": {"train": 9, "val": 2, "test": 8}, "height": 96, "width": 120}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> LiveCell:
    return write_synthetic_livecell(tmp_path_factory.mktemp("synthetic") / "livecell", shared=2, **SMALL)


def test_it_reads_as_livecell(folder: LiveCell) -> None:
    found = audit_livecell(folder)
    assert found.problems == []
    assert found.images.groupby("split")["id"].count().to_dict() == {"train": 9, "val": 2 + 2, "test": 8}
    assert set(found.images["line"][found.images["split"] == "test"]) == set(CELL_LINES) == set(LINES)
    assert (found.images["cells"] >= 1).all()
    assert not found.images[["without_pixels", "crowds", "clipped"]].to_numpy().any()
    train_val, train_test, val_test = found.shared
    assert train_val.images == ("A172_Phase_A1_1_00d00h00m_1", "BT474_Phase_A1_1_00d00h00m_1")
    assert not (train_test.wells or val_test.wells)
    train, val = folder.split("train"), folder.split("val")
    for image_id in train_val.images:
        np.testing.assert_array_equal(train.instances(image_id).layers, val.instances(image_id).layers)


def test_images_are_8_bit_grey(folder: LiveCell) -> None:
    paths = list(folder.root.rglob("*.tif"))
    assert len(paths) == 9 + 2 + 8
    for path in paths:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (120, 96))


def test_without_shared_images_no_well_is_in_two_splits(tmp_path: Path) -> None:
    found = audit_livecell(write_synthetic_livecell(tmp_path / "a", **SMALL))
    assert not any(pair.wells for pair in found.shared)


def test_names_stay_apart() -> None:
    names = {split: [place.name for place in _plan(split, 3072)] for split in ("train", "val", "test")}
    assert len({name for some in names.values() for name in some}) == 3 * 3072
    assert names["val"][0] == "A172_Phase_E1_1_00d00h00m_1.tif"
    fields = [field_of(Path(name).stem) for name in names["test"]]
    assert len(set(fields)) == 3072 / 4  # crops


@pytest.mark.parametrize("population", POPULATIONS)
def test_annotations_give_the_drawn_masks_back(tmp_path: Path, population: str) -> None:
    rngs = np.random.default_rng(3), np.random.default_rng(4)
    runs = draw_image(*rngs, population, (0.9, 0.5), Appearance(256, 300)).runs
    file = CocoFile(256, 300)
    file.add("A172_Phase_A1_1_00d00h00m_1.tif", runs)
    file.write(tmp_path / "coco.json")
    (image_id,) = read_coco(tmp_path / "coco.json")
    assert rle.format(cell_runs("coco.json", image_id)) == rle.format(runs)
    kinds = {"polygon" if isinstance(c.shape, list) else type(c.shape["counts"]).__name__ for c in image_id.cells}
    assert kinds >= {"polygon"}
    if population == "astro":
        assert kinds == {"polygon", "str", "list"}
    assert [a["area"] for a in file.annotations] == runs.areas.tolist()


def test_outlines_at_the_edge_and_of_single_pixels(tmp_path: Path) -> None:
    masks = np.zeros((4, 6, 8), bool)
    masks[0, 0:6, 0:8] = True
    masks[1, 3, 7] = True
    masks[2, 0, 0:3] = True
    masks[3, 1, 1] = masks[3, 2, 2] = True  # hang together over a corner only
    file = CocoFile(6, 8)
    file.add("BV2_1.tif", Instances.from_masks(masks, np.zeros(4)).to_runs())
    assert [isinstance(a["segmentation"], list) for a in file.annotations] == [True, True, True, False]
    corners = np.reshape(file.annotations[0]["segmentation"], (-1, 2))  # through the middles of the outermost edges
    assert {tuple(p) for p in corners.tolist()} == {(x, y) for x in (0.5, 7.5) for y in (0, 6)} | {
        (x, y) for x in (0, 8) for y in (0.5, 5.5)
    }
    assert [a["bbox"] for a in file.annotations] == [[0, 0, 8, 6], [7, 3, 1, 1], [0, 0, 3, 1], [1, 1, 2, 2]]
    file.write(tmp_path / "coco.json")
    (image_id,) = read_coco(tmp_path / "coco.json")
    assert cell_runs("coco.json", image_id).areas.tolist() == [6 * 8, 1, 3, 2]


def test_the_same_arguments_give_the_same_bytes_and_more_images_add(folder: LiveCell, tmp_path: Path) -> None:
    mine = contents(folder.root)
    assert contents(write_synthetic_livecell(tmp_path / "again", shared=2, **SMALL).root) == mine
    counts = {"train": 10, "val": 3, "test": 8}
    more = contents(write_synthetic_livecell(tmp_path / "more", **(SMALL | {"images": counts})).root)
    tiffs = {name: data for name, data in mine.items() if name.endswith(".tif")}
    assert tiffs.items() < more.items()
    other = contents(write_synthetic_livecell(tmp_path / "other", **(SMALL | {"seed": 1})).root)
    assert not set(tiffs.values()) & set(other.values())


def test_a_folder_is_left_or_replaced_as_a_whole(tmp_path: Path) -> None:
    one = {"seed": 0, "images": {"train": 1, "val": 1, "test": 1}, "height": 40, "width": 48}
    root = write_synthetic_livecell(tmp_path / "data", **one).root
    marked = root / "annotations" / "LIVECell" / "livecell_coco_val.json"
    marked.write_text("mark")
    assert write_synthetic_livecell(str(root), **one).root == root
    assert marked.read_text() == "mark"
    write_synthetic_livecell(root, **(one | {"seed": 1}))
    assert json.loads((root / "synthetic.json").read_text())["seed"] == 1
    assert marked.read_text() != "mark"
    (root / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"would be replaced, but also holds notes\.txt"):
        write_synthetic_livecell(root, **one)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for path in (tmp_path / "other", tmp_path / "other" / "file"):
        with pytest.raises(InputError, match="holds something that is not a synthetic LIVECell"):
            write_synthetic_livecell(path, **one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"seed": 0, "images": {"train": 1, "val": 1, "test": 1}, "height": 40, "width": 48}
    root = write_synthetic_livecell(tmp_path / "data", **one).root
    before = contents(root)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("sartorius.synthetic.livecell.write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_synthetic_livecell(root, **(one | {"seed": 1}))
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {"dev": 1}}, "images: expected one of train, val, test, got 'dev'"),
        ({"images": {"train": 1, "val": 1}}, "images.test: .* got 0"),
        ({"seed": -1}, "seed: .* got -1"),
        ({"shared": -1}, "shared: .* got -1"),
        ({"shared": 10}, "shared: 10 images, but there are 9 training images"),
        ({"width": 31}, "width: .* got 31"),
        ({"noise": float("nan")}, "noise: .* got nan"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_synthetic_livecell(tmp_path / "data", **(SMALL | change))
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sartorius.errors import InputError
from sartorius.formats import coco, tables
from sartorius.formats.cells import Cells
from sartorius.formats.folder import FORMATS, CellsFolder
from sartorius.structures.instances import Instances
from tests.formats.crowd import crowd

FILES = {
    "labels": "labels/{}.tif", "outlines": "outlines/{}.txt", "rois": "rois/{}.zip", "geojson": "geojson/{}.geojson",
    "overlay": "overlays/{}.png",
}  # fmt: skip


def images() -> list[Cells]:
    """Three images, one without cells; ids as of a recursive folder, and one that a spreadsheet would split."""
    cells = crowd()
    none = Cells("b, c", Instances.empty(5, 9), np.zeros(0, np.float32), cells.cell_type_names)
    return [Cells("sub__a", cells.instances, cells.scores, cells.cell_type_names, 0.5, cells.grey), none, cells]


def test_all_formats_of_all_images_agree(tmp_path: Path) -> None:
    files = CellsFolder(tmp_path, FORMATS)
    for cells in images():
        files.add(cells)
    ids = [cells.image_id for cells in images()]
    assert files.missing([*ids, "new"]) == ["new"]
    files.finish(ids, {"broken": "not a readable image"})
    table, of_images = (tables.read_table(tmp_path / "tables" / f"{name}.csv") for name in ("cells", "images"))
    assert of_images["image"].tolist() == ["b, c", "broken", "crowd", "sub__a"] == sorted(of_images["image"])
    assert of_images["status"].tolist() == ["empty", "bad", "ok", "ok"]
    in_coco = {image["image_id"]: image["instances"] for image in coco.read_all(tmp_path / "coco.json")}
    for cells in images():
        expected, name = cells.instances.to_rles(), cells.image_id
        for pattern in (FILES[key] for key in ("labels", "outlines", "rois", "geojson")):
            read = Cells.load(tmp_path / pattern.format(name), cells.height, cells.width)
            assert read.instances.to_rles() == expected, pattern
        assert in_coco[name].to_rles() == expected
        assert (table["image"] == name).sum() == len(cells)
        assert of_images.set_index("image")["cells"][name] == len(cells)
        assert (tmp_path / "overlays" / f"{name}.png").is_file()
    pd.testing.assert_frame_equal(
        table[table["image"] == "crowd"].reset_index(drop=True), crowd().table(), rtol=0, atol=5.1e-7
    )
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [annotation["id"] for annotation in content["annotations"]] == list(range(1, 9))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(file.split("/")[0] for file in FILES.values()), "coco.json", "tables"]
    ), "no parts are left"


def test_types_of_several_models_keep_their_names(tmp_path: Path) -> None:
    """The same number stands for another type in each image."""
    files = CellsFolder(tmp_path, ["coco"])
    square = Instances.from_label_map(np.ones((4, 4), np.int64), [0])
    for name, types in (("a", ("neuron", "glia")), ("b", ("glia", "other"))):
        files.add(Cells(name, square, np.ones(1, np.float32), types))
    files.finish(["a", "b"])
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["neuron", "glia", "other"]
    assert [annotation["category_id"] for annotation in content["annotations"]] == [1, 2]
    read = [Cells(**{"scores": np.ones(1, np.float32), **image}) for image in coco.read_all(tmp_path / "coco.json")]
    assert [cells.types for cells in read] == [["neuron"], ["glia"]]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    files = CellsFolder(tmp_path, ["rois"])
    files.add(crowd())
    assert files.missing(["crowd", "b"]) == ["b"]
    files.finish(["crowd"])
    assert [path.name for path in tmp_path.iterdir()] == ["rois"]
    with pytest.raises(InputError, match="write: expected formats of labels, .*, got masks"):
        CellsFolder(tmp_path, ["labels", "masks"])


def test_no_image_at_all(tmp_path: Path) -> None:
    CellsFolder(tmp_path, FORMATS).finish([])
    assert len(tables.read_table(tmp_path / "tables" / "cells.csv")) == 0
    assert len(tables.read_table(tmp_path / "tables" / "images.csv")) == 0
    assert list(coco.read_all(tmp_path / "coco.json")) == []


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    files = CellsFolder(tmp_path, ["table"])
    files.add(crowd())
    (tmp_path / ".cells" / "crowd.json").write_text("{}")
    with pytest.raises(InputError, match=r"crowd\.json: damaged .*; delete it and give the command again"):
        files.finish(["crowd"])

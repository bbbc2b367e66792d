"""LIVECell's folder as a source: both layouts, what is refused and how it is said, what splits share, the audit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sartorius.data.livecell.audit import audit_livecell, shared_images
from sartorius.data.livecell.folder import CELL_LINES, LiveCell, LiveCellSplit, field_of
from sartorius.errors import InputError
from tests.data.livecell.livecell_folder import HEIGHT, NAMES, WIDTH, annotation, edit, rectangle, write_livecell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_livecell(tmp_path / "livecell")


def tiff(folder: Path, image_id: str) -> Path:
    return next(folder.rglob(f"{image_id}.tif"))


@pytest.mark.parametrize("nested", [False, True])
def test_both_published_layouts(tmp_path: Path, nested: bool) -> None:
    live = LiveCell(write_livecell(tmp_path / "livecell", nested))
    for split, names in NAMES.items():
        source = live.split(split)
        assert list(source.ids) == sorted(names)
        source.check()
        for k, name in enumerate(names):
            assert source.image(name).shape == (HEIGHT, WIDTH)
            assert source.cell_type(name) == name.split("_")[0]
            cells = source.instances(name)
            assert cells.cell_types.tolist() == [CELL_LINES.index(name.split("_")[0])] * k
            boxes = [[4 * j, 2 * j, 4 * j + 3, 2 * j + 5] for j in range(k)]
            assert cells.boxes.tolist() == boxes
            assert cells.areas.tolist() == [3 * 5] * k
    assert live.split("val") is live.split("val")  # read once


def test_images_may_lie_without_the_folder_images(folder: Path) -> None:
    (folder / "images" / "livecell_test_images").rename(folder / "livecell_test_images")
    assert LiveCell(folder).split("test").image(NAMES["test"][0]).shape == (HEIGHT, WIDTH)


def test_explicit_annotation_file(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "livecell_coco_val.json", tmp_path / "mine.json")
    with pytest.raises(InputError, match=r"no livecell_coco_val\.json in it; get the data"):
        LiveCell(folder).split("val")
    live = LiveCell(folder, {"val": tmp_path / "mine.json"})
    assert list(live.split("val").ids) == sorted(NAMES["val"])
    with pytest.raises(InputError, match="names split dev; expected some of train, val, test"):
        LiveCell(folder, {"dev": "x.json"})


def test_missing_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: not found; get the data as https://.*source=synthetic_livecell"):
        LiveCell(tmp_path / "none")
    shutil.rmtree(folder / "images" / "livecell_test_images")
    with pytest.raises(InputError, match="images/livecell_test_images: no such folder of images"):
        LiveCell(folder).split("test")


def test_rgb_with_equal_channels_is_read_and_colour_refused(folder: Path) -> None:
    name = NAMES["train"][1]
    grey = np.asarray(Image.open(tiff(folder, name)))
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tiff(folder, name))
    source = LiveCell(folder).split("train")
    np.testing.assert_array_equal(source.image(name), grey)
    Image.fromarray(np.stack([grey, grey, 255 - grey], axis=-1)).save(tiff(folder, name))
    with pytest.raises(InputError, match=f"{name}.tif: a coloured image"):
        source.check()


def test_annotations_without_pixels_are_left_out(folder: Path) -> None:
    edit(folder, lambda content: content["annotations"][0].update(segmentation=[[3, 3, 3, 9, 3, 6]]))
    source = LiveCell(folder).split("train")
    assert len(source.record(NAMES["train"][1])) == 1
    assert len(source.instances(NAMES["train"][1])) == 0


def test_the_line_may_be_in_the_original_name(folder: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["images"][0].update(file_name="x.tif", original_filename="huh7_Phase_A1_1_00d00h00m_1.tif")

    tiff(folder, NAMES["train"][0]).rename(folder / "images" / "livecell_train_val_images" / "x.tif")
    edit(folder, rename)
    assert LiveCell(folder).split("train").cell_type("x") == "Huh7"


def repeat(content: dict[str, Any]) -> None:
    """List the second image (1 cell) a second time, with 2 cells, and the third (2 cells) with none."""
    content["images"] += [content["images"][1] | {"id": 900}, content["images"][2] | {"id": 901}]
    content["annotations"] += [annotation(800 + k, 900, rectangle(3 * k, 0, 3 * k + 2, 2)) for k in range(2)]


def test_images_listed_twice(folder: Path) -> None:
    file = edit(folder, repeat)
    message = r"A172_Phase_A1_1_00d04h00m_1\.tif is listed twice, with ids 101 \(1 cells\) and 900 \(2\)"
    with pytest.raises(InputError, match=message):
        LiveCell(folder).split("train")
    source = LiveCellSplit(file, folder / "images" / "livecell_train_val_images", repeated="most_cells")
    assert source.instances(NAMES["train"][1]).areas.tolist() == [4, 4]
    assert source.instances(NAMES["train"][2]).areas.tolist() == [15, 15]
    assert source.repeated_names == NAMES["train"][1:3]
    with pytest.raises(InputError, match="data.repeated: expected one of error, most_cells, got 'last'"):
        LiveCell(folder, repeated="last").split("train")


def test_damages_are_named(folder: Path) -> None:
    name = NAMES["train"][3]
    source = LiveCell(folder).split("train")
    whole = tiff(folder, name).read_bytes()
    tiff(folder, name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{name}.tif: "):
        source.check()
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tiff(folder, name))
    with pytest.raises(InputError, match=rf"{name}\.tif: 8x9 pixels, but .*livecell_coco_train\.json says 32x24"):
        source.check([name])
    source.check([NAMES["train"][0]])
    tiff(folder, name).unlink()
    with pytest.raises(InputError, match=rf"no {name}\.tif in it, which .*livecell_coco_train\.json lists"):
        LiveCell(folder).split("train").check()
    with pytest.raises(InputError, match=r"no image 'ghost'; ids look like A172_Phase"):
        source.record("ghost")


def test_bad_files_of_a_split(folder: Path) -> None:
    edit(folder, lambda content: content["images"][0].update(file_name="HeLa_1.tif"))
    with pytest.raises(InputError, match=r"image HeLa_1\.tif is of no known cell line.*A172, BT474, BV2"):
        LiveCell(folder).split("train")
    edit(folder, lambda content: content.update(images=[], annotations=[]))
    with pytest.raises(InputError, match="lists no images"):
        LiveCell(folder).split("train")


@pytest.mark.parametrize(
    ("image_id", "field"),
    [
        ("A172_Phase_C7_1_00d00h00m_1", "A172_Phase_C7_1_00d00h00m"),
        ("SKOV3_Phase_H4_2_03d20h00m_12", "SKOV3_Phase_H4_2_03d20h00m"),
        ("own_image_12", "own_image_12"),
        ("A172_Phase_C7_1_00d00h00m", "A172_Phase_C7_1_00d00h00m"),
    ],
)
def test_field_of_view(image_id: str, field: str) -> None:
    assert field_of(image_id) == field


def test_what_splits_share() -> None:
    splits = {
        "train": ["A172_Phase_C7_1_00d00h00m_1", "A172_Phase_C7_1_00d00h00m_2", "BV2_Phase_A1_1_00d04h00m_1", "own"],
        "val": ["A172_Phase_C7_1_00d00h00m_3", "BV2_Phase_A1_2_00d00h00m_1", "own"],
        "test": ["A172_Phase_C8_1_00d00h00m_1"],
    }
    first, *others = shared_images(splits)
    assert (first.first, first.second, first.images) == ("train", "val", ("own",))
    assert first.fields == ("A172_Phase_C7_1_00d00h00m", "own")
    assert first.wells == ("A172_Phase_C7", "BV2_Phase_A1", "own")
    assert [(pair.first, pair.second) for pair in others] == [("train", "test"), ("val", "test")]
    assert not any(pair.images or pair.fields or pair.wells for pair in others)
    assert shared_images({}) == []


def test_audit(folder: Path) -> None:
    found = audit_livecell(LiveCell(folder))
    assert found.problems == []
    table = found.images.set_index(["split", "id"])
    assert len(table) == 8 + 2 + 2
    assert table["cells"].sum() == sum(range(8)) + 1 + 1
    row = table.loc[("train", NAMES["train"][2])]
    assert (row["line"], row["cells"], row["area_sum"], row["area_mean"]) == ("A172", 2, 30, 15.0)
    (train_val, *_) = found.shared
    assert (train_val.images, train_val.fields) == ((), ("A172_Phase_A1_1_00d00h00m",))
    text = found.text()
    for part in ("8 train, 2 val, 2 test images, 30 cells", "0 images of one name, 1 fields of view and 1 wells"):
        assert part in text
    assert "drop_shared=true" in text
    assert any(note.startswith("images without cells: 3 (") for note in found.notes)


def test_audit_goes_on_after_problems(folder: Path) -> None:
    (folder / "livecell_coco_test.json").unlink()
    tiff(folder, NAMES["train"][7]).unlink()

    def damage(content: dict[str, Any]) -> None:
        repeat(content)
        cells = content["annotations"]
        cells[-3]["segmentation"] = [[1, 1, 5, 5]]  # of the image that is missing anyway
        cells[6]["segmentation"] = [[1, 1, 5, 5]]  # of the fifth image
        cells[1]["segmentation"] = rectangle(-1, 0, 3, 5)
        cells[3]["segmentation"] = cells[4]["segmentation"]  # of the fourth
        cells[5]["segmentation"] = [[3, 3, 3, 9, 3, 6]]
        cells.append(annotation(999, 100, rectangle(0, 0, 4, 4), iscrowd=1))

    edit(folder, damage)
    found = audit_livecell(LiveCell(folder, repeated="most_cells"))
    assert len(found.problems) == 2
    assert "annotation 7 of image" in found.problems[0]
    assert f"no {NAMES['train'][7]}.tif" in found.problems[1]
    assert found.notes[0] == "no annotation file of test"
    notes = "\n".join(found.notes)
    for part in (
        "train: images listed twice, read with the most cells: 2 (",
        "annotations without a pixel (left out): 1 in 1 images",
        "clipped): 1 in 1 images",
        "cells annotated twice (IoU > 0.9): 1 in 1 images",
        "regions of crowds (iscrowd=1, left out): 1 in 1 images",
    ):
        assert part in notes
    assert "cannot be used): 2" in found.text()


def test_audit_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no livecell_coco_train\.json"):
        audit_livecell(LiveCell(tmp_path))
    write_livecell(tmp_path)
    for split in NAMES:
        for path in tmp_path.rglob("*.tif"):
            path.unlink()
        assert json.loads((tmp_path / f"livecell_coco_{split}.json").read_text())["images"]
    found = audit_livecell(LiveCell(tmp_path))
    assert len(found.problems) == 12
    assert "cannot be used): 12" in found.text()

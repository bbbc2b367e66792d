"""The competition's folder: what is read, and that every damage is named with file, row and image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sartorius.data.annotation_rows import well_of
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from tests.rewritten import written


def edit(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Rewrite train.csv after `change`; row k of the frame is line k + 2 of the file."""
    table = pd.read_csv(root / "train.csv", dtype=str, keep_default_na=False)
    changed = change(table)
    (table if changed is None else changed).to_csv(root / "train.csv", index=False)


def put(column: str, value: str, row: int = 0) -> Callable[[pd.DataFrame], None]:
    def change(table: pd.DataFrame) -> None:
        table.loc[row, column] = value

    return change


def test_reads_images_cells_and_wells(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    competition.check()
    assert len(competition.ids) == 12
    assert list(competition.ids) == sorted(competition.ids)
    record = competition.record("astro01")
    assert (record.height, record.width, record.cell_type, len(record)) == (48, 64, "astro", 2)
    assert record.well == "astro[x]_B2"
    assert competition.image("astro01").shape == (48, 64)
    assert [path.stem for path in competition.test_images()] == ["test00", "test01"]
    assert len(competition.unlabelled_images()) == 2


def test_instances_are_the_rectangles_that_were_drawn(tiny_competition: Path) -> None:
    instances = Competition(tiny_competition).instances("astro00")
    masks = np.zeros((2, 48, 64), bool)
    masks[0, 4:10, 6:21], masks[1, 7:13, 10:26] = True, True
    assert instances.cell_types.tolist() == [1, 1]
    assert len(instances.layers) == 2  # they overlap
    for k in range(2):
        np.testing.assert_array_equal((instances.layers == k + 1).any(axis=0), masks[k])


def test_image_without_cells_is_a_row_with_an_empty_annotation(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    assert len(competition.record("cort03")) == 0
    assert len(competition.instances("cort03")) == 0


def test_plate_columns_may_be_absent(own_competition: Path) -> None:
    edit(own_competition, lambda table: table.iloc[:, :5])
    competition = Competition(own_competition)
    assert not competition.has_wells
    assert competition.wells["astro01"] == "astro01"


@pytest.mark.parametrize(
    ("text", "well"),
    [
        ("astros[cereb]_G11-4_Vessel-361_Ph_4", "astros[cereb]_G11"),
        ("cort[density]_C6-1_Vessel-376_2020-11-03_13h30m00s_Ph_4", "cort[density]_C6"),
        ("shsy5y[diff]_E10-2_Vessel-714_Ph_3", "shsy5y[diff]_E10"),
        ("a_B_G11-4", "a_B_G11"),
        ("x_P24", "x_P24"),
        ("0030fd0e6378", "0030fd0e6378"),
        ("x_Q3-1", "x_Q3-1"),
    ],
)
def test_well_is_the_text_through_the_plate_position(text: str, well: str) -> None:
    assert well_of(text) == well


def test_missing_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kaggle competitions download.*source=synthetic"):
        Competition(tmp_path / "none")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"train\.csv: not found"):
        Competition(tmp_path)


DAMAGES = {
    "odd count": (put("annotation", "1 5 9"), r"train\.csv row 2: annotation of image shsy5y00: 3 numbers"),
    "start 0": (put("annotation", "0 5", 1), r"row 3: annotation of image shsy5y00: a start of 0"),
    "past the end": (put("annotation", "3070 5"), r"row 2: .*past the end: start 3070, length 5"),
    "unsorted": (put("annotation", "90 5 10 5"), r"row 2: .*sorted"),
    "overlapping runs": (put("annotation", "10 5 12 5"), r"row 2: .*disjoint"),
    "text": (put("annotation", "10 x"), r"row 2: .*'x' is not a whole number"),
    "unknown type": (
        put("cell_type", "neuron", 29),
        r"row 31: image cort03 has cell type 'neuron', expected one of shsy5y, astro, cort",
    ),
    "two types": (
        put("cell_type", "cort", 1),
        r"row 3: image shsy5y00 has cell_type 'cort', but row 2 says 'shsy5y'",
    ),
    "two sizes": (put("width", "65", 1), r"row 3: image shsy5y00 has width '65', but row 2 says '64'"),
    "no number": (put("height", "48.0", 29), r"row 31: height '48.0' of image cort03, expected a number of pixels"),
    "no id": (put("id", "", 3), r"row 5: no image id"),
    "no image": (put("id", "ghost", 0), r"ghost\.png: no such image"),
    "empty beside cells": (put("annotation", "", 1), r"row 3: an empty annotation, but image shsy5y00 has cells"),
    "no column": (lambda table: table.drop(columns="annotation"), r"no column annotation; expected id, annotation"),
    "no rows": (lambda table: table.iloc[:0], r"train\.csv: no rows"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_rows_are_named(own_competition: Path, name: str) -> None:
    change, message = DAMAGES[name]
    edit(own_competition, change)
    with pytest.raises(InputError, match=message):
        Competition(own_competition).check()


def test_unknown_type_of_a_whole_image(own_competition: Path) -> None:
    edit(own_competition, lambda table: table.replace({"cell_type": {"cort": "neuron"}}))
    with pytest.raises(
        InputError, match=r"row \d+: image cort00 has cell type 'neuron', expected one of shsy5y, astro, cort"
    ):
        Competition(own_competition)
    assert len(Competition(own_competition, ("shsy5y", "astro", "neuron")).ids) == 12


def test_own_types_are_suggested_all_at_once(own_competition: Path) -> None:
    edit(own_competition, lambda table: table.replace({"cell_type": {"cort": "neuron", "astro": "glia"}}))
    with pytest.raises(InputError, match=r"or give your own types: cell_types=\[shsy5y,glia,neuron\]") as error:
        Competition(own_competition)
    assert len(error.value.problems) == 8
    assert len(Competition(own_competition, ("shsy5y", "glia", "neuron")).ids) == 12


def test_all_bad_images_and_rows_are_named_at_once(own_competition: Path) -> None:
    gone = [own_competition / "train" / f"{name}.png" for name in ("astro01", "astro02")]
    bytes_of = {path: path.read_bytes() for path in gone}
    for path in gone:
        path.unlink()
    with pytest.raises(InputError, match=r"astro01\.png: no such image.*; .*astro02\.png: no such image"):
        Competition(own_competition)
    for path, content in bytes_of.items():
        path.write_bytes(content[:-200])

    def damage(table: pd.DataFrame) -> None:
        table.loc[table["id"].str.startswith("shsy5y"), "annotation"] = "7 x"

    edit(own_competition, damage)
    with pytest.raises(InputError) as error:
        Competition(own_competition).check()
    rows, images = error.value.problems[2:], error.value.problems[:2]
    assert all(f"{path}: " in problem for path, problem in zip(gone, images, strict=True))
    assert len(rows) == 11 and all(f"row {k + 2}: " in problem for k, problem in enumerate(rows))
    assert str(error.value).endswith("; and 3 more") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["\u0661\u0662", "\u00b2", "1e2", "99999999999999999999", "-64", " 64", "0"])
def test_a_size_is_ascii_digits(own_competition: Path, text: str) -> None:
    edit(own_competition, put("width", text, 29))
    with pytest.raises(InputError, match=rf"row 31: width '{text}' of image cort03, expected a number of pixels"):
        Competition(own_competition)


def test_rows_that_repeat_another_are_named(own_competition: Path) -> None:
    competition = Competition(own_competition)
    assert competition.doubts() == []
    table = pd.read_csv(own_competition / "train.csv", dtype=str, keep_default_na=False)
    edit(own_competition, put("annotation", table["annotation"][4].replace(" ", "  "), 5))
    again = Competition(own_competition)
    (doubt,) = again.doubts()
    assert "train.csv: rows that repeat another one: 1 (row 7 is row 6 again); each counts as a cell" in doubt
    assert again.doubts(["cort00"]) == []
    assert len(again.instances(table["id"][4])) == len(competition.instances(table["id"][4])), (
        "as the score counts them"
    )


def test_a_file_written_column_by_column_is_doubted(own_competition: Path) -> None:
    whole = Competition(own_competition)

    def turn(table: pd.DataFrame) -> None:
        for image_id in whole.ids:
            texts = written(whole.runs(image_id), "written column by column") or [""]
            table.loc[table["id"] == image_id, "annotation"] = texts

    edit(own_competition, turn)
    (doubt,) = Competition(own_competition).doubts()
    assert "train.csv: the masks seem to be written column by column" in doubt


def test_empty_and_unreadable_csv(own_competition: Path) -> None:
    (own_competition / "train.csv").write_text("")
    with pytest.raises(InputError, match="the file is empty"):
        Competition(own_competition)
    (own_competition / "train.csv").write_bytes(b"id,annotation\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="not a readable csv"):
        Competition(own_competition)


def test_blank_lines_do_not_shift_row_numbers(own_competition: Path) -> None:
    lines = (own_competition / "train.csv").read_text().splitlines()
    lines[1:1] = [""]
    lines[2] = lines[2].replace(lines[2].split(",")[1], "1 2 3")
    (own_competition / "train.csv").write_text("\n".join(lines) + "\n\n")
    with pytest.raises(InputError, match="row 3: annotation of image shsy5y00"):
        Competition(own_competition).check()


def test_rows_longer_than_the_header_shift_no_column(own_competition: Path) -> None:
    header, *rows = (own_competition / "train.csv").read_text().splitlines()
    (own_competition / "train.csv").write_text("\n".join([header, *(f"{row},1" for row in rows)]) + "\n")
    with pytest.raises(InputError, match="not a readable csv file.*header.*does not match"):
        Competition(own_competition)


def test_wrongly_sized_cut_off_and_16_bit_images(own_competition: Path) -> None:
    path = own_competition / "train" / "astro01.png"
    whole = path.read_bytes()
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"astro01\.png: 20x10 pixels, but .*train\.csv row \d+ says 64x48"):
        Competition(own_competition)
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)
    with pytest.raises(InputError, match=r"astro01\.png: an image of kind 16-bit grey"):
        Competition(own_competition)
    path.write_bytes(whole[:-200])
    competition = Competition(own_competition)  # the header is whole
    with pytest.raises(InputError, match=r"astro01\.png: cut off"):
        competition.check()
    competition.check(["astro00"])


def test_image_without_a_row_is_left_out_with_a_warning(own_competition: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(own_competition / "train" / "extra.png")
    with pytest.warns(UserWarning, match=r"1 images without a row.*extra\.png"):
        competition = Competition(own_competition)
    assert "extra" not in competition.ids
    assert [path.name for path in competition.unused] == ["extra.png"]


def test_keep_going_collects_problems(own_competition: Path) -> None:
    (own_competition / "train" / "astro01.png").unlink()
    edit(own_competition, put("annotation", "0 5"))
    competition = Competition(own_competition, keep_going=True)
    competition.check()
    assert len(competition.problems) == 2
    assert len(competition.ids) == 10
    with pytest.raises(InputError, match="no labelled image 'astro01'"):
        competition.image("astro01")


def test_real_folder_reads_whole(real_data: Path) -> None:
    competition = Competition(real_data / "sartorius")
    competition.check()
    assert len(competition.ids) == 32
    assert sum(len(record) for record in competition.images.values()) == 2694
    assert len(competition.record("5d066f4c3eef")) == 547

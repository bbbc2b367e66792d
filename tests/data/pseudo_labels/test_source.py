"""The pseudo-label file: what becomes of a row, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.groups import places_of
from sartorius.data.dataset import InstanceDataset
from sartorius.data.pseudo_labels.source import BACKGROUND, CELL, UNSURE, PseudoLabelled
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES, DOUBTFUL
from tests.conftest import WIDTH
from tests.data.pseudo_folder import CELLS, row, settings, write_file, write_images
from tests.rewritten import written


def source_of(root: Path, rows: list[dict[str, Any]], **changes: Any) -> PseudoLabelled:
    """The source of a file of these rows; the images a, b and c are there."""
    write_images(root / "images", ["a", "b", "c"])
    return PseudoLabelled(settings(write_file(root, rows), root / "images", **changes), CELL_TYPES)


def test_what_becomes_of_a_row(tmp_path: Path) -> None:
    rows = [row("a", CELLS[0], 0.59), row("a", CELLS[1], 0.6), row("a", CELLS[2], 0.3), row("a", CELLS[3], 0.29)]
    source = source_of(tmp_path, rows)
    assert [source.cells("a", fate) for fate in (CELL, UNSURE, BACKGROUND)] == [[1], [0, 2], [3]]
    instances = source.instances("a")  # certain ones first
    assert instances.cell_types.tolist() == [2, DOUBTFUL, DOUBTFUL]
    assert instances.boxes[:, 1].tolist() == [14, 4, 24]
    assert instances.areas.tolist() == [60, 60, 60]
    _, target = InstanceDataset(source, ["a"], weight=0.5)[0]
    assert target.boxes.tolist() == [[5, 14, 15, 20]]
    assert (target.cell_type, target.weight) == ("cort", 0.5)
    assert target.ignored is not None
    expected = np.zeros((48, 64), bool)
    expected[4:10, 5:15] = expected[24:30, 5:15] = True
    np.testing.assert_array_equal(target.ignored.numpy(), expected)


def test_ignore_and_agreement_make_doubtful(tmp_path: Path) -> None:
    rows = [
        row("a", CELLS[0], 0.9, agreement=0.5, ignore="false"),
        row("a", CELLS[1], 0.9, agreement=0.4, ignore="0"),
        row("a", CELLS[2], 0.9, agreement=1.0, ignore="True"),
        row("b", CELLS[0], 0.1, agreement=1.0, ignore="1"),
        row("b", CELLS[1], 0.1, agreement=0.0, ignore=""),
    ]
    source = source_of(tmp_path, rows, min_agreement=0.5)
    assert [source.cells("a", fate) for fate in (CELL, UNSURE, BACKGROUND)] == [[0], [1, 2], []]
    assert [source.cells("b", fate) for fate in (CELL, UNSURE, BACKGROUND)] == [[], [0], [1]]


def test_thresholds_by_cell_type(tmp_path: Path) -> None:
    rows = [row("a", CELLS[0], 0.5, "astro"), row("b", CELLS[0], 0.5, "cort"), row("c", CELLS[0], 0.5, "shsy5y")]
    by_type = {"shsy5y": 0.8, "astro": 0.4, "cort": 0.6}
    source = source_of(tmp_path, rows, min_score=by_type, doubtful_score={"shsy5y": 0.7, "astro": 0.9, "cort": 0.5})
    assert [len(source.cells(image_id, CELL)) for image_id in "abc"] == [1, 0, 0]  # a cell is never background
    assert [len(source.cells(image_id, UNSURE)) for image_id in "abc"] == [0, 1, 0]
    assert [source.cell_type(image_id) for image_id in source.ids] == ["astro", "cort", "shsy5y"]
    with pytest.raises(
        InputError, match=r"min_score has no value for cell type 'cort'.*\+pseudo_labels.min_score.cort"
    ):
        source_of(tmp_path, rows, min_score={"astro": 0.4, "shsy5y": 0.8})


def test_a_image_without_cells_is_background(tmp_path: Path) -> None:
    source = source_of(tmp_path, [row("a", "", ""), row("b", CELLS[0], 0.9)])
    source.check(source.ids)
    assert len(source.instances("a")) == 0
    _, target = InstanceDataset(source, ["a"])[0]
    assert (len(target), target.ignored) == (0, None)


def test_wells_are_of_the_name_or_the_column(tmp_path: Path) -> None:
    name = "cort[density]_C6-1_Vessel-376_2020-11-03_13h30m00s_Ph_4"
    write_images(tmp_path / "images", [name])
    assert places_of(tmp_path, None, {name: Path("a.png"), "a": Path("a.png")}) == {name: ["cort[density]_C6"], "a": []}
    named = source_of(tmp_path, [row("a", CELLS[0], 0.9, sample_id="x[y]_B12-3_Vessel-1_Ph_4")])
    assert named.record("a").well == "x[y]_B12"


def test_what_is_left_of_a_doubtful_cell_is_no_background(tmp_path: Path) -> None:
    """A crop drops slivers of cells, but not of doubtful ones."""
    source = source_of(tmp_path, [row("a", CELLS[0], 0.9), row("a", CELLS[1], 0.4)])
    image, instances = source.image("a"), source.instances("a")
    crop = LayerTransform(crop=CellCrop(48, 6), min_visible=0.9, min_area=50)

    class Left(np.random.Generator):
        def integers(self, *_: Any, **__: Any) -> Any:  # the crop begins in the corner and has a tenth of each cell
            return 0

    result = crop(image, instances, Left(np.random.PCG64(0)))
    assert result.instances.cell_types.tolist() == [DOUBTFUL]
    assert result.instances.areas.tolist() == [6]


def rows_with(**changes: Any) -> list[dict[str, Any]]:
    return [row("a", CELLS[0], 0.9), {**row("a", CELLS[1], 0.9), **changes}]


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "score above 1": (
        rows_with(score=1.5),
        {},
        r"pseudo.csv row 3: score '1.5' of image a, expected a number from 0",
    ),
    "score missing": (rows_with(score=""), {}, "row 3: score ''"),
    "score is text": (rows_with(score="high"), {}, "row 3: score 'high'"),
    "score is NaN": (rows_with(score="nan"), {}, "row 3: score"),
    "agreement": ([{**r, "agreement": -1} for r in rows_with()], {}, "row 2: agreement '-1' of image a"),
    "no agreement": (rows_with(), {"min_agreement": 0.5}, "no column agreement, which pseudo_labels.min_agreement=0.5"),
    "ignore": ([{**r, "ignore": "maybe"} for r in rows_with()], {}, "row 2: ignore 'maybe'.*expected true or false"),
    "cell type": ([row("a", CELLS[0], 0.9, "neuron")], {}, "row 2: image a has cell type 'neuron', expected one of"),
    "two types": (rows_with(cell_type="astro"), {}, "row 3: image a has cell_type 'astro', but row 2 says 'cort'"),
    "other size": ([{**row("a", CELLS[0], 0.9), "width": 70}], {}, r"a\.png: 64x48 pixels, but .*row 2 says 70x48"),
    "other images": (
        [row("a", "", ""), *(row(f"x{k}", "", "") for k in range(4))],
        {},
        r"4 of its images are not in .*images \(x0, x1, x2\).*pseudo_labels.folder=FOLDER",
    ),
    "no rows": ([dict.fromkeys(row("a", "", ""), "")], {}, "no rows; expected one for each cell"),
    "a second empty row": ([row("a", "", ""), row("a", "", "")], {}, "row 3: image a has a second empty annotation"),
    "an empty row among cells": (rows_with(annotation=""), {}, "row 3: an empty annotation, but image a has cells"),
    "overlap": (
        [
            row("b", CELLS[0], 0.9),
            row("a", CELLS[0], 0.9),
            row("a", CELLS[1], 0.9),
            row("a", f"{4 * WIDTH + 8} 3", 0.1),
        ],
        {},
        "rows 3 and 5: two cells of image a share 3 pixels",
    ),
    "beyond the image": (rows_with(annotation="3070 9"), {}, "row 3: annotation of image a"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named(tmp_path: Path, name: str) -> None:
    rows, changes, message = BAD[name]
    with pytest.raises(InputError, match=message):
        source_of(tmp_path, rows, **changes).check("a")


def test_a_file_that_is_not_there_or_has_no_scores(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a"])
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        PseudoLabelled(settings(tmp_path / "missing.csv", tmp_path / "images"), CELL_TYPES)
    (tmp_path / "old.csv").write_text(f"id,annotation,width,height,cell_type\na,{CELLS[0]},64,48,cort\n")
    with pytest.raises(InputError, match=r"old\.csv: no column score; expected id, .*, score"):
        PseudoLabelled(settings(tmp_path / "old.csv", tmp_path / "images"), CELL_TYPES)
    file = write_file(tmp_path, [row("a", CELLS[0], 0.9)])
    with pytest.raises(InputError, match="no such folder of images"):
        PseudoLabelled(settings(file, tmp_path / "elsewhere"), CELL_TYPES)
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: an image of kind 8-bit RGB"):
        PseudoLabelled(settings(file, tmp_path / "images"), CELL_TYPES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"file": None},
            r"pseudo_labels.file is not set; give pseudo_labels.file=FILE, a csv with the columns id, .*score",
        ),
        ({"ratio": 0}, r"pseudo_labels.ratio: expected a number above 0; pseudo_labels=null does without, got 0"),
        ({"weight": -1.0}, r"pseudo_labels.weight: expected a number above 0.*, got -1.0"),
        ({"weight": None}, r"pseudo_labels.weight: expected a number above 0.*, got None"),
        ({"min_score": "high"}, r"pseudo_labels.min_score: expected a number from 0 to 1, got 'high'"),
        ({"min_score": 2}, r"pseudo_labels.min_score: expected a number from 0 to 1, got 2"),
        (
            {"min_agreement": {"cort": -0.1}},
            r"pseudo_labels.min_agreement.cort: expected a number from 0 to 1, got -0.1",
        ),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**{"file": Path("a.csv"), "folder": Path("b"), **changes})


def test_all_bad_rows_are_named_at_once(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a", "b"])
    rows = [row(name, text, 0.9) for name, text in (("a", "1 x"), ("a", CELLS[0]), ("b", "\u0661 2"), ("b", "0 2"))]
    with pytest.raises(InputError, match=r"row 2: .*'x' is not.*; .*row 4: .*a whole.*; .*row 5: .*a start of 0"):
        source_of(tmp_path, rows).check(["a", "b"])
    bad = [row("a", CELLS[0], score) for score in ("high", 2, 0.5, "\u0661")]
    with pytest.raises(InputError, match=r"row 2: score 'high'.*; .*row 3: score '2'.*; .*row 5: score '\u0661'"):
        source_of(tmp_path, bad)


def test_a_file_written_column_by_column_is_warned_of(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a"])
    texts = written(rle.parse(CELLS, 48, 64), "written column by column")
    with pytest.warns(UserWarning, match=r"pseudo.csv: the masks seem to be written column by column"):
        source_of(tmp_path, [row("a", text, 0.9) for text in texts]).check(["a"])

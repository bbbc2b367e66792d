from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.metrics import report

ROWS = np.array([[0, *[1] * 10, 1, 1], [1, *[0] * 10, 2, 3], [2, *[2] * 5, *[0] * 5, 2, 2]])
TYPES = ["cort", "cort", "astro"]


def test_summary_names_every_average_and_serialises() -> None:
    numbers = report.summary(ROWS, TYPES, ("shsy5y", "astro", "cort"), samples=200)
    assert numbers["competition_map"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert numbers["competition_map_cort"] == (1 + 0) / 2
    assert numbers["competition_map_astro"] == 0.5
    assert numbers["competition_map_shsy5y"] is None and numbers["competition_map_interval_shsy5y"] is None
    assert (numbers["images"], numbers["cells"], numbers["predictions"]) == (3, 6, 5)
    assert numbers["precision_by_threshold"]["0.50"] == pytest.approx(2 / 3)
    assert numbers["pooled_precision_by_threshold"]["0.50"] == 3 / (5 + 6 - 3)
    assert numbers["pooled_precision_by_threshold"]["0.95"] == 1 / (5 + 6 - 1)
    low, high = numbers["competition_map_interval"]
    assert 0 <= low <= numbers["competition_map"] <= high <= 1
    json.dumps(numbers, allow_nan=False)


def test_summary_of_no_images_is_null_not_nan() -> None:
    numbers = report.summary(ROWS[:0], [], ("cort",))
    assert numbers["competition_map"] is None and numbers["pooled_map"] is None and numbers["images"] == 0
    json.dumps(numbers, allow_nan=False)


def test_per_image_table_round_trips(tmp_path: Path) -> None:
    table = report.per_image_table(ROWS, ["07", "b", "c"], TYPES)
    assert table.average_precision.tolist() == [1.0, 0.0, 0.5]
    assert table.true_positives_70.tolist() == [1, 0, 2] and table.true_positives_75.tolist() == [1, 0, 0]
    table.to_csv(tmp_path / "per_image.csv", index=False)
    for path in (tmp_path, tmp_path / "per_image.csv"):
        assert report.read_per_image(path).image_id.tolist() == ["07", "b", "c"]


def test_compare_pairs_by_image() -> None:
    ours = report.per_image_table(ROWS, ["a", "b", "c"], TYPES)
    theirs = ours.iloc[[2, 0]].assign(average_precision=[0.25, 0.5])
    difference, images = report.compare(ours, theirs, samples=100)
    assert images == 2 and difference.mean == ((0.5 - 0.25) + (1 - 0.5)) / 2


def test_an_image_may_be_called_na(tmp_path: Path) -> None:
    (tmp_path / "per_image.csv").write_text("image_id,average_precision\nNA,1\nnull,0.5\n")
    assert report.read_per_image(tmp_path).image_id.tolist() == ["NA", "null"]


@pytest.mark.parametrize("value", ["abc", "\u0661", "1.5", "-0.1", "", "nan", "inf"])
def test_scores_that_are_none_are_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "per_image.csv").write_text(f"image_id,average_precision\na,1\nb,{value}\nc,{value}\n")
    with pytest.raises(InputError, match=r"per_image.csv row 3: average_precision .*, expected a number.*; .* row 4: "):
        report.read_per_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b'image_id,average_precision\n"a'])
def test_files_that_are_no_csv(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "per_image.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"per_image.csv: not a readable csv"):
        report.read_per_image(tmp_path)


def test_bad_tables(tmp_path: Path) -> None:
    table = report.per_image_table(ROWS, ["a", "b", "c"], TYPES)
    with pytest.raises(InputError, match="share no image"):
        report.compare(table, table.assign(image_id=["x", "y", "z"]))
    with pytest.raises(InputError, match="image x appears twice"):
        report.compare(table, table.assign(image_id=["x", "x", "z"]))
    with pytest.raises(InputError, match="no such file"):
        report.read_per_image(tmp_path)
    (tmp_path / "per_image.csv").write_text("id,score\na,1\n")
    with pytest.raises(InputError, match="expected columns image"):
        report.read_per_image(tmp_path)

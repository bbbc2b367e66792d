"""Means over fields by well and time, and tables that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.formats.tables import CELL_COLUMNS
from sartorius.metrics.bootstrap import bootstrap_interval
from sartorius.reports.plates.names import places_of
from sartorius.reports.plates.tables import Fields, fields_of, read_images, wells_of
from tests.reports.plates.tables import Row, bad, row, write

BOOTSTRAP = {"samples": 500, "seed": 0, "level": 0.9}
PATTERN = r"(?P<well>[A-P]\d+)_f(?P<field>\d)_t(?P<time>\d+)(?:_p(?P<part>\d))?"


def fields(tmp_path: Path, *rows: Row, pattern: str = PATTERN) -> Fields:
    images = read_images([write(tmp_path / "images.csv", *rows)])
    return fields_of(images, places_of({name: name for name in images.image}, pattern)[0])


def test_means_over_fields(tmp_path: Path) -> None:
    found = fields(
        tmp_path, row("A1_f1_t0", 4), row("A1_f2_t0", 8), row("A1_f3_t0", 9), row("A1_f1_t2", 5), row("B1_f1_t0")
    )
    wells = wells_of(found, BOOTSTRAP).set_index(["well", "time", "measure"])
    cells = wells.loc[("A1", 0.0, "cells")]
    expected = bootstrap_interval(np.array([4.0, 8, 9]), **BOOTSTRAP)
    assert (cells["mean"], cells.low, cells.high, cells.fields) == (7, expected.low, expected.high, 3)
    assert wells.loc[("A1", 0.0, "confluence"), "mean"] == pytest.approx(0.07)
    assert wells.loc[("A1", 0.0, "cells_cort"), "mean"] == 7 and wells.loc[("A1", 0.0, "cells_astro"), "mean"] == 0
    one = wells.loc[("A1", 2.0, "cells")]
    assert one["mean"] == 5 and np.isnan(one.low) and np.isnan(one.high), "one field has no spread to draw from"
    assert wells.loc[("B1", 0.0, "cells"), "mean"] == 0, "a well without cells is a count"


def test_parts_of_a_photograph_are_one_field(tmp_path: Path) -> None:
    found = fields(tmp_path, row("A1_f1_t0_p1", 2), row("A1_f1_t0_p2", 6), row("A1_f2_t0_p1", 10))
    assert found.table.cells.tolist() == [4, 10] and found.table.images.tolist() == [2, 1]
    wells = wells_of(found, BOOTSTRAP)
    assert wells["mean"][0] == 7 and wells.fields[0] == 2 and wells.images[0] == 3


def test_bad_images_are_left_out_and_told(tmp_path: Path) -> None:
    found = fields(tmp_path, row("A1_f1_t0", 4), bad("A1_f2_t0"), row("A1_f3_t0", 6, status="empty"))
    assert found.bad == {"A1_f2_t0": "truncated"} and found.table.cells.mean() == 5
    with pytest.raises(InputError, match=r"all 1 images of wells are bad \(truncated\)"):
        fields(tmp_path, bad("A1_f2_t0"))


def test_cells_a_square_millimetre(tmp_path: Path) -> None:
    """520 x 704 pixels of 1.25 micrometres are 0.572 mm2."""
    found = fields(tmp_path, row("A1_f1_t0", 572, pixel_size=1.25), row("A1_f2_t0", 0, pixel_size=1.25))
    assert found.table.cells_per_mm2.tolist() == pytest.approx([1000, 0])
    assert "cells_per_mm2" not in fields(tmp_path, row("A1_f1_t0", 5, pixel_size=1.25), row("A1_f2_t0", 5)).measures
    assert fields(tmp_path, row("A1_f1_t0"), row("A1_f2_t0", height=100)).sizes == [(100, 704), (520, 704)]


def test_wells_are_in_the_order_of_the_plate(tmp_path: Path) -> None:
    names = ["B1_f1_t0", "A10_f1_t0", "A2_f1_t10", "A2_f1_t9"]
    table = fields(tmp_path, *map(row, names)).table
    assert list(zip(table.well, table.time, strict=True)) == [("A2", 9), ("A2", 10), ("A10", 0), ("B1", 0)]


def test_several_tables_are_joined(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "tables" / "images.csv", row("A1_f1_t0", 1))
    second = write(tmp_path / "b" / "images.csv", row("NA", 2))
    joined = read_images([tmp_path / "a", tmp_path / "b"])
    assert joined.image.tolist() == ["A1_f1_t0", "NA"] and joined.cells.tolist() == [1, 2]
    with pytest.raises(InputError, match="image NA is in two rows"):
        read_images([second, write(tmp_path / "c.csv", row("NA"))])
    other = {key: value for key, value in row("B1").items() if key != "cells_astro"}
    with pytest.raises(InputError, match=r"counts cells_astro, cells_cort, .* cells_cort; give tables of the same"):
        read_images([first, write(tmp_path / "c.csv", other)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": -1}, "row 2: cells -1, expected a number from 0 to inf"),
        ({"confluence": 1.5}, "row 2: confluence 1.5, expected a number from 0 to 1"),
        ({"cells": "many"}, "counts that are no whole numbers"),
        ({"cells": 1.5}, "counts that are no whole numbers"),
        ({"pixel_size": "x"}, "row 2: pixel_size x"),
        ({"height": None}, "row 2: height <NA>"),
        ({"status": "good"}, "row 2: image A1, status good; expected a name, and ok, empty or bad"),
        ({"image": None}, "row 2: image nan"),
    ],
)
def test_rows_that_cannot_be(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = write(tmp_path / "images.csv", {**row("A1"), **change})
    with pytest.raises(InputError, match=f"images.csv:? {message}"):
        read_images([file])


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no images.csv; `predict` and `convert` write one with write=\[table\]"):
        read_images([tmp_path])
    with pytest.raises(InputError, match="name at least one"):
        read_images([])
    file = tmp_path / "x.csv"
    file.write_text("image,status,cells\nA1,ok,3\n")
    with pytest.raises(InputError, match="without the columns height, width, pixel_size, confluence"):
        read_images([file])
    file.write_text(",".join(CELL_COLUMNS) + "\n")
    with pytest.raises(InputError, match=r"a table of cells; give images.csv, which is written beside it"):
        read_images([file])
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable table"):
        read_images([file])
    file.write_text(",".join(row("A1")) + "\n")
    with pytest.raises(InputError, match="no rows"):
        read_images([file])


def test_two_images_of_one_place(tmp_path: Path) -> None:
    rows = [row(f"A1_f{k}_t0") for k in range(3)]
    with pytest.raises(
        InputError, match=r"A1_f0_t0 and A1_f1_t0: both well A1, time 0.0; .*2 such pairs; tell them apart"
    ):
        fields(tmp_path, *rows, pattern=r"(?P<well>..)_f._t(?P<time>\d)")
    with pytest.raises(InputError, match="both well A1; "):
        fields(tmp_path, *rows, pattern="(?P<well>..)_.*")

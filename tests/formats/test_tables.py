from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.formats import tables
from sartorius.formats.cells import Cells
from sartorius.structures.instances import Instances
from tests.formats.crowd import crowd


def test_cells_and_labels() -> None:
    cells = crowd()
    assert cells.labels.shape == (2, 48, 64) and cells.labels.dtype == np.uint16
    assert Cells("a", Instances.empty(4, 5), np.zeros(0, np.float32), ("x",)).labels.shape == (4, 5)
    with pytest.raises(ValueError, match="scores of shape"):
        Cells("a", Instances.empty(4, 5), np.zeros(1, np.float32), ("x",))
    with pytest.raises(ValueError, match="image \\(5, 4\\)"):
        Cells("a", Instances.empty(4, 5), np.zeros(0, np.float32), ("x",), grey=np.zeros((5, 4), np.uint8))
    with pytest.raises(InputError, match="a.xyz: expected a name that ends in"):
        cells.save("a.xyz")


def test_columns_and_units() -> None:
    cells = crowd()
    table = cells.table()
    assert tuple(table.columns) == tables.CELL_COLUMNS
    assert table["label"].tolist() == [1, 2, 3, 4] and table["type"].tolist() == ["cort", "astro", "cort", "cort"]
    assert table["area"].tolist() == cells.instances.areas.tolist()
    assert np.allclose(table["area_um2"], cells.instances.areas * 0.25)
    assert np.allclose(cells.table(pixel_size=2.0)["area_um2"], cells.instances.areas * 4)
    assert table["touches_border"].tolist() == [False, False, False, True]
    bare = Cells("a", cells.instances, cells.scores, cells.cell_type_names).table()
    assert bare["area_um2"].isna().all() and bare["intensity_mean"].isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_cells_read_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    cells = crowd()
    path = cells.save(tmp_path / f"a{suffix}")
    table, expected = tables.read_table(path), cells.table()
    assert list(table.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(table[name], expected[name], atol=5.1e-7, rtol=0, err_msg=name)
        else:
            assert table[name].tolist() == expected[name].tolist(), name


def test_images_with_empty_and_bad_ones(tmp_path: Path) -> None:
    """Ids that pandas takes for missing values stay text."""
    cells = crowd()
    empty = Cells("NA", Instances.empty(4, 5), np.zeros(0, np.float32), cells.cell_type_names)
    rows = [tables.image_row(cells), tables.image_row(empty), tables.bad_row("nan", "not a readable image")]
    tables.write_table(tables.images_table(rows), tmp_path / "images.csv")
    lines = (tmp_path / "images.csv").read_text().splitlines()
    assert lines[0] == (
        "image,height,width,pixel_size,cells,cells_cort,cells_astro,confluence,mean_area,mean_area_um2,mean_score,"
        "status,problem"
    )
    share, area = cells.instances.foreground().mean(), cells.instances.areas.mean()
    numbers = [round(number, 6) for number in (share, area, area / 4, cells.scores.mean(dtype=float))]
    assert lines[1] == f"crowd,48,64,0.5,4,3,1,{','.join(map(str, numbers))},ok,"
    assert lines[2:] == ["NA,4,5,,0,0,0,0.0,,,,empty,", "nan,,,,,,,,,,,bad,not a readable image"]
    table = tables.read_table(tmp_path / "images.csv")
    assert table["image"].tolist() == ["crowd", "NA", "nan"] and table["cells"].sum() == 4
    assert table["problem"].tolist() == ["", "", "not a readable image"]


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tables.read_table(tmp_path / "cells.csv")
    for content, message in (("image,label\na,1\n", "without the columns type, score, area"), ("", "not a readable")):
        (tmp_path / "cells.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            tables.read_table(tmp_path / "cells.csv")

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sartorius.loggers.growing_csv import GrowingCsv, read_rows


def test_new_columns_come_where_the_order_puts_them(tmp_path: Path) -> None:
    file = GrowingCsv(tmp_path / "a.csv", lambda names: [*(name for name in names if name != "end"), "end"])
    file.save()
    assert not list(tmp_path.iterdir())
    for k, name in enumerate(("b", "c", "a")):
        file.rows.append({"n": k, name: 1.5, "end": 0})
        file.save()
    table = pd.read_csv(file.path)
    assert list(table) == ["n", "b", "c", "a", "end"]
    assert table.n.tolist() == [0, 1, 2]
    assert table.b.isna().tolist() == [False, True, True]


def test_a_restart_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,old,a\n0,1,2\n1,2,3\n")
    file = GrowingCsv(tmp_path / "a.csv", list)
    file.restart([row for row in read_rows(file.path) if row["n"] < 1])
    file.rows.append({"n": 7})
    file.save()
    assert file.path.read_text() == "n,old,a\n0,1,2\n7,,\n"


def test_a_file_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    file = GrowingCsv(tmp_path / "a.csv", list)
    file.rows.append({"n": 1})
    file.save()
    file.path.unlink()
    file.rows.append({"n": 2})
    file.save()
    assert file.path.read_text() == "n\n1\n2\n"


def test_reading_leaves_out_half_a_row(tmp_path: Path) -> None:
    path, needed = tmp_path / "batches.csv", ("epoch", "step", "batch")
    assert read_rows(path, needed) == []
    path.write_text("")
    assert read_rows(path, needed) == []
    path.write_text("epoch,step,batch,lr\n0,0,0,0.1\n0,1,1,0.")
    assert read_rows(path, needed) == [{"epoch": 0, "step": 0, "batch": 0, "lr": 0.1}]
    path.write_text("epoch,step,batch,lr\n0,0,0,\n0,,1,0.5\n")
    assert read_rows(path, needed) == [{"epoch": 0, "step": 0, "batch": 0}]
    path.write_text("a,b\n1,2\n")
    assert read_rows(path, needed) == []

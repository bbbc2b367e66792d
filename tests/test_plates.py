"""The command on tables made by hand: its files, what the page holds, what it says that it lacks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.core.hydra_config import HydraConfig

from sartorius import plates
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.formats.folder import CellsFolder
from sartorius.reports.plates import drawings
from sartorius.running import wiring
from tests.reports.elements import Page
from tests.reports.plates.tables import Row, bad, row, write

Write = Callable[..., Page]
SERIES = [row(f"A{c}_f{f}_t{t}", round((8 + f) * 2 ** (t * c / 4))) for c in (1, 2) for f in (1, 2) for t in range(5)]
PATTERN = r"well='(?P<well>[A-P]\d+)_f(?P<field>\d)_t(?P<time>\d+)'"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def program(rows: list[Row], *overrides: str) -> Page:
        write(tmp_path / "t" / "images.csv", *rows)
        more = ["tables=t", "bootstrap.samples=100", "output=out", *overrides]
        return Page(Path(plates.main(wiring.compose("plates", more))))

    return program


def test_a_time_series(run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    found = run([*SERIES, bad("A1_f3_t0"), row("notes")], PATTERN, "interval=6", "unmatched=skip")
    wells, growth = pd.read_csv("out/wells.csv"), pd.read_csv("out/growth.csv")
    assert list(wells)[:8] == ["plate", "well", "hours", "measure", "mean", "low", "high", "fields"]
    cells = wells[wells.measure == "cells"].set_index(["well", "hours"])
    assert cells.loc[("A1", 24.0), "mean"] == 19 and len(cells) == 10 and cells.fields.eq(2).all()
    assert growth.doubling_hours.to_numpy() == pytest.approx([24, 12], rel=0.05)
    names = {"heat_cells", "heat_confluence", "heat_doubling_hours", "curves_cells", "curves_confluence"}
    assert {path.stem for path in Path("out/plots").iterdir()} == names
    assert {f"plot-{name}" for name in names} <= {str(tag.get("id")) for _, tag in found.tags}
    for text in ("left out as bad, 1 images: A1_f3_t0 (truncated)", "left out for their names, 1 images: notes",
                 "0 to 24 hours", "Least squares of ln N", "at 24 h", "4 fields of view"):  # fmt: skip
        assert text in found.text, text
    assert not found.having(id="gallery") and "Content-Security-Policy" in found.html
    assert "20 images of 2 wells; left out: 1 bad, 1 of other names" in capsys.readouterr().out
    assert run([*SERIES, bad("A1_f3_t0"), row("notes")], PATTERN, "interval=6", "unmatched=skip").html == found.html


def test_wells_without_time_and_of_other_names(run: Write) -> None:
    found = run(
        [row("ctl_1", 4), row("ctl_2", 6), row("drug_1", 2)], "well='(?P<well>[a-z]+)_(?P<field>.)'", "plots=false"
    )
    assert "no heat map: its wells are not all on a plate of 384 or less" in found.text
    assert "hours" not in found.text and not found.having(id="growth") and found.having(id="wells")
    assert "1 of 2 wells and times have one field of view, and so no interval" in found.text
    assert pd.read_csv("out/growth.csv").empty and not Path("out/plots").exists()


def test_images_that_do_not_match_stop_the_command(run: Write) -> None:
    with pytest.raises(InputError, match=r"does not match 1 of 21 images \(notes\); mend it, or leave them out"):
        run([*SERIES, row("notes")], PATTERN)


def test_several_plates_and_types_have_maps_of_their_own(run: Write) -> None:
    rows = [row(f"{p}_A{c}", 5, cells_astro=2, cells_cort=3) for p in "xy" for c in (1, 2)]
    found = run(rows, "well='(?P<plate>.)_(?P<well>.+)'", "plate_wells=384")
    names = {str(tag["id"]) for _, tag in found.tags if str(tag.get("id")).startswith("plot-")}
    measures = ("cells", "cells_astro", "cells_cort", "confluence")
    assert names == {f"plot-heat_{measure}_{plate}" for measure in measures for plate in "xy"}
    assert found.having(class_="whole") and "2 plates" in found.text


def test_a_plate_of_96_wells_has_a_curve_in_each(run: Write) -> None:
    rows = [row(f"{r}{c}_f1_t{t}", c + t) for r in "ABCDEFGH" for c in range(1, 13) for t in range(2)]
    found = run(rows, PATTERN, "plots=false")
    assert "each from 0 to 1 h and 0 to 13" in found.text and found.having(class_="wide")
    assert "96 of 192" not in found.text and "192 of 192 wells and times have one field" in found.text


def test_the_smallest_plate_that_holds_the_wells() -> None:
    sizes = {"B3": (2, 3), "C4": (3, 4), "D6": (4, 6), "F8": (6, 8), "H12": (8, 12), "P24": (16, 24), "x": None}
    assert {well: drawings.format_of(["A1", well]) for well in sizes} == sizes
    assert drawings.format_of(["A1"], 96) == (8, 12) and drawings.format_of(["H12"], 24) is None


def test_wells_without_the_last_time_and_plates_of_like_names(run: Write) -> None:
    rows = [row(f"{p}_{w}_t{t}", 4) for p in ("a b", "a-b") for w, t in (("A1", 0), ("A1", 1), ("A2", 0), ("A2", 1))]
    found = run([*rows, row("a b_A3_t0", 4)], r"well='(?P<plate>.+)_(?P<well>.+)_t(?P<time>.)'")
    assert "1 wells of plate a b have no image at 1 h: they are empty" in found.text
    maps = [str(tag["id"]) for _, tag in found.tags if str(tag.get("id")).startswith("plot-heat_cells")]
    assert len(set(maps)) == len(maps) == 2 == len([*Path("out/plots").glob("heat_cells_*.png")])


def test_a_pattern_is_typed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line without quotes of Hydra's own."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "images.csv", *SERIES)
    HydraConfig.instance().cfg = None
    pattern = r"well=(?P<well>[A-P]\d{1,2})_f(?P<field>\d)_t(?P<time>\d+)$"
    monkeypatch.setattr(sys, "argv", ["plates", "tables=images.csv", pattern, "output=out", "bootstrap.samples=10"])
    importlib.import_module("sartorius.plates").main()
    assert np.allclose(pd.read_csv("out/wells.csv").hours.unique(), range(5))


def test_tables_of_the_real_writer(tmp_path: Path, tiny_competition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts by hand from the annotated cells; the images are named as the competition's unlabelled ones."""
    monkeypatch.chdir(tmp_path)
    truth, folder = Competition(tiny_competition), CellsFolder(tmp_path / "out", ["table"])
    places = (("B2-1", 3, "astro00"), ("B2-2", 3, "astro02"), ("B2-1", 4, "shsy5y02"), ("B3-1", 3, "cort03"))
    names = {f"x[y]_{well}_Vessel-7_2020-11-0{day}_09h00m00s_Ph_1": image_id for well, day, image_id in places}
    for name, image_id in names.items():
        cells = truth.instances(image_id)
        folder.add(Cells(name, cells, np.full(len(cells), 0.5, np.float32), truth.cell_type_names))
    folder.finish(list(names), {"x[y]_B3-2_Vessel-7_2020-11-03_09h00m00s_Ph_1": "cut off"})
    plates.main(wiring.compose("plates", ["tables=out", "well=competition", "output=p", "bootstrap.samples=50"]))
    wells = pd.read_csv("p/wells.csv").set_index(["well", "hours", "measure"])["mean"]
    count = {image_id: len(truth.instances(image_id)) for image_id in names.values()}
    assert wells["B2", 0, "cells"] == wells["B2", 0, "cells_astro"] == (count["astro00"] + count["astro02"]) / 2
    assert wells["B2", 24, "cells_shsy5y"] == count["shsy5y02"] and wells["B3", 0, "cells"] == count["cort03"] == 0
    covered = [truth.instances(image_id).foreground().mean() for image_id in ("astro00", "astro02")]
    assert wells["B2", 0, "confluence"] == pytest.approx(np.mean(covered), abs=1e-6)  # tables have six decimals
    text = Page(Path("p/plates.html")).text
    assert "left out as bad, 1 images: x[y]_B3-2_Vessel-7_2020-11-03_09h00m00s_Ph_1 (cut off)" in text


def test_images_of_the_competition_are_named_by_train_csv(run: Write, tmp_path: Path) -> None:
    csv = tmp_path / "train.csv"
    lines = [f"{name},11h30m00s,2020-09-1{day},astros[cereb]_{well}_Vessel-361_Ph_1"
             for name, day, well in (("0a", 1, "G11-1"), ("0b", 3, "G11-1"), ("0c", 1, "H2-1"))]  # fmt: skip
    csv.write_text("\n".join(["id,plate_time,sample_date,sample_id", *lines]) + "\n")
    run([row("0a", 3), row("0b", 5), row("0c", 7)], "well=competition", f"train_csv={csv}", "plots=false")
    cells = pd.read_csv("out/wells.csv").query("measure == 'cells'")
    assert cells[["plate", "well", "hours", "mean"]].to_numpy().tolist() == [
        [361, "G11", 0, 3], [361, "G11", 48, 5], [361, "H2", 0, 7],
    ]  # fmt: skip

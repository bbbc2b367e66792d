"""The page of plates: heat maps, growth curves, doubling times, counts by well and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.files import write_text
from sartorius.reports.document import Document, Section, Table, Value
from sartorius.reports.figures import Plot
from sartorius.reports.plates.drawings import curves, format_of, heat_map, label_of
from sartorius.reports.plates.growth import LEAST
from sartorius.reports.plates.tables import Fields

_NAMED = 5  # images that a note names
_OPEN = 24  # lines of a table that is not folded


@dataclass(frozen=True)
class Plates:
    """The content of a page. wells: of `tables.wells_of`. growth: of `growth.growth_of`.

    unmatched: images without a well. level: of the intervals. size: wells of a plate; None chooses the smallest that
    holds them.
    """

    fields: Fields
    wells: pd.DataFrame
    growth: pd.DataFrame
    unmatched: Sequence[str]
    level: float
    size: int | None = None

    @property
    def names(self) -> list[str]:
        """The plates; "" where names of images have none."""
        return list(dict.fromkeys(self.wells.plate))

    @property
    def shown(self) -> list[str]:
        """The measures that are drawn: counts, of each type where there are several with cells, and confluence."""
        known = [m for m in self.fields.measures if m not in ("mean_area", "cells_per_mm2")]
        types = [m for m in known if m.startswith("cells_") and self.fields.table[m].max() > 0]
        return ["cells", *(types if len(types) > 1 else []), "confluence"]


def write_page(plates: Plates, output: Path, facts: dict[str, str], folder: Path | None) -> int:
    """Write the page, and with `folder` each drawing as PNG; returns the page's bytes. facts: of the page's head."""
    maps, lines, notes = _drawings(plates, folder)
    times = plates.wells.time.nunique()
    table = plates.fields.table
    count, places = (len(table[keys].drop_duplicates()) for keys in (["plate", "well"], ["plate", "well", "field"]))
    tiles = [(str(count), "wells", _counted(plates.names, "plate")),
             (str(int(table.images.sum())), "images", f"{places} fields of view")]  # fmt: skip
    if times:
        span = f"{plates.wells.time.min():g} to {plates.wells.time.max():g} hours"
        tiles.append((str(times), "time points", span))
    growth, wells = [_doubling_times(plates)] if len(plates.growth) else [], [_last(plates)]
    sections = [
        Section("plates", "Plates", maps),
        Section("growth", "Growth", lines, growth, _fold(growth)),
        Section("wells", "Wells", (), wells, _fold(wells)),
    ]
    document = Document(
        title="Plates",
        facts=[facts],
        tiles=tiles,
        notes=[*_notes(plates), *notes],
        sections=[section for section in sections if section.plots or section.tables],
    )
    html = document.html()
    write_text(output, html)
    return len(html.encode())


def _fold(tables: Sequence[Table]) -> str:
    """Return the words that many lines are folded under, "" for few."""
    lines = sum(len(table.rows) for table in tables)
    return f"A line a well, {lines} of them" if lines > _OPEN else ""


def _counted(names: Sequence[str], what: str) -> str:
    return "" if len(names) == 1 and not names[0] else f"{len(names)} {what}{'s' if len(names) > 1 else ''}"


def _notes(plates: Plates) -> list[str]:
    notes = []
    if bad := plates.fields.bad:
        named = [f"{image_id} ({why})" if why else image_id for image_id, why in bad.items()]
        notes.append(f"left out as bad, {len(bad)} images: {_listed(named)}")
    if plates.unmatched:
        notes.append(f"left out for their names, {len(plates.unmatched)} images: {_listed(plates.unmatched)}")
    if len(plates.fields.sizes) > 1:
        sizes = ", ".join(f"{height} x {width}" for height, width in plates.fields.sizes[:_NAMED])
        notes.append(f"images differ in size ({sizes} pixels): compare confluence or cells a mm², not cells an image")
    single = int((plates.wells[plates.wells.measure == "cells"].fields == 1).sum())
    if single:
        notes.append(f"{single} of {int((plates.wells.measure == 'cells').sum())} wells and times have one field of "
                     "view, and so no interval")  # fmt: skip
    return notes


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _drawings(plates: Plates, folder: Path | None) -> tuple[list[Plot], list[Plot], list[str]]:
    """Return heat maps, curves and notes; maps are of `_last_time` of each plate."""
    maps, lines, notes = [], [], []
    for plate in plates.names:
        of_plate = plates.wells[plates.wells.plate == plate]
        shape = format_of(list(of_plate.well.unique()), plates.size)
        if shape is None:
            what = f"a plate of {plates.size}" if plates.size else "a plate of 384 or less, such as A1 to P24"
            notes.append(f"no heat map{f' of plate {plate}' if plate else ''}: its wells are not all on {what}")
        when = "" if of_plate.time.isna().all() else f" at {_last_time(of_plate):g} h"
        chosen = of_plate if not when else of_plate[of_plate.time == _last_time(of_plate)]
        if lacking := of_plate.well.nunique() - chosen.well.nunique():
            of = f" of plate {plate}" if plate else ""
            notes.append(f"{lacking} wells{of} have no image{when}: they are empty in the maps")
        for measure in plates.shown:
            if shape is not None:
                values = _by_well(chosen[chosen.measure == measure], "mean")
                maps += [heat_map(plate, measure, values, shape, when, folder)] if values else []
            if (drawn := curves(plate, measure, of_plate[of_plate.measure == measure], shape, folder)) is not None:
                lines.append(drawn)
        doubling = _by_well(plates.growth[plates.growth.plate == plate], "doubling_hours")
        if shape is not None and len(doubling) > 1:
            maps.append(heat_map(plate, "doubling_hours", doubling, shape, "", folder))
    return maps, lines, notes


def _by_well(rows: pd.DataFrame, column: str) -> dict[str, float]:
    known = rows[rows[column].notna()]
    return dict(zip(known.well.astype(str), known[column].astype(float), strict=True))


def _last_time(wells: pd.DataFrame) -> float:
    """Return the last time at which at least half of the wells have been imaged."""
    counts = wells.drop_duplicates(["well", "time"]).groupby("time").size()
    return float(counts.index[counts >= counts.max() / 2].max())


def _hours(time: float) -> float:
    return int(time) if time == int(time) else float(time)


def _doubling_times(plates: Plates) -> Table:
    several = len(plates.names) > 1
    rows: list[list[Value]] = []
    row: Any
    for row in plates.growth.itertuples(index=False):
        between = "" if row.remark else f"{row.doubling_low:.1f} to {row.doubling_high:.1f}"
        fitted = [row.rate_per_hour, row.r_squared, None if row.remark else row.doubling_hours, between, row.remark]
        rows.append([*([row.plate] if several else []), row.well, row.points, *fitted])
    columns = ["well", "time points", "rate an hour", "R²", "doubling time, h", f"{plates.level:.0%} interval", ""]
    note = (
        "Least squares of ln N = ln N0 + r t over the means of a well's counts; doubling time = ln 2 / r, its interval "
        f"by Student's t. None below {LEAST} time points with cells, and where the interval of r includes 0."
    )
    return Table("Doubling times", [*(["plate"] if several else []), *columns], rows, note, sortable=True)


def _last(plates: Plates) -> Table:
    """Show a line a well at its last time, with the interval of each measure."""
    several, timed = len(plates.names) > 1, bool(plates.wells.time.notna().any())
    measures = [
        m for m in plates.fields.measures if m in plates.shown or plates.wells["mean"][plates.wells.measure == m].any()
    ]
    rows: list[list[Value]] = []
    for (plate, well), group in plates.wells.groupby(["plate", "well"], sort=False):
        last = group[group.time == group.time.max()] if timed else group
        values = last.set_index("measure")
        line: list[Value] = [*([str(plate)] if several else []), str(well)]
        line += [*([_hours(last.time.iloc[0])] if timed else []), int(last.fields.iloc[0])]
        for measure in measures:
            low, high = float(values.low[measure]), float(values.high[measure])
            line += [float(values["mean"][measure]), "" if low != low else f"{low:.3g} to {high:.3g}"]
        rows.append(line)
    columns = [*(["plate"] if several else []), "well", *(["last hour"] if timed else []), "fields"]
    columns += [name for measure in measures for name in (label_of(measure), "interval")]
    note = f"Means over fields of view with {plates.level:.0%} bootstrap intervals, too narrow for few fields."
    return Table("Every well", columns, rows, note, sortable=True)

"""Tables of images joined with their wells: counts and confluence by well and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sartorius.errors import InputError, raise_all
from sartorius.formats.tables import read_table
from sartorius.metrics.bootstrap import bootstrap_interval, bootstrap_intervals
from sartorius.reports.plates.names import Place, position

KEYS = ["plate", "well", "time"]
_FIELD = [*KEYS, "field"]


@dataclass(frozen=True)
class Fields:
    """The fields of view of wells, a row each, and what has been left out.

    table: plate, well, time (hours, NaN without), field, images, and the columns of `measures`. measures: cells,
    cells_<type>, confluence, mean_area (pixels), and cells_per_mm2 where every image's pixel size is known. bad: why,
    by image. sizes: (height, width) that occur.
    """

    table: pd.DataFrame
    measures: Sequence[str]
    bad: Mapping[str, str]
    sizes: Sequence[tuple[int, int]]


def read_images(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read one or more images.csv, as `formats` writes them, into one table.

    A path is the file, its folder, or the folder of a command that wrote it below `tables/`. Raises InputError for a
    missing or unreadable file, missing columns, values out of range, different cell types, an image in two rows.
    """
    if not paths:
        raise InputError("tables=[]: name at least one images.csv, or a folder that holds one")
    tables = {file: _read(file) for file in map(_file, paths)}
    (first, columns), *others = ((file, _types(table)) for file, table in tables.items())
    for file, other in others:
        if set(other) != set(columns):
            raise InputError(
                f"{first} counts {', '.join(columns) or 'no types'}, {file} {', '.join(other) or 'no types'}; give "
                "tables of the same cell types"
            )
    joined = pd.concat([table.assign(file=str(file)) for file, table in tables.items()], ignore_index=True)
    repeated = joined[joined.image.duplicated()]
    raise_all([f"{row.file}: image {row.image} is in two rows; give each image once" for row in repeated.itertuples()])
    return joined


def fields_of(images: pd.DataFrame, places: Mapping[str, Place]) -> Fields:
    """Join images with their places; images without one and bad ones are left out.

    Parts of a field are averaged. Raises InputError where no image is left, and for two images of the same well, time,
    field and part.
    """
    chosen = images[images.image.isin(list(places))]
    is_bad = chosen.status == "bad"
    bad = dict(zip(chosen.image[is_bad], chosen.problem[is_bad].fillna(""), strict=True))
    chosen = chosen[~is_bad].copy()
    if chosen.empty:
        raise InputError(f"all {len(bad)} images of wells are bad ({next(iter(bad.values()))}); predict them again")
    for key in (*_FIELD, "part"):
        chosen[key] = [vars(places[image_id])[key] for image_id in chosen.image]
    chosen["time"] = chosen.time.astype(float)
    _check_unique(chosen)
    measures = ["cells", *_types(chosen), "confluence", "mean_area"]
    if chosen.pixel_size.notna().all():
        chosen["cells_per_mm2"] = chosen.cells / (chosen.height * chosen.width * chosen.pixel_size**2 / 1e6)
        measures.append("cells_per_mm2")
    groups = chosen.groupby(_FIELD, dropna=False)
    table = groups[measures].mean().join(groups.size().rename("images")).reset_index()
    sizes = sorted(set(zip(chosen.height.astype(int), chosen.width.astype(int), strict=True)))
    return Fields(_in_order(table), measures, bad, sizes)


def wells_of(fields: Fields, bootstrap: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row for each plate, well, time and measure: mean over fields, bootstrap interval, fields and images.

    low and high are NaN of fewer than two fields, where there is nothing to draw from. bootstrap: samples, seed, level.
    """
    rows = []
    for key, group in fields.table.groupby(KEYS, dropna=False, sort=False):
        values = group[[*fields.measures]].to_numpy(float).T
        whole = ~np.isnan(values).any(axis=1)
        found = dict(zip(np.flatnonzero(whole).tolist(), bootstrap_intervals(values[whole], **bootstrap), strict=True))
        for k, measure in enumerate(fields.measures):
            known = values[k][~np.isnan(values[k])]  # no mean area without cells
            interval = found.get(k) or bootstrap_interval(known, **bootstrap)
            low, high = (interval.low, interval.high) if len(known) > 1 else (np.nan, np.nan)
            rows.append((*key, measure, interval.mean, low, high, len(group), int(group.images.sum())))
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "mean", "low", "high", "fields", "images"])


def _file(path: str | Path) -> Path:
    path = Path(path)
    files = [path, path / "images.csv", path / "tables" / "images.csv"]
    if (file := next((file for file in files if file.is_file()), None)) is None:
        raise InputError(f"tables={path}: no images.csv; `predict` and `convert` write one with write=[table]")
    return file


def _read(file: Path) -> pd.DataFrame:
    """Read a table; raises InputError naming all rows with values out of range."""
    table = read_table(file)
    if "status" not in table:
        raise InputError(f"{file}: a table of cells; give images.csv, which is written beside it")
    problems = []
    given = ["height", "width", "cells", *_types(table), "confluence"]
    for name in (*given, "pixel_size", "mean_area"):
        numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
        most = 1.0 if name == "confluence" else np.inf
        wanted = (table.status != "bad") & (table[name].notna() | (name in given))
        for k in np.flatnonzero(wanted & ~numbers.between(0, most)):
            problems.append(f"{file} row {k + 2}: {name} {table[name].iloc[k]}, expected a number from 0 to {most:g}")
        table[name] = numbers
    for k in np.flatnonzero(~table.status.isin(["ok", "empty", "bad"]) | table.image.isna()):
        came = f"image {table.image.iloc[k]}, status {table.status.iloc[k]}"
        problems.append(f"{file} row {k + 2}: {came}; expected a name, and ok, empty or bad")
    raise_all(problems or ([] if len(table) else [f"{file}: no rows; expected one for each image"]))
    return table


def _types(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if str(name).startswith("cells_") and name != "cells_per_mm2"]


def _check_unique(chosen: pd.DataFrame) -> None:
    first: dict[tuple[Any, ...], str] = {}
    problems = []
    columns = ["plate", "well", "time", "field", "part"]
    for image_id, *key in chosen[["image", *columns]].itertuples(index=False):
        place = tuple(None if value != value else value for value in key)
        if place in first:
            what = ", ".join(f"{c} {v}" for c, v in zip(columns, place, strict=True) if v not in (None, ""))
            problems.append(f"images {first[place]} and {image_id}: both {what}")
        first.setdefault(place, str(image_id))
    if problems:
        remedy = "tell them apart by a group (?P<field>...), (?P<time>...) or (?P<plate>...) in well="
        raise_all([*problems[:3], f"{len(problems)} such pairs; {remedy}"])


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by plate, row, column, time and field."""
    last = (99, 99)
    order = sorted(
        range(len(table)),
        key=lambda k: (
            table.plate[k],
            position(table.well[k]) or last,
            table.well[k],
            np.nan_to_num(table.time[k]),
            table.field[k],
        ),
    )
    return table.iloc[order].reset_index(drop=True)

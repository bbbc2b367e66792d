"""Predictions without truth: what images hold, as in images.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sartorius.formats.cells import Cells
from sartorius.formats.tables import bad_row, image_row
from sartorius.reports.document import Table, Value
from sartorius.reports.image_cells import Predicted
from sartorius.structures.progress import progress_bar

Row = Mapping[str, Any]  # of images.csv


def count_images(predicted: Predicted, images: Sequence[str], bad: Mapping[str, str], what: str) -> dict[str, Row]:
    """Return the row of images.csv of each image, under a progress bar; bad: those without a prediction, and why."""
    known, rows = set(predicted.images), dict[str, Row]()
    for image_id in progress_bar([*images], what):
        if image_id in known:
            cells, scores = predicted.cells(image_id)
            given = np.full(len(cells), np.nan, np.float32) if scores is None else scores
            kept = cells.areas > 0
            rows[image_id] = image_row(Cells(image_id, cells.select(kept), given[kept], tuple(predicted.type_names)))
        else:
            rows[image_id] = bad_row(image_id, bad.get(image_id, "not predicted"))
    return rows


def types_of(rows: Mapping[str, Row]) -> list[str]:
    """List the cell types of which any image has cells."""
    totals: dict[str, int] = {}
    for row in rows.values():
        for name, count in row.items():
            if name.startswith("cells_"):
                totals[name.removeprefix("cells_")] = totals.get(name.removeprefix("cells_"), 0) + count
    return [name for name, total in totals.items() if total]


def tiles_of(rows: Mapping[str, Row]) -> list[tuple[str, str, str]]:
    """Return the numbers at the top of the page, see `document.Document`."""
    good = [row for row in rows.values() if row["status"] != "bad"]
    types = {name: sum(row[f"cells_{name}"] for row in good) for name in types_of(rows)}
    scores = [row["mean_score"] for row in good if row["mean_score"] is not None]
    marked = {status: sum(row["status"] == status for row in rows.values()) for status in ("empty", "bad")}
    tiles = [
        (str(len(rows)), "images", ", ".join(f"{count} {status}" for status, count in marked.items() if count)),
        (str(sum(row["cells"] for row in good)), "cells", _listed(types) if len(types) > 1 else ""),
    ]
    if good:
        tiles.append((f"{np.mean([row['confluence'] for row in good]):.0%}", "confluence, mean over images", ""))
    if scores:
        tiles.append((f"{np.mean(scores):.2f}", "mean score, mean over images", ""))
    return tiles


def facts_of(row: Row, types: Sequence[str]) -> str:
    """Describe an image in words: counts, confluence and mean score; "" for a bad one."""
    if row["status"] != "ok":
        return "no cells" if row["status"] == "empty" else ""
    counts = {name: row[f"cells_{name}"] for name in types if row[f"cells_{name}"]}
    listed = next(iter(counts)) if len(counts) == 1 else _listed(counts)
    cells = f"{row['cells']} cells" + (f" ({listed})" if len(types) > 1 else "")
    return f"{cells}, confluence {row['confluence']:.0%}, mean score {row['mean_score']:.2f}"


def table_of_counts(views: Sequence[tuple[str, Mapping[str, Row]]]) -> Table:
    """Show a line an image: of each view (name, rows) counts, confluence, mean area and score, and what is wrong."""
    columns, lines = ["image"], dict[str, list[Value]]()
    for name, rows in views:
        types, of = types_of(rows), f", {name}" if len(views) > 1 else ""
        types = types if len(types) > 1 else []
        keys = ["cells", *(f"cells_{kind}" for kind in types), "confluence", "mean_area", "mean_score"]
        labels = ["cells", *types, "confluence", "mean area", "mean score"]
        columns += [f"{label}{of}" for label in [*labels, "status", "problem"]]
        for image_id in {**dict.fromkeys(lines), **rows}:
            row = rows.get(image_id, {})
            before = lines.setdefault(image_id, [None] * (len(columns) - len(keys) - 3))
            status = str(row.get("status", ""))
            before += [*(row.get(key) for key in keys), "" if status == "ok" else status, row.get("problem") or ""]
    note = "Confluence is the share of pixels that cells cover; areas are pixels."
    return Table("Every image", columns, [[image_id, *line] for image_id, line in lines.items()], note, sortable=True)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())

"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sartorius.metrics import report
from sartorius.metrics.functional import THRESHOLDS, precision_per_image
from sartorius.reports.document import Table, Value
from sartorius.reports.image_cells import rows_of
from sartorius.reports.runs import Run, flattened
from sartorius.reports.views import RunView

Bootstrap = Mapping[str, Any]


def summary_of(view: RunView, types: Sequence[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Summarise the view's table as metrics.json does (see `metrics.report.summary`); {} where it lacks the counts."""
    if view.table is None or (rows := rows_of(view.table)) is None:
        return {}
    return report.summary(rows, [str(kind) for kind in view.table.cell_type], types, **bootstrap)


def by_type(view: RunView, types: Sequence[str], numbers: Mapping[str, Any]) -> Table:
    """Show a line a cell type and one for all: images, cells, predicted, found, missed, false alarms, mAP, interval."""
    assert view.table is not None
    lines: list[list[Value]] = []
    for kind in [*types, "all"]:
        part = view.table if kind == "all" else view.table[view.table.cell_type == kind]
        counts = np.array([view.counts(image_id) for image_id in part.image_id]).reshape(-1, 3)
        hits, missed, false = counts.sum(axis=0).tolist()
        suffix = "" if kind == "all" else f"_{kind}"
        value, limits = numbers.get(f"competition_map{suffix}"), numbers.get(f"competition_map_interval{suffix}")
        lines.append([kind, len(part), hits + missed, hits + false, hits, missed, false, value, between(limits)])
    columns = ["cell type", "images", "cells", "predicted", "found", "missed", "false alarms", "mAP", "interval"]
    note = "Found, missed and false alarms at an IoU above 0.50; the interval is a bootstrap over images."
    return Table("Score by cell type", columns, lines, note)


def by_threshold(view: RunView, types: Sequence[str]) -> Table:
    """Show a line a cell type and one for all, a column a threshold: TP / (TP + FP + FN), mean over images."""
    precision = threshold_lines(view, types)
    lines: list[list[Value]] = [[kind, *values, float(np.mean(values))] for kind, values in precision.items()]
    shares = [[None, *values, None] for values in precision.values()]
    columns = ["cell type", *(f"{threshold:.2f}" for threshold in THRESHOLDS), "mAP"]
    note = "TP / (TP + FP + FN) at each IoU threshold, mean over images; their mean is the mAP."
    return Table("Score by threshold", columns, lines, note, shares=shares)


def threshold_lines(view: RunView, types: Sequence[str]) -> dict[str, list[float]]:
    """Return the precision at each threshold by cell type, then "all"; types without images are left out."""
    if view.table is None or (rows := rows_of(view.table)) is None or not len(rows):
        return {}
    precision, kinds = precision_per_image(rows), view.table.cell_type.to_numpy(str)
    chosen = {kind: kinds == kind for kind in types} | {"all": np.ones(len(rows), bool)}
    return {kind: precision[mask].mean(axis=0).tolist() for kind, mask in chosen.items() if mask.any()}


def confusion(view: RunView, types: Sequence[str]) -> Table | None:
    """Count matched cells by annotated and predicted type, with missed cells and false alarms; None without types.

    A false alarm stands in the line of nothing annotated, a missed cell in the column of nothing predicted.
    """
    cells = [image for image in view.compared.values() if image.types is not None and image.cell_type]
    if not cells:
        return None
    names = list(dict.fromkeys([*types, *sorted({name for image in cells for name in image.types or ()})]))
    grid = np.zeros((len(types) + 1, len(names) + 1), np.int64)
    line, column = ({name: k for k, name in enumerate(of)} for of in (types, names))
    for image in cells:
        predicted = np.array([column[name] for name in image.types or ()], np.int64)
        np.add.at(grid, (np.where(image.hit, line[image.cell_type], -1), predicted), 1)
        grid[line[image.cell_type], -1] += np.count_nonzero(~image.matched)
    kinds = [*types, "nothing (false alarms)"]
    lines: list[list[Value]] = [[kind, *values] for kind, values in zip(kinds, grid.tolist(), strict=True)]
    lines[-1][-1] = None  # what is neither annotated nor predicted
    shares = [[None, *values] for values in (grid / grid.sum(axis=1, keepdims=True).clip(1)).tolist()]
    columns = ["annotated", *(f"as {name}" for name in names), "missed"]
    note = "Cells matched at an IoU above 0.50, a line an annotated type; shades are shares of a line."
    return Table("Confusion of cell types", columns, lines, note, shares=shares)


def per_image(views: Sequence[RunView]) -> Table | None:
    """Show a line an image, worst first: score of each view, their difference where there are two, and counts.

    Of a single view also F1, PQ and AJI, where its table has them.
    """
    tables = [view.table for view in views if view.table is not None]
    if not tables:
        return None
    kinds: dict[str, str] = {}
    for table in tables:
        kinds |= zip(map(str, table.image_id), map(str, table.get("cell_type", table.image_id * 0)), strict=True)
    scores = [view.scores for view in views]
    pair = len(views) == 2
    more = ["f1", "pq", "aji"] if len(views) == 1 and {"f1", "pq", "aji"} <= {*tables[0]} else []
    others = dict(zip(tables[0].image_id, tables[0][more].to_numpy().tolist(), strict=True))
    lines: list[list[Value]] = []
    for image_id, kind in kinds.items():
        values = [of.get(image_id) for of in scores]
        line: list[Value] = [image_id, kind, *values]
        if pair:
            line.append(None if None in values else values[0] - values[1])  # type: ignore[operator]
        for view, value in zip(views, values, strict=True):
            line += [None] * 3 if value is None else view.counts(image_id)
        lines.append(line + others[image_id] if more else line)
    lines.sort(key=lambda line: (np.mean([v for v in line[2 : 2 + len(views)] if v is not None]), line[0]))
    columns = ["image_id", "cell type", *(["score"] if len(views) == 1 else [view.name for view in views])]
    columns += ["difference"] if pair else []
    for view in views:
        of = "" if len(views) == 1 else f", {view.name}"
        columns += [f"found{of}", f"missed{of}", f"false{of}"]
    columns += [name.upper() for name in more]
    note = "Average precision of each image, and counts at an IoU above 0.50."
    return Table("Every image", columns, lines, note, sortable=True)


def comparison(views: Sequence[RunView], types: Sequence[str], bootstrap: Bootstrap, folds: bool) -> Table:
    """Show a line a run: images, mAP, interval, by type; unless they are folds, the paired difference to the first."""
    lines: list[list[Value]] = []
    for k, view in enumerate(views):
        numbers = summary_of(view, types, bootstrap)
        line: list[Value] = [view.name, 0 if view.table is None else len(view.table)]
        line += [numbers.get("competition_map"), between(numbers.get("competition_map_interval"))]
        line += [numbers.get(f"competition_map_{kind}") for kind in types]
        lines.append(line + ([] if folds else _difference(views[0], view, bootstrap) if k else ["", "", None]))
    columns = ["run", "images", "mAP", "interval", *types]
    if folds:
        return Table("The folds", columns, lines, "The folds share no image, so there is no paired difference.")
    level = f"{bootstrap['level']:.0%}"
    note = f"Differences are to the first run on the images of both, with a paired bootstrap interval ({level})."
    return Table("The runs", [*columns, "difference", "its interval", "shared images"], lines, note)


def _difference(first: RunView, view: RunView, bootstrap: Bootstrap) -> list[Value]:
    if first.table is None or view.table is None or not set(first.scores) & set(view.scores):
        return ["no image in common", "", 0]
    difference, shared = report.compare(view.table, first.table, **bootstrap)
    return [f"{difference.mean:+.4f}", between(report.limits(difference), signed=True), shared]


def between(limits: Sequence[float] | None, signed: bool = False) -> str:
    """Format an interval; "" for none."""
    if limits is None:
        return ""
    low, high = limits
    return f"{low:+.4f} to {high:+.4f}" if signed else f"{low:.3f} to {high:.3f}"


def timings(runs: Sequence[Run]) -> Table | None:
    """Show time and load, a column a run: totals of metrics.json, seconds an epoch, medians of logged numbers."""
    lines: dict[str, list[Value]] = {}
    for k, run in enumerate(runs):
        for name, value in _times(run).items():
            lines.setdefault(name, [None] * len(runs))[k] = value
    if not lines:
        return None
    rows = [[name, *values] for name, values in lines.items()]
    return Table("Time and load", ["", *(run.name for run in runs)], rows)


_TOTALS = {
    "epochs": "epochs",
    "epoch": "epoch of the best checkpoint, from 0",
    "seconds": "seconds of training",
    "cpu_seconds": "seconds of CPU time, all threads",
}
_LOGGED = ("per_second", "/s", "seconds", "throughput", "memory", "waiting", "_gb", "_mb")


def _times(run: Run) -> dict[str, Value]:
    numbers = run.numbers
    times: dict[str, Value] = {
        t: numbers[key] for key, t in _TOTALS.items() if isinstance(numbers.get(key), int | float)
    }
    if numbers.get("epochs") and isinstance(numbers.get("seconds"), int | float):
        times["seconds an epoch"] = round(numbers["seconds"] / numbers["epochs"], 2)
    if {"step", "train/loss"} <= {*run.curves}:
        times["steps, as far as logged"] = int(run.curves.dropna(subset="train/loss").step.max()) + 1
    for name in run.curves:
        if any(part in str(name).lower() for part in _LOGGED) and not str(name).startswith(("val/map", "lr")):
            times[f"{name}, median"] = float(f"{run.curves[name].median():.4g}")
    return times


def pixel_scores(runs: Sequence[Run]) -> Table | None:
    """Show Dice and IoU of covered pixels by run, mean over images; None where no run has them (no maps)."""
    wanted = {"iou": "IoU", "dice": "Dice", "accuracy": "pixel accuracy", "bce": "cross-entropy"}
    having = [run for run in runs if {*wanted} & {*run.pixels}]
    if not having:
        return None
    lines = [[label, *(float(run.pixels[key].mean()) if key in run.pixels else None for run in having)]
             for key, label in wanted.items()]  # fmt: skip
    return Table("Covered pixels", ["mean over images", *(run.name for run in having)], lines,
                 "Cell against background, before cells are told apart.")  # fmt: skip


def settings(runs: Sequence[Run]) -> Table | None:
    """List the settings in which several runs differ, each run's folder left out of paths; None without any."""
    flat = []
    for run in runs:
        folder = str(run.get("run_dir") or run.folder)
        flat.append({key: value.replace(folder, "<run>") for key, value in flattened(run.config)} if run.config else {})
    keys = [key for key in dict.fromkeys(key for values in flat for key in values) if key != "run_dir"]
    keys = [key for key in keys if len({values.get(key, "") for values in flat}) > 1]
    lines = [[key, *(values.get(key, "") for values in flat)] for key in keys]
    return Table("Settings that differ", ["setting", *(run.name for run in runs)], lines) if lines else None

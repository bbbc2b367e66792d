"""What a report looks at: each run by itself, or the folds of one experiment together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sartorius.progress import watched
from sartorius.reports.judging import PictureCells, Pictures, Predicted, judge_all, rows_of, table_of
from sartorius.reports.runs import Run

_SAME = 1e-6  # scores that differ by less are the same: files keep 17 digits


@dataclass(frozen=True)
class Entry:
    """A run with what it predicted and the pictures that this is of; None where they cannot be had.

    labelled: the pictures come with annotated cells. notes: what cannot be had, and why.
    """

    run: Run
    predicted: Predicted | None
    pictures: Pictures | None
    labelled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """Pictures scored together. judged: by id; empty where cells or truth cannot be had. table: a line a picture.

    sources: the entry of each picture that can be shown.
    """

    name: str
    table: pd.DataFrame | None
    judged: Mapping[str, PictureCells]
    sources: Mapping[str, Entry]

    @property
    def scores(self) -> Mapping[str, float]:
        """Average precision by picture; {} without a table."""
        return {} if self.table is None else dict(zip(self.table.picture, self.table.average_precision, strict=True))

    def of_type(self, cell_type: str) -> list[PictureCells]:
        """The judged pictures of a cell type."""
        return [cells for cells in self.judged.values() if cells.cell_type == cell_type]


def view_of(entry: Entry) -> tuple[View, list[str]]:
    """The view of one run, and notes on it: what is not scored, and a score that is not that of metrics.json."""
    run, notes = entry.run, [*entry.run.notes, *entry.notes]
    if entry.predicted is None or entry.pictures is None:
        return View(run.name, run.table, {}, {}), notes
    known = set(entry.pictures.ids)
    shown = [picture for picture in entry.predicted.pictures if picture in known]
    if left := len(entry.predicted.pictures) - len(shown):
        notes.append(f"{left} of {len(entry.predicted.pictures)} predicted pictures are not among those of the data")
    sources = dict.fromkeys(shown, entry)
    if not entry.labelled:
        return View(run.name, run.table, {}, sources), notes
    judged = judge_all(entry.predicted, entry.pictures, watched(shown, run.name))
    table = table_of(judged) if judged else run.table
    if table is not None:
        notes += _deviation(run, table)
    return View(run.name, table, judged, sources), notes


def _deviation(run: Run, table: pd.DataFrame) -> list[str]:
    written = run.numbers.get("competition_map")
    now = float(table.average_precision.mean())
    if written is None or len(table) == 0 or abs(now - written) < _SAME:
        return []
    return [
        f"metrics.json says mAP {written:.6f}, the detections give {now:.6f}, which this page shows: pictures, truth "
        "or thresholds have changed since"
    ]


def are_folds(views: Sequence[View]) -> bool:
    """Whether several runs were scored on pictures none of which they share: the folds of one experiment."""
    pictures = [picture for view in views for picture in (*view.scores, *(view.sources if not view.scores else ()))]
    return len(views) > 1 and len(pictures) == len(set(pictures)) and all(view.table is not None for view in views)


def pooled(views: Sequence[View]) -> View:
    """The folds as one view: every picture scored by the run that did not train on it."""
    tables = [view.table for view in views if view.table is not None]
    judged = {picture: cells for view in views for picture, cells in view.judged.items()}
    sources = {picture: entry for view in views for picture, entry in view.sources.items()}
    table = pd.concat(tables, ignore_index=True).sort_values("picture", ignore_index=True)
    return View(f"{len(views)} folds together", table, dict(sorted(judged.items())), dict(sorted(sources.items())))


def type_names(views: Sequence[View]) -> list[str]:
    """The annotated cell types that occur, in order of first appearance of their names sorted."""
    return sorted({str(name) for view in views if view.table is not None and "cell_type" in view.table
                   for name in view.table.cell_type.dropna() if str(name)})  # fmt: skip


def counts(view: View) -> Callable[[str], tuple[int, int, int]]:
    """A function from a picture to (found, missed, false alarms) at an IoU above 0.50, from the view's table."""
    rows = None if view.table is None else rows_of(view.table)
    if view.table is None or rows is None:
        return lambda _: (0, 0, 0)
    found = {
        picture: (hit, cells - hit, predictions - hit)
        for picture, (hit, predictions, cells) in zip(view.table.picture, rows[:, [1, -2, -1]].tolist(), strict=True)
    }
    return lambda picture: found.get(picture, (0, 0, 0))

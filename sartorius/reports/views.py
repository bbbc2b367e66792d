"""The units of a report: each run by itself, or the folds of one experiment together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from sartorius.reports.image_cells import ImageCells, Images, Predicted, compare_images, rows_of, table_of
from sartorius.reports.runs import Run
from sartorius.reports.unscored import Row, count_images, types_of
from sartorius.structures.progress import progress_bar

_SAME = 1e-6  # scores that differ by less are the same: files keep 17 digits


@dataclass(frozen=True)
class Entry:
    """A run with its predicted cells and their images; None where they are not available.

    labelled: the images come with annotated cells. notes: what is not available, and why. bad: images that were not
    predicted or cannot be shown, and why.
    """

    run: Run
    predicted: Predicted | None
    images: Images | None
    labelled: bool
    notes: tuple[str, ...] = ()
    bad: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunView:
    """Images scored together. compared: by id; empty without cells or truth. table: a line an image.

    sources: the entry of each image that can be shown. counted: rows of images.csv by image, where there is no truth.
    """

    name: str
    table: pd.DataFrame | None
    compared: Mapping[str, ImageCells]
    sources: Mapping[str, Entry]
    counted: Mapping[str, Row] = field(default_factory=dict)

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """Average precision by image; {} without a table."""
        return {} if self.table is None else dict(zip(self.table.image_id, self.table.average_precision, strict=True))

    @cached_property
    def types(self) -> list[str]:
        """The cell types that images without truth have cells of."""
        return types_of(self.counted)

    @cached_property
    def _counts(self) -> Mapping[str, tuple[int, int, int]]:
        if self.table is None or (rows := rows_of(self.table)) is None:
            return {}
        triples = [(hit, cells - hit, predictions - hit) for hit, predictions, cells in rows[:, [1, -2, -1]].tolist()]
        return dict(zip(self.table.image_id, triples, strict=True))

    def counts(self, image_id: str) -> tuple[int, int, int]:
        """(found, missed, false alarms) at an IoU above 0.50, from the table; zeros where it lacks the image."""
        return self._counts.get(image_id, (0, 0, 0))

    def of_type(self, cell_type: str) -> list[ImageCells]:
        """The compared images of a cell type."""
        return [cells for cells in self.compared.values() if cells.cell_type == cell_type]


def view_of(entry: Entry) -> tuple[RunView, list[str]]:
    """Return the view of one run, and notes: what is not scored, and a score that differs from metrics.json."""
    run, notes = entry.run, [*entry.run.notes, *entry.notes]
    if entry.predicted is None or entry.images is None:
        return RunView(run.name, run.table, {}, {}), notes
    known = set(entry.images.ids)
    shown = [image_id for image_id in entry.predicted.images if image_id in known]
    if left := len(entry.predicted.images) - len(shown):
        notes.append(f"{left} of {len(entry.predicted.images)} predicted images are not among those of the data")
    if not entry.labelled:
        every = sorted({*known, *entry.bad, *entry.predicted.images})
        counted = count_images(entry.predicted, every, entry.bad, run.name)
        return RunView(run.name, run.table, {}, dict.fromkeys(every, entry), counted), notes
    sources = dict.fromkeys(shown, entry)
    compared = compare_images(entry.predicted, entry.images, progress_bar(shown, run.name))
    table = table_of(compared) if compared else run.table
    if table is not None:
        notes += _deviation(run, table)
    return RunView(run.name, table, compared, sources), notes


def _deviation(run: Run, table: pd.DataFrame) -> list[str]:
    written = run.numbers.get("competition_map")
    now = float(table.average_precision.mean())
    if written is None or len(table) == 0 or abs(now - written) < _SAME:
        return []
    return [
        f"metrics.json holds mAP {written:.6f}, the detections give {now:.6f}, which this page shows: images, truth "
        "or thresholds have changed since"
    ]


def are_folds(views: Sequence[RunView]) -> bool:
    """Return whether several runs share no scored image: they are the folds of one experiment."""
    images = [image_id for view in views for image_id in (*view.scores, *(view.sources if not view.scores else ()))]
    return len(views) > 1 and len(images) == len(set(images)) and all(view.table is not None for view in views)


def pooled(views: Sequence[RunView]) -> RunView:
    """Join folds into one view: every image is scored by the run that did not train on it."""
    tables = [view.table for view in views if view.table is not None]
    compared = {image_id: cells for view in views for image_id, cells in view.compared.items()}
    sources = {image_id: entry for view in views for image_id, entry in view.sources.items()}
    table = pd.concat(tables, ignore_index=True).sort_values("image_id", ignore_index=True)
    return RunView(f"{len(views)} folds together", table, dict(sorted(compared.items())), dict(sorted(sources.items())))


def type_names(views: Sequence[RunView]) -> list[str]:
    """Return the sorted names of the annotated cell types that occur."""
    return sorted({str(name) for view in views if view.table is not None and "cell_type" in view.table
                   for name in view.table.cell_type.dropna() if str(name)})  # fmt: skip

"""The runs that `evaluate` scores: folders of detections, a csv in the submission format, a classical baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError, collected, raise_all
from sartorius.files import write_csv, write_json
from sartorius.formats.submission import check_rows, read_rows
from sartorius.metrics import report
from sartorius.metrics.functional import ROW_LENGTH, Cells, Intersections
from sartorius.metrics.instance_scores import OVERLAP_LENGTH, overlap_row
from sartorius.metrics.rle_readings import reading_hints
from sartorius.running.saved_cells import SavedCells
from sartorius.structures import rle
from sartorius.structures.instances import Instances
from sartorius.structures.progress import progress_bar
from sartorius.structures.rle import Runs

if TYPE_CHECKING:
    from sartorius.reports.explanation import Explanation


@dataclass(frozen=True)
class ScoredRun:
    """A run to score: ids of images and the cells predicted for each, from its id and the runs of its annotated cells.

    average_precision: COCO's of boxes and masks, over the images whose cells were asked for, of runs of detections.
    explain: why an image scores as it does, of those too. hints: sentences on what is hardly meant.
    """

    images: Sequence[str]
    cells: Callable[[str, Runs], Cells]
    average_precision: Callable[[], dict[str, float | None]] | None = None
    explain: Callable[[str], Explanation] | None = None
    hints: Callable[[], list[str]] = list


@dataclass(frozen=True)
class RunScores:
    """Numbers of metrics.json, and the table of per_image.csv."""

    numbers: dict[str, Any]
    table: pd.DataFrame


def score(truth: Competition, run: ScoredRun, bootstrap: Mapping[str, Any]) -> RunScores:
    """Score a run's images against the labelled ones; `bootstrap` is samples, seed and level of the intervals.

    Raises InputError where predictions cannot be read, or are of another size than their image.
    """
    rows, overlaps = np.zeros((len(run.images), ROW_LENGTH), np.int64), np.zeros((len(run.images), OVERLAP_LENGTH))
    problems: list[str] = []
    left = 0
    for index, image_id in enumerate(progress_bar(run.images, "scoring")):
        with collected(problems):
            annotated = truth.runs(image_id)
            cells = run.cells(image_id, annotated)
            try:
                shared = Intersections.of(cells, annotated, truth.ignored(image_id))
            except ValueError as error:
                raise InputError(f"image {image_id}: {error}; the predictions are of another image") from error
            rows[index], overlaps[index] = shared.row(index), overlap_row(index, shared)
            left += shared.left_out
    raise_all(problems)
    types = [truth.record(image_id).cell_type for image_id in run.images]
    numbers = report.summary(rows, types, truth.cell_type_names, overlaps, **bootstrap)
    if run.average_precision is not None and len(rows):
        numbers |= run.average_precision()
    if left:
        numbers["predictions_left_out"] = left
        print(f"{left} predictions lie mostly where nobody has labelled: neither right nor wrong, and not counted")
    return RunScores(numbers, report.per_image_table(rows, run.images, types, overlaps))


def from_predictions(path: str | Path, truth: Competition, images: Sequence[str], only_predicted: bool) -> ScoredRun:
    """Read a csv in the submission format. Images that it does not name have no predictions, or are left out.

    Raises InputError for masks that break the format or overlap (naming the rows), and ids that are not labelled.
    """
    rows = read_rows(path)
    sizes = {record.id: (record.height, record.width) for record in truth.images.values()}
    problems = [problem for problem in check_rows(rows, sizes) if problem.rule != "missing id"]
    raise_all([f"{path}: {problem}" for problem in problems])
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row.image_id, []).extend([row.text] if row.text else [])
    scored = [image_id for image_id in images if not only_predicted or image_id in texts]
    named = [image_id for image_id in scored if texts.get(image_id)]

    def cells(image_id: str) -> Runs:
        return rle.parse(texts.get(image_id, []), *sizes[image_id])

    hints = partial(reading_hints, path, named, cells, truth.runs)
    return ScoredRun(scored, lambda image_id, _: cells(image_id), hints=hints)


def from_detections(saved: SavedCells, truth: Competition, images: Sequence[str]) -> ScoredRun:
    """Score the detections of the folders' images among `images`, turned into cells by their folders."""
    from sartorius.metrics.box_ap import BoxAP
    from sartorius.metrics.mask_ap import MaskAP

    boxes, masks = BoxAP(truth.cell_type_names), MaskAP(truth.cell_type_names)
    positions = {name: k for k, name in enumerate(truth.cell_type_names)}
    scored = [image_id for image_id in images if image_id in saved.folder_of]
    place = {image_id: k for k, image_id in enumerate(scored)}

    def cells(image_id: str, annotated: Runs) -> Cells:
        detections = saved.detections(image_id)
        # A type that the data lack counts as one without cells: its boxes are never right.
        types = np.array([positions.get(name, len(positions)) for name in detections.cell_type_names], dtype=np.int64)
        known = types[detections.cell_types] < len(positions)
        ignored = truth.ignored(image_id)
        real = Instances.from_runs(
            annotated, np.array([positions[name] for name in truth.record(image_id).types], np.int64)
        )
        boxes.update(
            place[image_id], detections.boxes[known], detections.scores[known],
            types[detections.cell_types][known], real.boxes, real.cell_types, ignored,
        )  # fmt: skip
        final = saved.cells(detections)
        runs, kinds = final.instances.to_runs(), types[final.cell_types]
        masks.update(place[image_id], runs, final.scores, kinds, annotated, real.cell_types, ignored)
        return runs

    return ScoredRun(
        scored, cells, lambda: {**boxes.compute(), **masks.compute()},
        lambda image_id: saved.explain(image_id, truth.runs(image_id)),
    )  # fmt: skip


def from_baseline(baseline: Callable[[Any], Any], truth: Competition, images: Sequence[str]) -> ScoredRun:
    """Score a function from a grey image to a label map."""
    return ScoredRun(images, lambda image_id, _: baseline(truth.image(image_id)))


def write_scores(
    output: Path, scores: Mapping[str, RunScores], labelled: int, against: str | None, bootstrap: Mapping[str, Any]
) -> dict[str, Any]:
    """Print how far the first run is above the others, and write metrics.json, per_image.csv and per_image_<other>.csv.

    labelled: images asked for. against: a run's folder or per_image.csv. Returns the numbers of metrics.json.
    """
    (_, first), *others = scores.items()
    first.numbers["labelled_images"] = labelled
    print(f"scored {len(first.table)} of {labelled} labelled images")
    for name, other in others:
        difference = report.print_difference(name, first.table, other.table, bootstrap)
        first.numbers["baseline"] = {"name": name, **other.numbers, "difference": difference}
        write_csv(output / f"per_image_{name}.csv", other.table)
    if against is not None:
        difference = report.print_difference(against, first.table, report.read_per_image(against), bootstrap)
        first.numbers["against"] = {"file": against, **difference}
    write_json(output / "metrics.json", first.numbers)
    write_csv(output / "per_image.csv", first.table)
    for earlier in set(output.glob("per_image_*.csv")) - {output / f"per_image_{name}.csv" for name, _ in others}:
        earlier.unlink()  # of another call with this output
    print(f"report in {output}")
    return first.numbers


def print_explanation(explanation: Explanation) -> None:
    """Print the detections that each step drops, and a line for each missed cell."""
    missed = explanation.missed
    print(f"{explanation.image_id}: {explanation.steps}; {len(missed)} of {explanation.cells} cells missed")
    for cell in missed:
        print(f"  cell {cell.cell} at ({cell.x:.0f}, {cell.y:.0f}), {cell.area} px: {cell.reason}")

"""The cells of each image compared with the truth: the input of a report's plots and tables.

Images are compared one at a time and only counts and lists of numbers are kept, so that 600 images need no more memory
than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from sartorius.errors import InputError
from sartorius.metrics import report
from sartorius.metrics.functional import ROW_LENGTH, CellMatches, Intersections, matches_of
from sartorius.metrics.instance_scores import OVERLAP_LENGTH, overlap_row
from sartorius.metrics.unlabelled import left_out
from sartorius.reports.explanation import Explanation
from sartorius.structures.arrays import Bools, Floats, GreyImage, Ints, Scores
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs


class Images(Protocol):
    """A source of images and annotated cells, such as `data.competition.Competition`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids."""

    def image(self, image_id: str) -> GreyImage:
        """uint8 [H, W]."""

    def instances(self, image_id: str) -> Instances:
        """The annotated cells."""

    def ignored(self, image_id: str) -> Bools | None:
        """The pixels that nobody has labelled, bool [H, W]; None for none."""

    def cell_type(self, image_id: str) -> str:
        """The image's cell type, "" where it is not known."""


@dataclass(frozen=True)
class Predicted:
    """The final cells of a run; `cells(image_id)` returns them and their scores, float32 [N] or None.

    images: ids. type_names: names of the cell types; () where the cells have no types. explain: explains an image
    by its id and the runs of its annotated cells; None without detections.
    """

    images: Sequence[str]
    cells: Callable[[str], tuple[Instances, Scores | None]]
    type_names: Sequence[str] = ()
    explain: Callable[[str, Runs], Explanation] | None = None


@dataclass(frozen=True)
class ImageCells:
    """N predicted and M annotated cells of one image as numbers.

    cell_type: of the image. types: name of each predicted cell's type, [N]; None where they have none. scores: float
    [N], NaN without. areas, true_areas: pixels, int64 [N] and [M]. counted: which of all predicted cells are these N;
    the others lie where nobody has labelled.
    matches: predicted with annotated cells. row: int64 [13]. overlap: float64 [6], see `metrics.instance_scores`.
    """

    image_id: str
    cell_type: str
    types: tuple[str, ...] | None
    scores: Floats
    areas: Ints
    true_areas: Ints
    matches: CellMatches
    row: Ints
    overlap: Floats
    counted: Bools

    @property
    def hit(self) -> Bools:
        """bool [N]: predicted cells that are matched with an annotated one."""
        return self.matches.cell >= 0

    def split(self, cells: Instances, scores: Scores | None) -> list[tuple[Instances, Scores | None]]:
        """Split all predicted cells and their scores into the N that are counted, and the others."""
        return [(cells.select(of), None if scores is None else scores[of]) for of in (self.counted, ~self.counted)]

    @property
    def matched(self) -> Bools:
        """bool [M]: annotated cells that are matched."""
        return self.matches.prediction >= 0


def compare_image(image_id: str, predicted: Predicted, truth: Images, index: int) -> ImageCells:
    """Compare the predicted cells of an image with the truth. Raises InputError where their image sizes differ."""
    cells, scores = predicted.cells(image_id)
    annotated, ignored = truth.instances(image_id), truth.ignored(image_id)
    counted = np.ones(len(cells), bool)
    try:
        shared = Intersections.of(cells, annotated, ignored)
        if shared.left_out:
            counted = ~left_out(cells.to_runs(), ignored)
            cells, scores = cells.select(counted), None if scores is None else scores[counted]
            shared = Intersections.of(cells, annotated)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"image {image_id}: {error}; the predictions are of another image") from error
    names = predicted.type_names
    types = tuple(names[k] for k in cells.cell_types.tolist()) if names else None
    values = np.full(len(cells), np.nan) if scores is None else np.asarray(scores, np.float64)
    return ImageCells(
        image_id, truth.cell_type(image_id), types, values, cells.areas, annotated.areas,
        matches_of(shared), shared.row(index), overlap_row(index, shared), counted,
    )  # fmt: skip


def compare_images(predicted: Predicted, truth: Images, images: Iterable[str]) -> dict[str, ImageCells]:
    """Apply `compare_image` to each image, in their order."""
    return {image_id: compare_image(image_id, predicted, truth, k) for k, image_id in enumerate(images)}


def table_of(compared: Mapping[str, ImageCells]) -> pd.DataFrame:
    """Return the table of per_image.csv for these images (see `metrics.report.per_image_table`)."""
    cells = list(compared.values())
    rows = np.array([image.row for image in cells], np.int64).reshape(-1, ROW_LENGTH)
    overlaps = np.array([image.overlap for image in cells]).reshape(-1, OVERLAP_LENGTH)
    names, kinds = [image.image_id for image in cells], [image.cell_type for image in cells]
    return report.per_image_table(rows, names, kinds, overlaps)


def rows_of(table: pd.DataFrame) -> Ints | None:
    """Return int64 [P, 13] from a per-image table (see `metrics.functional`); None where it lacks the counts."""
    wanted = [*report.HITS, "predictions", "cells"]
    if not {*wanted} <= {*table}:
        return None
    return np.column_stack((np.arange(len(table)), table[wanted].to_numpy(np.int64)))

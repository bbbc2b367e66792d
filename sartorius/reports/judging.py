"""The cells of each picture beside the truth: what plots and tables of a report are made of.

A run's cells are judged one picture at a time and only counts and lists of numbers are kept, so that 600 pictures need
no more memory than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.instances import Instances
from sartorius.metrics import report
from sartorius.metrics.functional import ROW_LENGTH, Floats, Ints, Judged, judge, picture_row

Scores = NDArray[np.float32]


class Pictures(Protocol):
    """Where pictures and annotated cells come from; see `data.pictures.Source`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids."""

    def image(self, picture: str) -> NDArray[np.uint8]:
        """uint8 [H, W]."""

    def instances(self, picture: str) -> Instances:
        """The annotated cells."""

    def cell_type(self, picture: str) -> str:
        """The picture's cell type, "" where it is not known."""


@dataclass(frozen=True)
class Predicted:
    """The final cells of a run; `cells(picture)` gives them, and their scores, float32 [N] or None.

    pictures: ids. type_names: what cell types count in; () where the cells have no types.
    """

    pictures: Sequence[str]
    cells: Callable[[str], tuple[Instances, Scores | None]]
    type_names: Sequence[str] = ()


@dataclass(frozen=True)
class PictureCells:
    """N predicted and M annotated cells of one picture as numbers.

    cell_type: of the picture. types: name of each predicted cell's type, [N]; None where they have none. scores: float
    [N], NaN without. areas, true_areas: pixels, int64 [N] and [M]. judged: who is matched with whom. row: int64 [13].
    """

    picture: str
    cell_type: str
    types: tuple[str, ...] | None
    scores: Floats
    areas: Ints
    true_areas: Ints
    judged: Judged
    row: Ints

    @property
    def hit(self) -> NDArray[np.bool_]:
        """bool [N]: predicted cells that are matched with an annotated one."""
        return self.judged.cell >= 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """bool [M]: annotated cells that are matched."""
        return self.judged.prediction >= 0


def judge_picture(picture: str, predicted: Predicted, truth: Pictures, index: int = 0) -> PictureCells:
    """The picture's cells beside the truth. Raises InputError where both are of different sizes."""
    cells, scores = predicted.cells(picture)
    real = truth.instances(picture)
    found, annotated = cells.to_runs(), real.to_runs()
    try:
        row, judged = picture_row(index, found, annotated), judge(found, annotated)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"picture {picture}: {error}; the predictions are of another picture") from error
    names = predicted.type_names
    return PictureCells(
        picture,
        truth.cell_type(picture),
        tuple(names[k] for k in cells.cell_types.tolist()) if names else None,
        np.full(len(cells), np.nan) if scores is None else np.asarray(scores, np.float64),
        cells.areas,
        real.areas,
        judged,
        row,
    )


def judge_all(predicted: Predicted, truth: Pictures, pictures: Iterable[str]) -> dict[str, PictureCells]:
    """`judge_picture` of each of the pictures, in their order."""
    return {picture: judge_picture(picture, predicted, truth, k) for k, picture in enumerate(pictures)}


def table_of(judged: Mapping[str, PictureCells]) -> pd.DataFrame:
    """What per_picture.csv of these pictures would hold (see `metrics.report.per_picture_table`)."""
    cells = list(judged.values())
    rows = np.array([one.row for one in cells], np.int64).reshape(-1, ROW_LENGTH)
    return report.per_picture_table(rows, [one.picture for one in cells], [one.cell_type for one in cells])


def rows_of(table: pd.DataFrame) -> Ints | None:
    """int64 [P, 13] of a per-picture table (see `metrics.functional`); None where it lacks the counts."""
    wanted = [*report.HITS, "predictions", "cells"]
    if not {*wanted} <= {*table}:
        return None
    return np.column_stack((np.arange(len(table)), table[wanted].to_numpy(np.int64)))

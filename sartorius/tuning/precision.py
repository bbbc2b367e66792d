"""From which score on cells may be trusted as labels: as often right as is asked for, on images with truth.

A cell is right when it has an IoU above 0.5 with a true one. How often cells of a score are, is fitted by isotonic
regression (Zadrozny & Elkan, 2002): surer cells are right at least as often, and nothing else is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.metrics import functional
from sartorius.postprocess import Postprocess, Score
from sartorius.structures.arrays import Bools, Floats
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

_DIGITS = 6  # of scores in a file of pseudo-labels
NONE = 1.0  # the cut-off where no score is sure enough


@dataclass(frozen=True)
class Judged:
    """The N cells of an image: the type that prevails in it, scores float64 [N], and which are right, bool [N]."""

    cell_type: str
    scores: Floats
    right: Bools


def judge(found: Detections, truth: Runs, post: Postprocess) -> Judged:
    """The cells of an image whatever their score, as pseudo-labels are made: all of the type that prevails.

    A cell does not depend on those of lower scores, so these are the cells of every cut-off. Raises ValueError for
    truth of another size.
    """
    kind = found.prevailing_type
    cells = post.with_step(Score(0.0))(replace(found, cell_types=np.full(len(found), kind)))
    right = functional.match_cells(cells.instances, truth).cell >= 0
    return Judged(found.cell_type_names[kind], cells.scores.astype(np.float64).round(_DIGITS), right)


def cut_off(scores: Floats, right: Bools, precision: float, least_cells: int) -> float:
    """The lowest score from which on cells are right with this precision; NONE where fewer than `least_cells` are."""
    if len(scores) < max(least_cells, 1):
        return NONE
    from sklearn.isotonic import IsotonicRegression

    chance = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(scores, right.astype(np.float64))
    values, first = np.unique(-scores, return_index=True)  # best first
    count = np.searchsorted(np.sort(-scores), values, side="right")
    total = np.cumsum(chance[first] * np.diff(count, prepend=0))
    enough = np.flatnonzero((total >= (precision - 1e-9) * count) & (count >= least_cells))
    return float(-values[enough[-1]]) if len(enough) else NONE


def cut_offs(
    judged: Sequence[Judged], folds: NDArray[np.int64] | None, precision: Mapping[str, float], least_cells: int
) -> dict[str, dict[str, Any]]:
    """The cut-off of each cell type in `precision`, from all images, and what it would have been worth.

    folds: of the images, int64 [P]. A type's entry has `asked`, `min_score`, `cells` from there on and their
    `precision`; with folds `cross_fitted_cells` and `cross_fitted_precision`, by cut-offs of the other folds. A
    precision of no cells is None.
    """
    return {name: _of_type(name, judged, folds, asked, least_cells) for name, asked in precision.items()}


def _of_type(
    name: str, judged: Sequence[Judged], folds: NDArray[np.int64] | None, asked: float, least_cells: int
) -> dict[str, Any]:
    own = [image_index for image_index, one in enumerate(judged) if one.cell_type == name]
    scores = np.concatenate([np.zeros(0), *(judged[k].scores for k in own)])
    right = np.concatenate([np.zeros(0, bool), *(judged[k].right for k in own)])
    least = cut_off(scores, right, asked, least_cells)
    entry = {"asked": asked, "min_score": least, **_share("", right[scores >= least])}
    if folds is not None:
        fold = np.concatenate([np.zeros(0, np.int64), *(np.full(len(judged[k].scores), folds[k]) for k in own)])
        limits = np.full(len(scores), NONE)
        for k in np.unique(fold):
            limits[fold == k] = cut_off(scores[fold != k], right[fold != k], asked, least_cells)
        entry |= _share("cross_fitted_", right[scores >= limits])
    return entry


def _share(prefix: str, right: Bools) -> dict[str, Any]:
    return {f"{prefix}cells": len(right), f"{prefix}precision": float(right.mean()) if len(right) else None}

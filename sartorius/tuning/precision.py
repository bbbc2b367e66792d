"""The score threshold above which cells may serve as labels: right as often as asked for, on images with truth.

A cell is right when it has an IoU above 0.5 with a true one. How often cells of a score are, is fitted by isotonic
regression (Zadrozny & Elkan, 2002): surer cells are right at least as often, and nothing else is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sartorius.errors import InputError
from sartorius.files import write_text
from sartorius.metrics import functional
from sartorius.metrics.unlabelled import left_out
from sartorius.postprocess import Postprocess, Score
from sartorius.structures.arrays import Bools, Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

_DIGITS = 6  # of scores in a file of pseudo-labels
NONE = 1.0  # the threshold where no score is sure enough


@dataclass(frozen=True)
class RatedCells:
    """The N cells of an image: the type that prevails in it, scores float64 [N], and which are right, bool [N]."""

    cell_type: str
    scores: Floats
    right: Bools


def rate_cells(detections: Detections, truth: Runs, post: Postprocess, ignored: Bools | None = None) -> RatedCells:
    """Rate the cells of an image at any score, made as pseudo-labels are: all of the type that prevails.

    A cell does not depend on those of lower scores, so these are the cells of every threshold. Those mostly in the
    pixels `ignored`, bool [H, W], that nobody has labelled are left out. Raises ValueError for truth of another size.
    """
    kind = detections.prevailing_type
    cells = post.with_step(Score(0.0))(replace(detections, cell_types=np.full(len(detections), kind)))
    right = functional.match_cells(cells.instances, truth).cell >= 0
    scores = cells.scores.astype(np.float64).round(_DIGITS)
    if ignored is not None:
        counted = ~left_out(cells.instances.to_runs(), ignored)
        scores, right = scores[counted], right[counted]
    return RatedCells(detections.cell_type_names[kind], scores, right)


def score_threshold(scores: Floats, right: Bools, precision: float, least_cells: int) -> float:
    """Find the lowest score from which on cells are right with this precision; NONE with fewer than `least_cells`."""
    if len(scores) < max(least_cells, 1):
        return NONE
    from sklearn.isotonic import IsotonicRegression

    chance = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(scores, right.astype(np.float64))
    values, first = np.unique(-scores, return_index=True)  # best first
    count = np.searchsorted(np.sort(-scores), values, side="right")
    total = np.cumsum(chance[first] * np.diff(count, prepend=0))
    enough = np.flatnonzero((total >= (precision - 1e-9) * count) & (count >= least_cells))
    return float(-values[enough[-1]]) if len(enough) else NONE


def score_thresholds(
    rated: Sequence[RatedCells], folds: Ints | None, precision: Mapping[str, float], least_cells: int
) -> dict[str, dict[str, Any]]:
    """Find the score threshold of each cell type in `precision`, from all images, and the precision measured.

    folds: of the images, int64 [P]. A type's entry has `asked`, `min_score`, `cells` from there on and their
    `precision`; with folds `cross_fitted_cells` and `cross_fitted_precision`, by thresholds of the other folds. A
    precision of no cells is None.
    """
    return {name: _of_type(name, rated, folds, asked, least_cells) for name, asked in precision.items()}


def _of_type(
    name: str, rated: Sequence[RatedCells], folds: Ints | None, asked: float, least_cells: int
) -> dict[str, Any]:
    of_type = [k for k, cells in enumerate(rated) if cells.cell_type == name]
    scores = np.concatenate([np.zeros(0), *(rated[k].scores for k in of_type)])
    right = np.concatenate([np.zeros(0, bool), *(rated[k].right for k in of_type)])
    least = score_threshold(scores, right, asked, least_cells)
    entry = {"asked": asked, "min_score": least, **_share("", right[scores >= least])}
    if folds is not None:
        fold = np.concatenate([np.zeros(0, np.int64), *(np.full(len(rated[k].scores), folds[k]) for k in of_type)])
        limits = np.full(len(scores), NONE)
        for k in np.unique(fold):
            limits[fold == k] = score_threshold(scores[fold != k], right[fold != k], asked, least_cells)
        entry |= _share("cross_fitted_", right[scores >= limits])
    return entry


def _share(prefix: str, right: Bools) -> dict[str, Any]:
    return {f"{prefix}cells": len(right), f"{prefix}precision": float(right.mean()) if len(right) else None}


def asked_precision(given: Any, names: Sequence[str]) -> dict[str, float]:
    """Read the precision asked for of each cell type, from a number for all or a mapping; {} for None."""
    asked = dict.fromkeys(names, given) if not isinstance(given, Mapping) else dict(given)
    for name, value in asked.items() if given is not None else ():
        if name not in names:
            raise InputError(f"pseudo_labels.precision: no cell type {name}; there are {', '.join(names)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(f"pseudo_labels.precision.{name}: expected a share above 0, up to 1, got {value!r}")
    return asked if given is not None else {}


def write_score_thresholds(
    path: Path, rated: Sequence[RatedCells], folds: Ints | None, precision: Mapping[str, float], least_cells: int
) -> dict[str, Any]:
    """Find the score thresholds of pseudo-labels, print and write them; returns what `score_thresholds` does."""
    measured = score_thresholds(rated, folds, precision, least_cells)
    for name, entry in measured.items():
        rates = [entry[key] for key in ("precision", "cross_fitted_precision") if entry.get(key) is not None]
        shown = " and, cross-fitted, ".join(f"{rate:.3f}" for rate in rates) or "not known"
        print(f"{name}: sure from score {entry['min_score']:g} on: {entry['cells']} cells, precision {shown}")
    comment = f"# Written by sartorius.tune from {len(rated)} images; for pseudo_labels.thresholds=\n"
    values = {"min_score": {name: entry["min_score"] for name, entry in measured.items()}, "measured": measured}
    write_text(path, comment + yaml.safe_dump(values, sort_keys=False))
    return measured

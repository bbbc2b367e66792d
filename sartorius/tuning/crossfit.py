"""What tuning gains: on the images that it saw, and on images that it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sartorius.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap
from sartorius.metrics.functional import average_precision_per_image, competition_map, mean_by_group
from sartorius.metrics.report import limits
from sartorius.structures.arrays import Floats
from sartorius.tuning.scorer import Scorer, scorer_of
from sartorius.tuning.search import Searcher
from sartorius.tuning.space import ByType

FINAL = "final"  # the name of the search on all images
SCORED = ("untuned", "tuned", "cross_fitted")


@dataclass(frozen=True)
class Tuned:
    """Thresholds before and after, and the scores of P images under them.

    scores: float64 [P] each, `untuned`, `tuned` (by thresholds that saw the image) and, where there were folds,
    `cross_fitted` (by thresholds of the other folds). of_fold: the thresholds found without each fold.
    """

    images: tuple[str, ...]
    start: ByType
    thresholds: ByType
    scores: Mapping[str, Floats]
    of_fold: Sequence[ByType]


def tune(searcher: Searcher, start: ByType, folds: NDArray[np.int64] | None) -> Tuned:
    """Tune on all images of the searcher's tables, and once without each fold.

    folds: the fold of each image, int64 [P], 0 to F-1; None leaves out cross-fitting. What is left out is not looked
    at: a search gets the names of its own images only.
    """
    tables = searcher.tables
    images = np.array(tables.images, dtype=object)
    everything = scorer_of(tables, tables.images)
    final = searcher.best(FINAL, tables.images, start)
    scores = {"untuned": _scores(everything, start), "tuned": _scores(everything, final)}
    of_fold: list[ByType] = []
    if folds is not None:
        scores["cross_fitted"] = np.zeros(len(images))
        for fold in range(int(folds.max()) + 1):
            outside, inside = images[folds != fold].tolist(), images[folds == fold].tolist()
            found = searcher.best(f"without_fold{fold}", outside, start)
            scores["cross_fitted"][folds == fold] = _scores(scorer_of(tables, inside), found)
            of_fold.append(found)
    return Tuned(tables.images, start, final, scores, of_fold)


def _scores(scorer: Scorer, thresholds: ByType) -> Floats:
    return average_precision_per_image(scorer.rows(thresholds))


def parameter_table(tuned: Tuned, everything: Scorer, names: Sequence[str]) -> pd.DataFrame:
    """A line for each cell type and threshold: cell_type, parameter, untuned, tuned, and what it is worth.

    gain: the mAP of all images lost when this threshold alone is put back; low and high: the least and greatest value
    found without a fold, which differ much where the images do not decide (NaN without folds).
    """
    best = competition_map(everything.rows(tuned.thresholds))
    lines = []
    for k, cell_type in enumerate(names):
        for parameter, values in tuned.thresholds.items():
            before, after = float(tuned.start[parameter][k]), float(values[k])
            back = {**tuned.thresholds, parameter: np.where(np.arange(len(values)) == k, before, values)}
            gain = best - competition_map(everything.rows(back)) if before != after else 0.0
            of_fold = [float(found[parameter][k]) for found in tuned.of_fold] or [float("nan")]
            lines.append((cell_type, parameter, before, after, gain, min(of_fold), max(of_fold)))
    return pd.DataFrame(lines, columns=["cell_type", "parameter", "untuned", "tuned", "gain", "low", "high"])


def image_table(tuned: Tuned, cell_types: Sequence[str]) -> pd.DataFrame:
    """A line an image: image, its true cell type, and its average precision untuned, tuned and cross_fitted."""
    return pd.DataFrame({"image_id": tuned.images, "cell_type": list(cell_types), **tuned.scores})


def summary(tuned: Tuned, cell_types: Sequence[str], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of metrics.json: each mAP with its interval, by true cell type, and the gain over untuned.

    bootstrap: samples, seed and level; the interval of a gain is that of the paired difference over images.
    """
    report: dict[str, Any] = {"images": len(tuned.images)}
    for name, scores in tuned.scores.items():
        report[name] = {
            **_interval("competition_map", bootstrap_interval(scores, **bootstrap)),
            **{f"competition_map_{kind}": value for kind, value in mean_by_group(scores, cell_types).items()},
            **_interval("gain", paired_bootstrap(scores, tuned.scores["untuned"], **bootstrap)),
        }
    return report


def _interval(name: str, interval: Interval) -> dict[str, Any]:
    return {name: interval.mean, f"{name}_interval": limits(interval)}


def print_summary(numbers: Mapping[str, Any], type_names: Sequence[str], level: float) -> None:
    """Print what `summary` holds as a table: a line for each way of scoring."""
    from rich.console import Console
    from rich.table import Table

    kinds = [kind for kind in type_names if f"competition_map_{kind}" in numbers["untuned"]]
    lines = Table(title=f"mAP of {numbers['images']} images, {level:.0%} bootstrap intervals", title_justify="left")
    lines.add_column("thresholds")
    for column in ("mAP", "gain", *kinds):
        lines.add_column(column, justify="right")
    for name in SCORED:
        if (found := numbers.get(name)) is None:
            continue
        low, high = found["gain_interval"]
        gain = "" if name == "untuned" else f"{found['gain']:+.4f} ({low:+.3f}, {high:+.3f})"
        by_type = (f"{found[f'competition_map_{kind}']:.4f}" for kind in kinds)
        lines.add_row(name.replace("_", "-"), f"{found['competition_map']:.4f}", gain, *by_type)
    Console().print(lines)

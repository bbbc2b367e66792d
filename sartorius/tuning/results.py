"""The files of a search: thresholds, and their gain on images that they were and were not searched on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sartorius.files import write_csv, write_json
from sartorius.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap
from sartorius.metrics.functional import competition_map, mean_by_group
from sartorius.metrics.report import check_gain, limits, print_rows
from sartorius.postprocess import Postprocess
from sartorius.postprocess.saved import to_file
from sartorius.structures.arrays import Ints
from sartorius.tuning.crossfit import SCORED, Tuned, tune
from sartorius.tuning.scorer import Scorer, scorer_of
from sartorius.tuning.search import Searcher, Trial
from sartorius.tuning.space import thresholds_of, with_thresholds

FILE = "postprocess.yaml"


def write_results(
    searcher: Searcher, output: Path, cell_types: Sequence[str], folds: Ints | None, bootstrap: Mapping[str, Any],
    accept_loss: bool,
) -> tuple[Postprocess, dict[str, Any]]:  # fmt: skip
    """Search, print and write everything; returns the tuned post-processing and the numbers of metrics.json.

    folds: of the images of the searcher's tables, see `tune`. cell_types: their true ones. Raises InputError as
    `check_gain` does; the report is written then, but no thresholds.
    """
    tables, names, post = searcher.tables, searcher.tables.cell_type_names, searcher.tables.post
    tuned = tune(searcher, thresholds_of(post, names), folds)
    numbers = summary(tuned, cell_types, bootstrap)
    print_summary(numbers, names, bootstrap["level"])
    everything = scorer_of(tables, tables.images)
    write_csv(output / "parameters.csv", parameter_table(tuned, everything, names))
    write_csv(output / "per_image.csv", image_table(tuned, cell_types))
    write_csv(output / "trials.csv", trial_table(searcher.trials))
    write_json(output / "metrics.json", numbers)
    (output / FILE).unlink(missing_ok=True)  # of a search with fewer trials
    check_gain(numbers.get("cross_fitted", {}).get("gain"), accept_loss, str(output / FILE))
    best = with_thresholds(post, names, tuned.thresholds)
    shown = numbers.get("cross_fitted", numbers["tuned"])
    to_file(
        output / FILE, best,
        f"Written by sartorius.tune: {numbers['images']} images, mAP {numbers['untuned']['competition_map']:.4f} "
        f"untuned, {shown['competition_map']:.4f} {'cross-fitted' if folds is not None else 'in sample'}.",
    )  # fmt: skip
    return best, numbers


def parameter_table(tuned: Tuned, everything: Scorer, names: Sequence[str]) -> pd.DataFrame:
    """Make a table, a line for each cell type and threshold: cell_type, parameter, untuned, tuned, gain, low, high.

    gain: the mAP of all images lost when this threshold alone is put back; low and high: the least and greatest value
    tuned without a fold, which differ much where the images do not decide (NaN without folds).
    """
    best = competition_map(everything.rows(tuned.thresholds))
    lines = []
    for k, cell_type in enumerate(names):
        for parameter, values in tuned.thresholds.items():
            before, after = float(tuned.start[parameter][k]), float(values[k])
            back = {**tuned.thresholds, parameter: np.where(np.arange(len(values)) == k, before, values)}
            gain = best - competition_map(everything.rows(back)) if before != after else 0.0
            of_fold = [float(thresholds[parameter][k]) for thresholds in tuned.of_fold] or [float("nan")]
            lines.append((cell_type, parameter, before, after, gain, min(of_fold), max(of_fold)))
    return pd.DataFrame(lines, columns=["cell_type", "parameter", "untuned", "tuned", "gain", "low", "high"])


def image_table(tuned: Tuned, cell_types: Sequence[str]) -> pd.DataFrame:
    """Make a table, a line an image: its true cell type, and its average precision untuned, tuned and cross_fitted."""
    return pd.DataFrame({"image_id": tuned.images, "cell_type": list(cell_types), **tuned.scores})


def summary(tuned: Tuned, cell_types: Sequence[str], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the numbers of metrics.json: each mAP with its interval, by true cell type, and the gain over untuned.

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
    kinds = [kind for kind in type_names if f"competition_map_{kind}" in numbers["untuned"]]
    rows = []
    for name in SCORED:
        if (scored := numbers.get(name)) is None:
            continue
        low, high = scored["gain_interval"]
        gain = "" if name == "untuned" else f"{scored['gain']:+.4f} ({low:+.3f}, {high:+.3f})"
        by_type = (f"{scored[f'competition_map_{kind}']:.4f}" for kind in kinds)
        rows.append([name.replace("_", "-"), f"{scored['competition_map']:.4f}", gain, *by_type])
    title = f"mAP of {numbers['images']} images, {level:.0%} bootstrap intervals"
    print_rows(title, ["thresholds", "mAP", "gain", *kinds], rows)


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Make a table of trials: search, round, cell_type, trial, competition_map (of the type's images), thresholds."""
    lines = [
        {key: value for key, value in asdict(trial).items() if key not in ("values", "score")}
        | {"competition_map": trial.score, **trial.values}
        for trial in trials
    ]
    return pd.DataFrame(lines)

"""Rows as a report: the numbers of metrics.json and the table of per_image.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sartorius.errors import InputError, raise_all
from sartorius.metrics import instance_scores
from sartorius.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap
from sartorius.metrics.functional import (
    THRESHOLD_PERCENT,
    THRESHOLDS,
    average_precision_per_image,
    competition_map,
    pooled_precision,
    precision_per_image,
)
from sartorius.structures.arrays import Floats, Ints

HITS = [f"true_positives_{percent}" for percent in THRESHOLD_PERCENT]


def per_image_table(
    rows: Ints, images: Sequence[str], cell_types: Sequence[str], overlaps: Floats | None = None
) -> pd.DataFrame:
    """Tabulate images: image_id, cell_type, average_precision, predictions, cells, true_positives_50 ... _95.

    `rows` int64 [P, 13] as `functional.image_row` makes them; `images` and `cell_types` in the same order. With
    `overlaps` float64 [P, 6] also the scores of `instance_scores.MEANINGS`.
    """
    table = pd.DataFrame(
        {
            "image_id": list(images),
            "cell_type": list(cell_types),
            "average_precision": average_precision_per_image(rows),
            "predictions": rows[:, -2],
            "cells": rows[:, -1],
        }
    )
    table = table.assign(**{name: rows[:, 1 + k] for k, name in enumerate(HITS)})
    return table if overlaps is None else table.assign(**instance_scores.scores_per_image(rows, overlaps))


def summary(
    rows: Ints,
    cell_types: Sequence[str],
    type_names: Sequence[str],
    overlaps: Floats | None = None,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Compute the numbers of metrics.json, ready for JSON (None where there is nothing to average).

    `rows` int64 [P, 13]; `cell_types` [P], the type of each image; `type_names`, all types to report.
    competition_map, competition_map_<type>: means over images. competition_map_interval(_<type>): [low, high] of the
    bootstrap over images. precision_by_threshold: means over images, "0.50" to "0.95".
    pooled_map, pooled_precision_by_threshold: counts of all images summed before dividing. With `overlaps` float64
    [P, 6] the same of each score of `instance_scores.MEANINGS`, and f1_by_threshold.
    """
    scores, names = average_precision_per_image(rows), np.asarray(cell_types, dtype=object)
    intervals = {"": bootstrap_interval(scores, samples, seed, level)}
    intervals |= {f"_{t}": bootstrap_interval(scores[names == t], samples, seed, level) for t in type_names}
    pooled = pooled_precision(rows)
    by_threshold = precision_per_image(rows).mean(axis=0) if len(rows) else pooled
    report: dict[str, Any] = {"competition_map": _number(competition_map(rows))}
    report |= {f"competition_map_{t}": _number(intervals[f"_{t}"].mean) for t in type_names}
    report |= {"images": len(rows), "cells": int(rows[:, -1].sum()), "predictions": int(rows[:, -2].sum())}
    report |= {f"competition_map_interval{t}": limits(interval) for t, interval in intervals.items()}
    report["precision_by_threshold"] = _by_threshold(by_threshold)
    report["pooled_map"] = _number(float(pooled.mean()))
    report["pooled_precision_by_threshold"] = _by_threshold(pooled)
    if overlaps is not None:
        bootstrap = {"samples": samples, "seed": seed, "level": level}
        report |= _instance_summary(rows, overlaps, names, type_names, bootstrap)
    return report


def _instance_summary(
    rows: Ints, overlaps: Floats, names: Any, type_names: Sequence[str], bootstrap: Mapping[str, Any]
) -> dict[str, Any]:
    report: dict[str, Any] = {}
    pooled = instance_scores.scores_per_image(*(counts.sum(axis=0, keepdims=True) for counts in (rows, overlaps)))
    for key, scores in instance_scores.scores_per_image(rows, overlaps).items():
        chosen = {"": scores} | {f"_{kind}": scores[names == kind] for kind in type_names}
        intervals = {suffix: bootstrap_interval(values, **bootstrap) for suffix, values in chosen.items()}
        report |= {f"{key}{suffix}": _number(interval.mean) for suffix, interval in intervals.items()}
        report |= {f"{key}_interval{suffix}": limits(interval) for suffix, interval in intervals.items()}
        report[f"pooled_{key}"] = float(pooled[key][0]) if len(rows) else None
    return report | {"f1_by_threshold": _by_threshold(instance_scores.f1_by_threshold(rows))}


def limits(interval: Interval) -> list[float] | None:
    """Return [low, high] for JSON, None without images."""
    return None if math.isnan(interval.low) else [interval.low, interval.high]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _by_threshold(values: Floats) -> dict[str, float | None]:
    return {f"{t:.2f}": _number(float(value)) for t, value in zip(THRESHOLDS, values, strict=True)}


def read_per_image(path: str | Path) -> pd.DataFrame:
    """Read a per_image.csv, or the one in a run folder; raises InputError when it is missing or something else."""
    file = Path(path) / "per_image.csv" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected a per_image.csv or a folder that evaluate or train wrote")
    try:
        table = pd.read_csv(file, dtype={"image_id": str}, keep_default_na=False, na_values=[""])  # NA is an id
    except ValueError as error:  # of pandas, and of text that is not UTF-8
        raise InputError(f"{file}: not a readable csv file ({error}); copy it again") from error
    if not {"image_id", "average_precision"} <= set(table.columns):
        raise InputError(f"{file}: expected columns image_id and average_precision, found {', '.join(table.columns)}")
    numbers = pd.to_numeric(table.average_precision, errors="coerce")
    bad = np.flatnonzero(~numbers.between(0, 1)).tolist()
    came = table.average_precision.tolist()
    raise_all([f"{file} row {k + 2}: average_precision {came[k]}, expected a number from 0 to 1" for k in bad])
    return table.assign(average_precision=numbers)


def compare(
    ours: pd.DataFrame, theirs: pd.DataFrame, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[Interval, int]:
    """Return the paired difference ours - theirs over the images that both tables hold, and how many those are.

    Raises InputError when they share no image, or one of them lists an image twice.
    """
    for table in (ours, theirs):
        if len(repeated := table.image_id[table.image_id.duplicated()]):
            raise InputError(f"image {repeated.iloc[0]} appears twice in a per-image table; each may appear once")
    both = ours.merge(theirs, on="image_id", suffixes=("_ours", "_theirs"))
    if both.empty:
        raise InputError("the two per-image tables share no image, so there is nothing to compare")
    a, b = both.average_precision_ours.to_numpy(), both.average_precision_theirs.to_numpy()
    return paired_bootstrap(a, b, samples, seed, level), len(both)


def print_scores(name: str, numbers: Mapping[str, Any], table: pd.DataFrame, type_names: Sequence[str]) -> None:
    """Print what `summary` and `per_image_table` hold as a table, a line a cell type and one for all."""
    rows = []
    for kind, suffix in [*((kind, f"_{kind}") for kind in type_names), ("all", "")]:
        part = table[table.cell_type == kind] if suffix else table
        value, interval = numbers[f"competition_map{suffix}"], numbers[f"competition_map_interval{suffix}"]
        shown = ("-", "") if value is None else (f"{value:.6f}", f"{interval[0]:.3f} to {interval[1]:.3f}")
        rows.append([kind, str(len(part)), str(part["cells"].sum()), str(part["predictions"].sum()), *shown])
    print_rows(name, ["cell type", "images", "cells", "predictions", "mAP", "interval"], rows)


def print_instance_scores(numbers: Mapping[str, Any], type_names: Sequence[str]) -> None:
    """Print the field's other scores of a `summary`, a line a score, and COCO AP where `numbers` hold it."""
    rows = []
    for key, (name, _) in {**instance_scores.MEANINGS, **instance_scores.AP_MEANINGS}.items():
        if numbers.get(key) is not None:
            values = [numbers.get(f"{key}{suffix}") for suffix in (*(f"_{kind}" for kind in type_names), "")]
            interval = numbers.get(f"{key}_interval")
            shown = ["" if value is None else f"{value:.3f}" for value in values]
            rows.append([name, *shown, "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"])
    title = "beside it, means over images (IoU above 0.50)"
    print_rows(title, ["score", *type_names, "all", "interval"], rows)


def check_gain(gain: float | None, accept_loss: bool, file: str) -> None:
    """Raise InputError where what `file` is to hold loses mAP on images that it was not made from.

    gain: of mAP, cross-fitted; None where it was not measured, which counts as a loss. accept_loss: raise nothing.
    """
    if accept_loss or (gain is not None and gain >= 0):
        return
    found = "folds=0 leaves open whether it gains" if gain is None else f"it changes mAP by {gain:+.4f} (cross-fitted)"
    raise InputError(
        f"{file}: not written, for {found} on images it was not made from; go on without it, try more images or folds, "
        "or give accept_loss=true to have it all the same"
    )


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts as a table, the first column left and the others right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_difference(
    name: str, ours: pd.DataFrame, theirs: pd.DataFrame, bootstrap: Mapping[str, Any]
) -> dict[str, Any]:
    """Print how far `ours` is above the table called `name`; returns mean, interval and images for metrics.json.

    bootstrap: samples, seed and level. Raises InputError as `compare` does.
    """
    difference, images = compare(ours, theirs, **bootstrap)
    print(
        f"minus {name}: {difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}, "
        f"{bootstrap['level']:.0%} paired bootstrap over {images} images)"
    )
    return {"mean": difference.mean, "interval": limits(difference), "images": images}

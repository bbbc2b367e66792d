"""Curves of a training from its metrics.csv and batches.csv: read once, drawn by the run itself and by reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sartorius.files import atomic_path
from sartorius.reports.figures import Plot, colours, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = ("train/loss", "val/loss")
SCORES = {"val/map": "mAP", "val/iou": "IoU", "val/dice": "Dice", "val/pixel_accuracy": "pixel accuracy"}  # all 0..1
_PLACE = ("epoch", "step")
_POINTS = 1500  # of a line: more cannot be told apart, and would weigh down the page
_DECADE = 10.0  # the highest loss over the lowest from which the axis is logarithmic
_SPAN = 0.5  # epochs that a line must span to be drawn


def read_numbers(path: Path) -> pd.DataFrame:
    """Read metrics.csv or batches.csv: the columns with numbers, as numbers; rows without epoch or step left out.

    Empty without a file.
    """
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, ValueError):  # what pandas raises for an empty file, or none of its kind
        return pd.DataFrame()
    numbers = table.apply(pd.to_numeric, errors="coerce").replace([math.inf, -math.inf], math.nan)
    place = [name for name in _PLACE if name in numbers]
    return numbers.dropna(subset=place).dropna(axis="columns", how="all")


def timed(table: pd.DataFrame) -> pd.DataFrame:
    """Add `time`, the epochs that were over when a row was measured; empty where the table has no epoch or step."""
    if not {*_PLACE} <= {*table} or table.empty:
        return pd.DataFrame()
    return table.assign(time=(table.step + 1) / ((table.step + 1) / (table.epoch + 1)).max())


def draw_curves(numbers: pd.DataFrame, path: Path, batches: pd.DataFrame) -> bool:
    """Draw the LOSSES and SCORES side by side; returns whether there was anything to draw.

    The horizontal axis counts epochs that are over: a score stands at the end of its epoch, a training loss where it
    was measured, and the mean of an epoch's training losses in its middle. numbers, batches: `read_numbers` of
    metrics.csv and batches.csv, whose losses stand in for the logged steps.
    """
    table, every = timed(numbers), timed(batches)
    panels: list[Callable[[Axes], None]] = []
    if {*LOSSES} & {*table, *every}:
        panels.append(lambda axes: _paint_losses(axes, table, every))
    if {*SCORES} & {*table}:
        panels.append(lambda axes: _paint_scores(axes, table))
    if not panels:
        return False
    from matplotlib.figure import Figure  # half a second, and only at the end of a fit

    figure = Figure(figsize=(6.4 * len(panels), 4.2), layout="constrained")
    for place, paint in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        paint(axes)
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return True


def curve_plots(numbers: pd.DataFrame, batches: pd.DataFrame, folder: Path | None) -> list[Plot]:
    """Draw one run: losses, their parts, scores, scores by cell type, learning rate; those that were logged.

    numbers, batches: `read_numbers` of metrics.csv and batches.csv. folder: gets PNGs of them.
    """
    table, every = timed(numbers), timed(batches)
    columns = [str(name) for name in table]
    parts = [name for name in columns if name.startswith("train/") and name != "train/loss"]
    part_lines = {name.removeprefix("train/"): _epoch_means(table, name) for name in parts}
    types = [name for name in columns if name.startswith("val/map_")]
    type_lines = {name.removeprefix("val/map_"): _measured(table, name) for name in types}
    rates = _distinct({name: _measured(table, name) for name in columns if name.startswith("lr")})
    plots: list[tuple[Any, str, str, str, Callable[[Axes], None]]] = [
        ({*LOSSES} & {*columns, *every}, "losses", "Loss", "Loss of training and validation over the epochs",
         lambda axes: _paint_losses(axes, table, every)),
        (parts, "loss_parts", "Parts of the training loss", "Each part of the training loss over the epochs",
         lambda axes: _paint_lines(axes, part_lines, "mean of an epoch, unweighted")),
        ({*SCORES} & {*columns}, "scores", "Scores in validation", "Validation scores over the epochs, from 0 to 1",
         lambda axes: _paint_scores(axes, table)),
        (_moving(type_lines), "scores_by_type", "mAP in validation, by cell type",
         "mAP of each cell type over the epochs", lambda axes: _paint_lines(axes, type_lines, "mAP (0 to 1)")),
        (rates, "learning_rate", "Learning rate", "Learning rate over the epochs",
         lambda axes: _paint_lines(axes, rates, "learning rate")),
    ]  # fmt: skip
    return [draw(name, title, alt, paint, folder) for wanted, name, title, alt, paint in plots if wanted]


def shared_curve_plots(numbers: Mapping[str, pd.DataFrame], folder: Path | None) -> list[Plot]:
    """Draw a line a run: training loss, validation loss and mAP; those that at least one of the runs logged."""
    tables = {name: timed(table) for name, table in numbers.items()}
    plots = []
    for column, name, title, unit in (
        ("train/loss", "losses", "Training loss", "mean of an epoch"),
        ("val/loss", "validation_losses", "Validation loss", "loss (no unit)"),
        ("val/map", "scores", "mAP in validation", "mAP (0 to 1)"),
    ):
        find = _epoch_means if column == "train/loss" else _measured
        lines = {run: find(table, column) for run, table in tables.items() if column in table}
        if _moving(lines):
            alt = f"{title} of {', '.join(lines)} over the epochs"
            plots.append(draw(name, title, alt, lambda axes, of=lines, y=unit: _paint_lines(axes, of, y), folder))  # type: ignore[misc]
    return plots


def _measured(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return time and value of a column where it was logged, thinned evenly to the points that a line can show."""
    measured = table.loc[table[name].notna(), ["time", name]].set_axis(["time", "value"], axis="columns")
    return measured.iloc[:: max(1, math.ceil(len(measured) / _POINTS))]


def _epoch_means(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return time and value: the mean of a column over each epoch, in the epoch's middle."""
    means = table.dropna(subset=name).groupby("epoch")[name].mean()
    return pd.DataFrame({"time": means.index.to_numpy() + 0.5, "value": means.to_numpy()})


def _moving(lines: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether any line spans more than a moment; single measurements stand in the tables."""
    return any(np.ptp(line.time) > _SPAN for line in lines.values() if len(line))


def _distinct(lines: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Drop the lines that lie on one before them: groups of parameters often share a learning rate."""
    kept: dict[str, pd.DataFrame] = {}
    for name, line in lines.items():
        if not any(line.equals(other) for other in kept.values()):
            kept[name] = line
    return kept if len(kept) > 1 else dict(zip([""], kept.values(), strict=False))


def _paint_lines(axes: Axes, lines: Mapping[str, pd.DataFrame], unit: str) -> None:
    for (name, line), colour in zip(lines.items(), colours([*lines]).values(), strict=True):
        axes.plot(line.time, line.value, ".-" if len(line) < 60 else "-", color=colour, label=name or None)
    _frame(axes, unit, legend=any(lines))


def _paint_losses(axes: Axes, table: pd.DataFrame, batches: pd.DataFrame) -> None:
    shown: list[float] = []  # what must fit: the start, the means, most steps; single steps may stick out
    every, name = (batches, "training, batches") if "train/loss" in batches else (table, "training, logged steps")
    if "train/loss" in every:
        steps, means = _measured(every, "train/loss"), _epoch_means(every, "train/loss")
        style: Any = {"ls": "-", "lw": 0.8} if every is batches else {"ls": "", "marker": ".", "ms": 4}
        axes.plot(steps.time, steps.value, color=_BLUE, alpha=0.3, label=name, **style)
        axes.plot(means.time, means.value, ".-", color=_BLUE, label="training, mean of an epoch")
        shown += [steps.value.iloc[0], *means.value, float(steps.value.quantile(0.98))]
    if "val/loss" in table:
        validated = _measured(table, "val/loss")
        axes.plot(validated.time, validated.value, ".-", color=_ORANGE, label="validation")
        shown += [*validated.value]
    top = 1.05 * max(shown)
    _frame(axes, "loss (no unit)", top=top or 1.0)
    if 0 < _DECADE * min(shown) < top:
        axes.set(yscale="log", ylim=(min(shown) / 2, top))


def _paint_scores(axes: Axes, table: pd.DataFrame) -> None:
    highest = 0.0
    for (name, label), colour in zip(SCORES.items(), colours([*SCORES]).values(), strict=True):
        if name in table:
            time, score = table.loc[table[name].notna(), ["time", name]].to_numpy().T
            best = int(score.argmax())
            label = f"{label}: best {score[best]:.3f} after {time[best]:.3g} epochs"
            axes.plot(time, score, ".-", label=label, color=colour)
            axes.plot(time[best], score[best], "o", color=colour)
            highest = max(highest, float(score[best]))
    # from zero, but without an empty upper half
    _frame(axes, "validation score (0 to 1)", top=min(1.2 * highest, 1.0) or 1.0)


def _frame(axes: Axes, unit: str, top: float | None = None, legend: bool = True) -> None:
    axes.set(xlabel="epochs trained", ylabel=unit, xlim=(0, None), ylim=(0, top))
    if legend:
        axes.legend()


_BLUE, _ORANGE = colours(["training", "validation"]).values()

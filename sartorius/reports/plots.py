"""Plots of cells and scores: by threshold, areas, confidence, calibration, image by image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.metrics.functional import THRESHOLDS
from sartorius.reports.figures import Plot, colours, draw
from sartorius.reports.numbers import threshold_lines
from sartorius.reports.views import RunView
from sartorius.structures.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 24  # of a histogram
_STEPS = 10  # of the scores in the calibration
_FEW = 5  # cells: smaller bins are too noisy for a calibration


def score_plots(views: Sequence[RunView], types: Sequence[str], folder: Path | None) -> list[Plot]:
    """Draw precision by threshold (a line a cell type, or a run where there are several), and scores image by image."""
    plots = []
    if len(views) == 1:
        lines = threshold_lines(views[0], types)
    else:
        lines = {view.name: threshold_lines(view, types).get("all", []) for view in views}
    if lines := {name: values for name, values in lines.items() if values}:
        alt = f"Precision falls with the IoU threshold; a line each: {', '.join(lines)}"
        paint = partial(_paint_thresholds, lines=lines)
        plots.append(draw("thresholds", "Precision by IoU threshold", alt, paint, folder))
    if len(views) == 1:
        plots += _crowding(views[0], types, folder)
    for k, view in enumerate(views[1:], 1):
        plots += _against(views[0], view, k, folder)
    return plots


def cell_plots(views: Sequence[RunView], types: Sequence[str], folder: Path | None) -> list[Plot]:
    """Draw histograms of areas by cell type and of scores by view, and how often cells of a score are right."""
    plots = []
    for kind in types:
        areas = _areas(views, kind)
        if any(len(values) for values in areas.values()):
            alt = f"Histogram of cell areas of {kind}: {', '.join(areas)}"
            name = f"areas_{re.sub(r'[^A-Za-z0-9_-]', '-', kind)[:60]}"
            plots.append(draw(name, f"Area of cells, {kind}", alt, partial(_paint_areas, areas=areas), folder))
    right = {view.name: _scored(view) for view in views}
    right = {name: pair for name, pair in right.items() if len(pair[0])}
    for k, (name, (scores, hit)) in enumerate(right.items()):
        single, title = len(views) == 1, "Scores of hits and false alarms"
        alt = f"Histogram of the scores of hits and of false alarms, {name}"
        plots.append(draw("confidence" if single else f"confidence_{k}", title if single else f"{title}, {name}", alt,
                          partial(_paint_confidence, scores=scores, hit=hit), folder))  # fmt: skip
    if right:
        alt = "Share of predicted cells that hit an annotated one, by their score"
        paint = partial(_paint_calibration, right=right)
        plots.append(draw("calibration", "Share of cells that are right, by score", alt, paint, folder))
    return plots


def _areas(views: Sequence[RunView], kind: str) -> dict[str, Floats]:
    """Return areas of the cells in images of a type: annotated, and predicted by each view; pixels."""
    annotated: dict[str, Floats] = {}  # of every image once, whichever view it comes from
    for view in views:
        annotated |= {cells.image_id: cells.true_areas.astype(np.float64) for cells in view.of_type(kind)}
    lines = {"annotated": _joined([*annotated.values()])}
    for view in views:
        name = "predicted" if len(views) == 1 else view.name
        lines[name] = _joined([cells.areas.astype(np.float64) for cells in view.of_type(kind)])
    return {name: values[values > 0] for name, values in lines.items()}


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate([np.zeros(0), *parts])


def _scored(view: RunView) -> tuple[Floats, Floats]:
    """Return the scores of all predicted cells that have one, and whether each is right, 0 or 1."""
    scores = _joined([cells.scores for cells in view.compared.values()])
    hit = _joined([cells.hit.astype(np.float64) for cells in view.compared.values()])
    known = ~np.isnan(scores)
    return scores[known], hit[known]


def _crowding(view: RunView, types: Sequence[str], folder: Path | None) -> list[Plot]:
    table = view.table
    if table is None or not {"cells", "cell_type"} <= {*table} or table.empty:
        return []

    def paint(axes: Axes) -> None:
        for kind, colour in colours(types).items():
            part = table[table.cell_type == kind]
            axes.plot(part["cells"], part.average_precision, "o", color=colour, alpha=0.75, label=kind)
        if (table["cells"] > 0).all():
            _log_axis(axes)
        axes.set(xlabel="annotated cells in the image", ylabel="average precision")
        axes.set_ylim(-0.01, 1.25 * max(table.average_precision.max(), 0.05))
        axes.legend()

    alt = "Average precision of each image against its number of cells, coloured by cell type"
    return [draw("images", "Score and crowding", alt, paint, folder)]


def _against(first: RunView, other: RunView, k: int, folder: Path | None) -> list[Plot]:
    ours, theirs = other.scores, first.scores
    shared = [image_id for image_id in theirs if image_id in ours]
    if not shared:
        return []

    def paint(axes: Axes) -> None:
        x, y = [theirs[image_id] for image_id in shared], [ours[image_id] for image_id in shared]
        top = 1.05 * max(*x, *y, 0.05)
        axes.plot([0, top], [0, top], "-", color="#8A8A8A", lw=1)
        axes.plot(x, y, "o", color=colours(["a"])["a"], alpha=0.75)
        axes.set(xlabel=f"{first.name}: average precision", ylabel=other.name, xlim=(0, top), ylim=(0, top))

    better = sum(ours[image_id] > theirs[image_id] for image_id in shared)
    alt = f"{other.name} is better on {better} of {len(shared)} images"
    return [draw(f"against_{k}", f"{other.name} against {first.name}", alt, paint, folder)]


def _paint_thresholds(axes: Axes, lines: Mapping[str, Sequence[float]]) -> None:
    for (name, values), colour in zip(lines.items(), colours([*lines]).values(), strict=True):
        bold = name == "all"
        axes.plot(THRESHOLDS, values, ".-", label=name, color="#8A8A8A" if bold else colour, lw=2.5 if bold else 1.5)
    axes.set(xlabel="IoU threshold", ylabel="TP / (TP + FP + FN), mean", ylim=(0, None))
    axes.legend()


def _log_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic with numbers at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _paint_areas(axes: Axes, areas: Mapping[str, Floats]) -> None:
    every = _joined([*areas.values()])
    edges = np.geomspace(max(every.min(), 1.0) * 0.95, every.max() * 1.05, _BINS + 1).tolist()
    for (name, values), colour in zip(areas.items(), colours([*areas]).values(), strict=True):
        median = f", median {np.median(values):.0f}" if len(values) else ""
        label = f"{name} ({len(values)}{median})"
        if name == "annotated":
            axes.hist(values, edges, color="#8A8A8A", alpha=0.5, label=label)
        else:
            axes.hist(values, edges, histtype="step", color=colour, lw=1.8, label=label)
    _log_axis(axes)
    axes.set(xlabel="area, pixels", ylabel="cells", ylim=(None, 1.3 * axes.get_ylim()[1]))  # room for the legend
    axes.legend()


def _paint_confidence(axes: Axes, scores: Floats, hit: Floats) -> None:
    low = scores.min() if scores.min() < 1 else 0.0
    edges = np.linspace(low, 1.0, _BINS + 1).tolist()
    parts = [scores[hit == 1], scores[hit == 0]]
    labels = [f"hits ({len(parts[0])})", f"false alarms ({len(parts[1])})"]
    axes.hist(parts, edges, stacked=True, color=["#56B4E9", "#D55E00"], label=labels)
    axes.set(xlabel="score", ylabel="predicted cells", ylim=(None, 1.2 * axes.get_ylim()[1]))
    axes.legend()


def _paint_calibration(axes: Axes, right: Mapping[str, tuple[Floats, Floats]]) -> None:
    axes.plot([0, 1], [0, 1], "-", color="#8A8A8A", lw=1)
    for (name, (scores, hit)), colour in zip(right.items(), colours([*right]).values(), strict=True):
        step = np.minimum((scores * _STEPS).astype(int), _STEPS - 1)
        count = np.bincount(step, minlength=_STEPS)
        kept = count >= _FEW
        mean, share = (np.bincount(step, values, _STEPS)[kept] / count[kept] for values in (scores, hit))
        axes.plot(mean, share, "o-", color=colour, label=name if len(right) > 1 else None)
    axes.set(xlabel="score", ylabel="share with an IoU above 0.50", xlim=(0, 1), ylim=(0, 1))
    if len(right) > 1:
        axes.legend()

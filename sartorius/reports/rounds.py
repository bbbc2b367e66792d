"""The score over rounds of labelling: runs that were trained on more and more images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.data import provenance
from sartorius.metrics import report
from sartorius.metrics.bootstrap import Interval, bootstrap_interval
from sartorius.reports.document import Table, Value
from sartorius.reports.figures import Plot, colours, draw
from sartorius.reports.numbers import Bootstrap, between
from sartorius.reports.runs import Run
from sartorius.reports.views import RunView
from sartorius.structures.detections import DetectionsFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TrainingRound:
    """A run and its score on the images that all rounds scored. images: trained on, of folds their mean."""

    name: str
    images: float
    score: Interval


def rounds_of(runs: Sequence[Run], views: Sequence[RunView], bootstrap: Bootstrap) -> tuple[list[TrainingRound], int]:
    """Return the runs by their number of training images, and how many images they are scored on.

    Nothing and 0 where the number of a run is not known, all have the same, or no image is scored by all.
    """
    counts = [_train_images(run) for run in runs]
    known = [count for count in counts if count is not None]
    shared = sorted(set.intersection(*({*view.scores} for view in views)))
    if len(known) < len(runs) or len({*known}) < 2 or not shared:
        return [], 0
    rounds = [
        TrainingRound(view.name, count, bootstrap_interval(np.array([view.scores[i] for i in shared]), **bootstrap))
        for view, count in zip(views, known, strict=True)
    ]
    return sorted(rounds, key=lambda one: one.images), len(shared)


def rounds_table(rounds: Sequence[TrainingRound], shared: int, bootstrap: Bootstrap) -> Table:
    """Show a line a round: training images, mAP on the shared images, its interval."""
    lines: list[list[Value]] = [
        [one.name, round(one.images), one.score.mean, between(report.limits(one.score))] for one in rounds
    ]
    note = f"mAP on the {shared} images that all runs scored, with a bootstrap interval ({bootstrap['level']:.0%})."
    return Table("Score and training images", ["run", "training images", "mAP", "interval"], lines, note)


def rounds_plot(rounds: Sequence[TrainingRound], shared: int, folder: Path | None) -> Plot:
    """Draw the score of each round against its number of training images, with intervals."""
    alt = f"mAP on {shared} images against the number of training images: " + ", ".join(
        f"{one.images:g} images {one.score.mean:.3f}" for one in rounds
    )
    return draw("rounds", "Score and training images", alt, partial(_paint, rounds=rounds, shared=shared), folder)


def _paint(axes: Axes, rounds: Sequence[TrainingRound], shared: int) -> None:
    from matplotlib.ticker import MaxNLocator

    images, means = [one.images for one in rounds], np.array([one.score.mean for one in rounds])
    low, high = np.array([(one.score.low, one.score.high) for one in rounds]).T
    axes.errorbar(images, means, (means - low, high - means), fmt="o-", color=colours(["a"])["a"], capsize=3)
    for one in rounds:
        axes.annotate(
            one.name, (one.images, one.score.high), (0, 4), textcoords="offset points", fontsize=7, ha="center"
        )
    axes.set(xlabel="training images", ylabel=f"mAP on {shared} shared images", ylim=(0, 1.2 * max(high.max(), 0.05)))
    axes.margins(x=0.15)  # room for names
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _train_images(run: Run) -> float | None:
    counts = [DetectionsFolder(folder).meta.get(provenance.COUNT) for folder in run.detections]
    numbers = [count for count in counts if isinstance(count, int)]
    return float(np.mean(numbers)) if numbers and len(numbers) == len(counts) else None

"""The plot of a sweep: scores over a numeric parameter or by member, or the history of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sartorius.files import atomic_path
from sartorius.structures.arrays import Floats
from sartorius.sweeps.members import PRUNED, SweepMember
from sartorius.sweeps.table import FOLD, member_table, varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = 10  # choices of the other parameters beside the one on the axis
_PANELS = 6  # parameters of a search, the most important
_DECADE = 10.0  # highest over lowest value from which an axis is logarithmic
_LABEL = 60  # characters


def draw_sweep(members: Sequence[SweepMember], path: str | Path) -> bool:
    """Draw the scores of a grid; returns whether there were any.

    Where a parameter other than the fold is numeric: the score over it, a line for each choice of the others (means
    over folds; dots are members). Otherwise a bar for each choice, best on top, with its members as dots.
    """
    table = member_table(members)
    keys = [key for key in varied(members) if key != FOLD] or varied(members)
    table = table[table.score.notna()]
    if table.empty:
        return False
    numeric = [key for key in keys if key != FOLD and table[key].nunique() > 1 and _numbers(table[key]) is not None]
    axis = max(numeric, key=lambda key: table[key].nunique(), default=None)
    labels = _labels(table, [key for key in keys if key != axis])
    if axis is not None and labels.nunique() <= _LINES:
        figure = _figure(7.5, 4.5)
        _over(figure.add_subplot(), table, axis, labels)
    else:
        labels = _labels(table, keys)
        figure = _figure(8.0, 1.2 + 0.34 * labels.nunique())
        scores = {str(label): table.score[labels == label].tolist() for label in labels.unique()}
        _bars(figure.add_subplot(), scores, members[0].mode)
        figure.axes[0].set_xlabel(_score_name(table))
    _save(figure, path)
    return True


def draw_search(
    members: Sequence[SweepMember], keys: Sequence[str], importances: Mapping[str, float], path: str | Path
) -> bool:
    """Draw a search: the score of each trial with the best so far, the importance of each parameter (shares, where
    known), and the score over each, most important first. Crosses are pruned trials. Returns whether any was scored.
    """
    table = member_table(members).sort_values("member")
    table = table[table.score.notna()]
    if table.empty:
        return False
    shown = sorted(keys, key=lambda key: -importances.get(key, 0.0))[:_PANELS]
    panels = 1 + bool(importances) + len(shown)
    columns = 2 if panels == 4 else min(panels, 3)
    rows = -(-panels // columns)
    figure = _figure(4.8 * columns, 3.8 * rows)
    _history(figure.add_subplot(rows, columns, 1), table, members[0].mode)
    if importances:
        axes = figure.add_subplot(rows, columns, 2)
        _bars(axes, {key: [share] for key, share in importances.items()}, "max")
        axes.set_xlabel("importance (share of the score's variance)")
    for place, key in enumerate(shown, 2 + bool(importances)):
        axes = figure.add_subplot(rows, columns, place)
        values = _numbers(table[key])
        _dots(axes, table[key].to_numpy(str) if values is None else values, table)
        _scale(axes, key, values)
        axes.set_ylabel(_score_name(table))
    _save(figure, path)
    return True


def _over(axes: Axes, table: pd.DataFrame, key: str, labels: pd.Series) -> None:
    values = _numbers(table[key])
    assert values is not None
    for label, lines in table.assign(x=values).groupby(labels, sort=True):
        means = lines.groupby("x").score.mean()
        (drawn,) = axes.plot(means.index, means, "-", label=str(label))
        axes.plot(lines.x, lines.score, "o", ms=4, color=drawn.get_color())
    _scale(axes, key, values)
    axes.set_ylabel(_score_name(table))
    if labels.nunique() > 1:
        axes.legend()


def _bars(axes: Axes, scores: Mapping[str, Sequence[float]], mode: str) -> None:
    means = {label: float(np.mean(values)) for label, values in scores.items()}
    order = sorted(means, key=lambda label: means[label], reverse=mode == "min")  # the last is on top
    axes.barh(range(len(order)), [means[label] for label in order], color="tab:blue", alpha=0.5)
    for place, label in enumerate(order):
        if len(scores[label]) > 1:
            axes.plot(scores[label], [place] * len(scores[label]), "o", ms=4, color="tab:blue")
    axes.set_yticks(range(len(order)), [label[:_LABEL] for label in order])
    axes.grid(axis="x", alpha=0.3)


def _history(axes: Axes, table: pd.DataFrame, mode: str) -> None:
    finished = table[table.status != PRUNED]
    best = finished.score.cummax() if mode == "max" else finished.score.cummin()
    _dots(axes, table.member.to_numpy(float), table)
    axes.step(finished.member, best, where="post", color="tab:orange", label="best so far")
    axes.set(xlabel="trial", ylabel=_score_name(table))
    axes.grid(alpha=0.3)
    axes.legend()


def _dots(axes: Axes, x: Floats | NDArray[np.str_], table: pd.DataFrame) -> None:
    pruned = (table.status == PRUNED).to_numpy()
    axes.plot(x[~pruned], table.score[~pruned], "o", ms=4, color="tab:blue", label="trials")
    if pruned.any():
        axes.plot(x[pruned], table.score[pruned], "x", ms=5, color="tab:gray", label="pruned")


def _scale(axes: Axes, key: str, values: Floats | None) -> None:
    axes.set_xlabel(key)
    axes.grid(alpha=0.3)
    if values is not None and values.min() > 0 and values.max() / values.min() >= _DECADE:
        axes.set_xscale("log")


def _labels(table: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """Return the label of a line or a bar: the values of the keys, numbers with their key."""
    texts = [[_short(key, value) for key, value in zip(keys, row, strict=True)] for row in table[[*keys]].to_numpy()]
    return pd.Series([", ".join(parts) for parts in texts], index=table.index, dtype=object)


def _short(key: str, value: str) -> str:
    return value if _numbers(pd.Series([value])) is None else f"{key.rpartition('.')[2]} {value}"


def _numbers(column: pd.Series) -> Floats | None:
    """Convert a column to numbers; None where a value is not one."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return None if np.isnan(values).any() else values


def _score_name(table: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(table.monitor)) or "score"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # half a second, and only at the end of a sweep

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)

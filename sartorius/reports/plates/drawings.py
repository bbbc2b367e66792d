"""Drawings of plates: heat maps of wells, and growth curves."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sartorius.reports.figures import COLOURS, Plot, colours, draw
from sartorius.reports.plates.names import position

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24)}  # wells: (rows, columns)
_LETTERS = "ABCDEFGHIJKLMNOP"
_GREY = COLOURS[-1]
_OVERLAID = len(COLOURS) - 1  # curves that share a panel
_LABELS = {
    "cells": "cells an image", "confluence": "confluence", "mean_area": "mean area, pixels",
    "cells_per_mm2": "cells a mm²", "doubling_hours": "doubling time, hours",
}  # fmt: skip


def label_of(measure: str) -> str:
    """Name a measure in words, with its unit."""
    return _LABELS.get(measure) or f"cells an image, {measure.removeprefix('cells_')}"


def _title_of(measure: str) -> str:
    return label_of(measure)[0].upper() + label_of(measure)[1:]


def format_of(wells: Sequence[str], chosen: int | None = None) -> tuple[int, int] | None:
    """Return rows and columns of the smallest plate that holds the wells, or of the chosen one.

    None where they are not all on it, or have other names.
    """
    places = [position(well) for well in wells]
    for rows, columns in FORMATS.values() if chosen is None else [FORMATS[chosen]]:
        if all(place is not None and place[0] < rows and place[1] < columns for place in places):
            return rows, columns
    return None


def heat_map(
    plate: str, measure: str, values: Mapping[str, float], shape: tuple[int, int], when: str, folder: Path | None
) -> Plot:
    """Draw the wells of a plate as circles coloured by their values; wells without one stay empty.

    when: of the title, "" or " at 12 h".
    """
    low, high = min(values.values()), max(values.values())
    title = f"{_title_of(measure)}{f', plate {plate}' if plate else ''}{when}"
    alt = f"Heat map of {len(values)} wells, {label_of(measure)}: {_number(measure, low)} to {_number(measure, high)}"
    paint = partial(_paint_wells, measure=measure, values=values, shape=shape)
    return draw(_name("heat", measure, plate), title, alt, paint, folder, _size(shape, bar=1.0))


def curves(
    plate: str, measure: str, wells: pd.DataFrame, shape: tuple[int, int] | None, folder: Path | None
) -> Plot | None:
    """Draw the mean over fields against time, with its interval; many wells at their places on the plate.

    wells: rows of one plate and measure, of `tables.wells_of`. None where there is but one time.
    """
    if wells.time.nunique() < 2:
        return None
    lines = {str(well): group for well, group in wells.groupby("well", sort=False)}
    title = f"{_title_of(measure)} by time{f', plate {plate}' if plate else ''}"
    alt = f"{label_of(measure)} of {len(lines)} wells over {wells.time.min():g} to {wells.time.max():g} hours"
    name = _name("curves", measure, plate)
    if len(lines) <= _OVERLAID or shape is None:
        return draw(name, title, alt, partial(_paint_curves, lines=lines, unit=label_of(measure)), folder)
    top = float(np.nanmax(wells[["mean", "high"]].to_numpy(float))) or 1.0
    span = float(wells.time.min()), float(wells.time.max())
    title += f": each from {span[0]:g} to {span[1]:g} h and 0 to {_number(measure, top)}"
    paint = partial(_paint_small_curves, lines=lines, shape=shape, span=span, top=top)
    return draw(name, title, alt, paint, folder, _size(shape))


def _name(kind: str, measure: str, plate: str) -> str:
    full = f"{kind}_{measure}{f'_{plate}' if plate else ''}"
    name = re.sub(r"[^A-Za-z0-9_-]", "-", full)[:80]
    return name if name == full else f"{name}_{zlib.crc32(full.encode()):08x}"  # two plates may be alike so far


def _number(measure: str, value: float) -> str:
    if measure == "confluence":
        return f"{value:.0%}"
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _unit(shape: tuple[int, int]) -> float:
    """Inches between two wells."""
    return min(0.72, max(0.34, 7 / (shape[1] + 1)))


def _size(shape: tuple[int, int], bar: float = 0.0) -> tuple[float, float]:
    unit = _unit(shape)
    return max(4.6, unit * (shape[1] + 1) + bar), unit * (shape[0] + 1)


def _paint_grid(axes: Axes, shape: tuple[int, int], well: Callable[[int, int], None], right: float) -> None:
    """Write row letters and column numbers, and draw what `well` does at each (row, column); row A is on top."""
    rows, columns = shape
    axes.set(xlim=(-1, columns - 0.5), ylim=(rows - 0.5, -1), aspect="equal", position=(0.01, 0.01, right, 0.98))
    axes.set_axis_off()
    for row in range(rows):
        axes.text(-0.75, row, _LETTERS[row], ha="center", va="center")
        for column in range(columns):
            well(row, column)
    for column in range(columns):
        axes.text(column, -0.75, str(column + 1), ha="center", va="center")


def _paint_wells(axes: Axes, measure: str, values: Mapping[str, float], shape: tuple[int, int]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Circle

    placed = {position(name): value for name, value in values.items()}
    low, high = 0.0 if measure != "doubling_hours" else min(values.values()), max(values.values())
    colour = ScalarMappable(Normalize(low, high if high > low else low + 1), "viridis")
    points = 72 * _unit(shape) * 0.26

    def well(row: int, column: int) -> None:
        value = placed.get((row, column))
        if value is None:
            axes.add_patch(Circle((column, row), 0.44, fill=False, edgecolor=_GREY, linewidth=0.6))
            return
        face = colour.to_rgba(np.array(value))
        ink = "#ffffff" if np.dot(face[:3], (0.299, 0.587, 0.114)) < 0.5 else "#000000"  # ITU-R BT.601
        axes.add_patch(Circle((column, row), 0.44, facecolor=face, edgecolor="none"))
        axes.text(column, row, _number(measure, value), ha="center", va="center", color=ink, fontsize=min(11, points))

    _paint_grid(axes, shape, well, right=0.87)
    assert axes.figure is not None
    bar = axes.figure.colorbar(colour, cax=axes.inset_axes((1.03, 0.05, 0.025, 0.85)))
    bar.outline.set_visible(False)
    if measure == "confluence":
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _paint_curves(axes: Axes, lines: Mapping[str, pd.DataFrame], unit: str) -> None:
    many = len(lines) > _OVERLAID
    for (name, line), colour in zip(lines.items(), colours([*lines]).values(), strict=True):
        shade = _GREY if many else colour
        axes.plot(line.time, line["mean"], "-" if many else ".-", color=shade, label=None if many else name, lw=1.2)
        if not many:
            axes.fill_between(line.time, line.low, line.high, color=shade, alpha=0.18, linewidth=0)
    axes.set(xlabel="hours", ylabel=unit, ylim=(0, None))
    if unit == "confluence":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if not many:
        axes.legend()


def _paint_small_curves(
    axes: Axes, lines: Mapping[str, pd.DataFrame], shape: tuple[int, int], span: tuple[float, float], top: float
) -> None:
    from matplotlib.patches import Rectangle

    placed = {position(name): line for name, line in lines.items()}

    def well(row: int, column: int) -> None:
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=_GREY, linewidth=0.4))
        if (line := placed.get((row, column))) is None:
            return
        x = column - 0.44 + 0.88 * (line.time - span[0]) / math.fsum((span[1], -span[0]))
        mean, low, high = (row + 0.44 - 0.88 * line[name] / top for name in ("mean", "low", "high"))
        axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.plot(x, mean, color=COLOURS[0], linewidth=1.0)

    _paint_grid(axes, shape, well, right=0.98)

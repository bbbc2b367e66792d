"""The mouse in the window of `correct`: a click chooses a cell, a stroke is for the tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.structures.arrays import Floats

if TYPE_CHECKING:
    from sartorius.napari_plugin.window import CorrectionWindow

_BRUSHES = ("paint", "erase")


def follow(window: CorrectionWindow, event: Any) -> Iterator[None]:
    """Follow the mouse from a press to its release, as napari asks its callbacks to; without a tool napari pans."""
    canvas, tool = window.canvas, window.tool
    width = 2 * window.panel.brush.value() if tool is not None and tool.name in _BRUSHES else 2
    points, more = [_place(window, event)], "Shift" in event.modifiers
    yield
    while event.type == "mouse_move":
        points.append(_place(window, event))
        if tool is not None:
            canvas.draw_stroke(np.array(points), width)
        yield
    canvas.draw_stroke(np.zeros((0, 2)))
    if tool is not None:
        window.attempt(lambda: window.stroke(np.array(points)))
    elif len(points) == 1:
        row, column = np.rint(points[0]).astype(int).tolist()
        window.choose(row, column, more)


def _place(window: CorrectionWindow, event: Any) -> Floats:
    """Return row and column of the mouse, pixel centres at whole numbers."""
    return np.asarray(window.canvas.cells.world_to_data(event.position)[-2:], float)

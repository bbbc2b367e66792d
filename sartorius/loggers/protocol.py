"""What callbacks ask of the run's loggers beside numbers: who can show it, and at which step.

A logger that shows more than numbers has one or more of these, each with the `step` it belongs to:

    log_image(key, images, step)            RGB images, uint8 [H, W, 3]
    log_cells(key, view, step)              a `CellsView`
    log_lines(key, title, lines, axes, step)    lines by name, each (x, y); axes: what both axes are
    log_table(key, columns, data, step)     rows of numbers, texts and RGB images
    log_files(name, kind, paths, metadata)  files and folders
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer

from sartorius.structures.instances import Instances
from sartorius.visualise.overlays import stretched

Lines = Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]


@dataclass(frozen=True)
class CellsView:
    """An image to be shown with its true and predicted cells.

    image: uint8 [H, W]. truth, found: cells of that size; scores: float32 [N] of `found`. names: of the cell types.
    caption: a line of text.
    """

    image: NDArray[np.uint8]
    truth: Instances
    found: Instances
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    caption: str

    def stretched(self) -> NDArray[np.uint8]:
        """The image uint8 [H, W] from black to white: phase contrast is mostly mid-grey."""
        return stretched(self.image)


def loggers_with(trainer: Trainer, method: str) -> list[Any]:
    """The loggers that have the method, the same in every process."""
    return [logger for logger in trainer.loggers if hasattr(logger, method)]


def logged_step(trainer: Trainer) -> int:
    """The step under which Lightning logs now: batches that ended in an optimizer step so far."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped

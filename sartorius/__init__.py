"""Finds every single neuron in a label-free microscope image.

import sartorius
model = sartorius.load("best.ckpt")
cells = model(image)                 # an array [H, W] or [H, W, C] of any number type
cells.labels, cells.table(pixel_size=0.65), cells.save("cells.zip")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sartorius.structures.version import VERSION as __version__

if TYPE_CHECKING:
    from sartorius.running.model import Model

__all__ = ["__version__", "load"]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing albumentations asks the network for a newer one


def load(checkpoint: str | Path | None, *options: str, device: str = "auto") -> Model:
    """Load a trained model, a function that turns an image into its cells.

    options: as after `sartorius predict`: "inference=tiles", "tta=d4", "postprocess.score.threshold.cort=0.4",
    "filter=FILE", "overlaps=keep", "channel=0". checkpoint: a file of `sartorius train` or of
    `sartorius export`, or "builtin"; None with the options of two stages. device: cpu, gpu, mps, or auto for the best
    there is.

    Raises InputError as the command does, and Hydra's own errors for options and groups that there are not.
    """
    from sartorius.running.model import Model

    return Model(checkpoint, options, device)

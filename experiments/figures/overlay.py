"""Draws overlay.png, the image of the README: a generated image of each cell type, with its cells.

python experiments/figures/overlay.py [FOLDER of `sartorius.prepare source=synthetic`]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sartorius.data.competition.folder import Competition
from sartorius.structures.cell_types import CELL_TYPES, HEIGHT, WIDTH
from sartorius.visualise.overlays import draw_overlay

SIDE = 170  # pixels of an image that are shown, both ways, from its middle
SCALE = 2


def panel(competition: Competition, cell_type: str) -> NDArray[np.uint8]:
    """The image of a type with the most cells in its middle: left half as it is, right half with its true cells."""
    named = [name for name in competition.ids if competition.record(name).cell_type == cell_type]
    top, left = (HEIGHT - SIDE) // 2, (WIDTH - SIDE) // 2
    middle = (slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
    image_id = max(named, key=lambda name: len(np.unique(competition.instances(name).layers[middle])))
    image, cells = competition.image(image_id), competition.instances(image_id)
    plain, drawn = (draw_overlay(image, c, labels=False, scale=SCALE, opacity=0.35) for c in (cells.select([]), cells))
    drawn[:, : SCALE * WIDTH // 2] = plain[:, : SCALE * WIDTH // 2]
    return drawn[SCALE * top : SCALE * (top + SIDE), SCALE * left : SCALE * (left + SIDE)]


def main(folder: str = "data/synthetic") -> None:
    """One column a cell type."""
    competition = Competition(folder)
    joined = np.concatenate([panel(competition, cell_type) for cell_type in CELL_TYPES], axis=1)
    Image.fromarray(joined).quantize(256, Image.Quantize.MAXCOVERAGE).save(
        Path(__file__).with_name("overlay.png"), optimize=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

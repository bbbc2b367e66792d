"""One generated image with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.rle import Runs
from sartorius.synthetic.cells import POPULATIONS, Cell
from sartorius.synthetic.neurites import add_neurites
from sartorius.synthetic.optics import GRAINS, IMAGING, add_cell, add_debris, photograph, texture
from sartorius.synthetic.placement import place_cells, window

SMALLEST = 32  # pixels; the smallest height and width


@dataclass(frozen=True)
class Appearance:
    """Settings that all images of a folder share.

    Attributes:
        height, width: pixels, at least 32; the number of cells is in proportion to the area.
        contrast: factor on everything that is drawn; 1 gives the grey levels of the real images.
        noise: standard deviation of the sensor's noise, grey levels.
        unevenness: standard deviation of the background, grey levels.
        debris: factor on the number of dots and heaps.

    Raises InputError for a value out of its range.
    """

    height: int = HEIGHT
    width: int = WIDTH
    contrast: float = 1.0
    noise: float = 1.5
    unevenness: float = 0.6
    debris: float = 1.0

    def __post_init__(self) -> None:
        checks.numbers("source", SMALLEST, height=self.height, width=self.width)
        checks.numbers(
            "source", 0, contrast=self.contrast, noise=self.noise, unevenness=self.unevenness, debris=self.debris
        )


@dataclass(frozen=True)
class SyntheticImage:
    """image: uint8 [H, W]; runs: the annotated masks, overlaps kept, none empty."""

    image: GreyImage
    runs: Runs


def draw_image(
    rng: np.random.Generator,
    well_rng: np.random.Generator,
    cell_type: str,
    levels: tuple[float, float],
    appearance: Appearance,
) -> SyntheticImage:
    """Draw an image of `cell_type`.

    `levels` in [0, 1] are the image's ranks among images of its type: in its number of cells, and in their size.
    `well_rng` draws what all images of a plate well share (contrast, noise), `rng` the rest.
    """
    height, width = appearance.height, appearance.width
    population, imaging = POPULATIONS[cell_type], IMAGING[cell_type]
    contrast, noise, grain = np.exp(well_rng.normal(0, (0.12, 0.15, 0.2)))
    count = population.count(levels[0], height, width)
    areas = population.areas(rng, count, count * 520 * 704 / (height * width), 3.2 * (levels[1] - 0.5))
    cells = place_cells(rng, population, areas, height, width)
    field = np.zeros((height, width), np.float32)
    grains = texture(rng, height, width, GRAINS)
    add_neurites(rng, field, grains, cells, imaging)
    for cell in cells:
        add_cell(rng, field, grains, cell, imaging, imaging.grain * grain)
    add_debris(rng, field, imaging, appearance.debris)
    image = photograph(rng, field, appearance.contrast * contrast, appearance.noise * noise, appearance.unevenness)
    return SyntheticImage(image, cells_to_runs(cells, height, width))


def cells_to_runs(cells: list[Cell], height: int, width: int) -> Runs:
    """Convert the annotated masks of placed cells, clipped at the image's edge, to runs."""
    pixels = []
    for cell in cells:
        (rows, columns), crop = window(cell, height, width)
        y, x = np.nonzero(cell.mask[crop])
        pixels.append((y + rows.start) * width + x + columns.start)
    flat = np.concatenate([np.zeros(0, np.int64), *pixels]).astype(np.int64)
    owner = np.repeat(np.arange(len(cells)), [len(p) for p in pixels])
    new = np.ones(len(flat), bool)
    new[1:] = (np.diff(flat) != 1) | (np.diff(owner) != 0)
    first = np.flatnonzero(new)
    return Runs(flat[first], np.diff(first, append=len(flat)), owner[first], len(cells), height, width)

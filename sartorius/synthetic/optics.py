"""Phase-contrast imaging of generated cells: a map of optical thickness, and the microscope's filter over it.

Phase contrast shows differences of thickness. Cells, neurites and debris are added to one thickness map, and the image
is the mean grey plus the map's surroundings (a sum of blurs, `SURROUNDINGS`) less the map. That one filter makes the
bright halo around a body, the dark rim inside it, and the middle of a flat cell nearly as grey as the background, as in
the real images (whose mean is 128 everywhere; 2 to 3 px inside the annotated outline they have -4 to -15 grey levels,
on the outline +2 to +10, and nothing is left of both 4 px outside).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.structures.arrays import Bools, Floats, GreyImage, Plane
from sartorius.synthetic.cells import Cell
from sartorius.synthetic.placement import window

SHARP = 0.4  # px, sigma of the point spread
SURROUNDINGS = ((1.0, 0.6), (2.0, 0.4))  # px and share of the light that is taken away
SHADE = (0.4, 1.2)  # range of the factor on the slope to one side
NOISE = ((0.45, 1.0), (1.4, -0.6))  # px and weight of the blurs whose sum has the spectrum of an empty real background
GRAINS = ((0.6, 1.0), (1.6, 0.8))  # the same of the grains inside cells
DARKEST = 3  # grey level below which no real image goes
GREY = 128.0  # mean grey level of every real image


@dataclass(frozen=True)
class Imaging:
    """Imaging parameters of one cell type; thickness is in grey levels before the filter.

    Attributes:
        thickness: median of a cell's thickness; `shapes` holds a factor on it for each shape (1 by default).
        spread: standard deviation of log thickness between cells.
        grain: standard deviation of the texture inside a cell, in grey levels before the filter.
        ramp: pixels over which a cell rises from its edge; `inset`: pixels between the annotated outline and that
            edge, as annotators draw around the halo.
        nucleus: thickness of the nucleus, as a share of the cell's; `granules`: mean number of dots in 200 px of cell.
        neurites: mean number that leaves a cell, along its axis or `neurite_spread` radians off, `neurite_length` px
            long (mean); `neurite_thickness` of the strongest; `beads`: dots on 100 px of them.
        links: mean number of neurites that join a cell to a neighbour at most `link_reach` px away, each a bundle of
            `bundle` lines (mean).
        hubs: heaps without a cell that neurites leave too, in an image of 520 x 704 pixels.
        free_neurites: neurites from anywhere in such an image.
        dots: round debris in it, of median radius `dot_size` px; `specks`: the smallest; `clumps`: heaps of granules.
    """

    thickness: float
    spread: float
    grain: float
    ramp: float
    inset: float
    nucleus: float
    granules: float
    neurites: float
    neurite_spread: float
    neurite_length: float
    neurite_thickness: float
    beads: float
    links: float
    link_reach: float
    bundle: float
    hubs: float
    free_neurites: float
    dots: float
    dot_size: float
    dot_thickness: float
    specks: float
    clumps: float
    shapes: dict[str, float] = dataclasses.field(default_factory=dict)


# Set beside the real images, by eye and by the table of experiments/compare_generated.py.
IMAGING: dict[str, Imaging] = {
    "cort": Imaging(
        thickness=225, spread=0.3, grain=24, ramp=1.8, inset=0.7, nucleus=0.5, granules=0.6,
        neurites=9, neurite_spread=2.5, neurite_length=42, neurite_thickness=130, beads=5,
        links=0.8, link_reach=200, bundle=3, hubs=7, free_neurites=260,
        dots=190, dot_size=2.3, dot_thickness=200, specks=450, clumps=8,
    ),
    "shsy5y": Imaging(
        thickness=110, spread=0.4, grain=15, ramp=2.0, inset=0.9, nucleus=-0.1, granules=0.4,
        neurites=1.1, neurite_spread=0.5, neurite_length=28, neurite_thickness=150, beads=0.6,
        links=1.9, link_reach=60, bundle=1, hubs=0, free_neurites=150,
        dots=8, dot_size=3.0, dot_thickness=150, specks=60, clumps=12, shapes={"round": 1.5, "corners": 0.9},
    ),
    "astro": Imaging(
        thickness=55, spread=0.6, grain=13, ramp=1.0, inset=1.2, nucleus=-0.2, granules=2.0,
        neurites=0.0, neurite_spread=0.3, neurite_length=60, neurite_thickness=50, beads=0,
        links=0.0, link_reach=0, bundle=0, hubs=0, free_neurites=0.0,
        dots=30, dot_size=3.6, dot_thickness=150, specks=70, clumps=4, shapes={"sheet": 0.45, "round": 2.5},
    ),
}  # fmt: skip


def texture(rng: np.random.Generator, height: int, width: int, blurs: tuple[tuple[float, float], ...]) -> Plane:
    """Draw noise float32 [height, width] with mean 0 and standard deviation 1: a sum of `blurs` (px, weight)."""
    white = rng.standard_normal((height, width), dtype=np.float32)
    noise = np.zeros_like(white)
    for sigma, weight in blurs:
        noise += weight * cv2.GaussianBlur(white, (0, 0), sigma)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)


def add_cell(rng: np.random.Generator, field: Plane, grains: Plane, cell: Cell, imaging: Imaging, grain: float) -> None:
    """Add a cell to the thickness map `field` float32 [H, W] in place: a plateau, a soft edge, grains, a nucleus."""
    factor = float(np.exp(imaging.spread * rng.standard_normal()))
    height = imaging.thickness * imaging.shapes.get(cell.shape, 1.0) * factor
    depth = cv2.distanceTransform(cell.body.astype(np.uint8), cv2.DIST_L2, 3)
    depth = np.maximum(depth - min(imaging.inset, 0.5 * float(depth.max())), 0)
    inner = np.argwhere(depth > 0.7 * depth.max())
    y0, x0 = inner[int(rng.integers(len(inner)))]
    radius = float(np.clip(0.65 * depth.max(), 2.0, 7.0))
    y, x = np.ogrid[: depth.shape[0], : depth.shape[1]]
    nucleus = np.exp(-((((y - y0) ** 2 + (x - x0) ** 2) / radius**2) ** 4))
    profile = (1 - np.exp(-depth / imaging.ramp)) * (1 + imaging.nucleus * nucleus)
    region, crop = window(cell, *field.shape)
    rough = grain * np.sqrt(factor) * np.minimum(depth, 1)
    field[region] += height * profile[crop] + rough[crop] * grains[region]
    inside = np.argwhere(depth > 1)
    area = len(inside)
    inside = inside[np.hypot(*(inside - (y0, x0)).T) < rng.uniform(1.0, 6.0) * radius]
    number = imaging.granules * area / 200 * float(np.exp(rng.normal(-0.5, 1.0)))
    for row, column in inside[rng.integers(0, max(len(inside), 1), rng.poisson(number))] if len(inside) else ():
        size, sign = rng.uniform(0.8, 1.7), rng.choice((1.0, -0.6), p=(0.7, 0.3))
        add_spot(field, cell.left + column, cell.top + row, size, sign * rng.uniform(40, 170))


def add_spot(field: Plane, x: float, y: float, size: float, thickness: float) -> None:
    """Add a dot with a steep edge of radius `size` pixels at (x, y); clipped at the image's edge."""
    reach = int(np.ceil(1.7 * size)) + 1
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    part = field[y0 : max(int(y) + reach + 1, 0), x0 : max(int(x) + reach + 1, 0)]
    row, column = np.ogrid[: part.shape[0], : part.shape[1]]
    part += thickness * np.exp(-((((row + y0 - y) ** 2 + (column + x0 - x) ** 2) / size**2) ** 3))


def add_debris(rng: np.random.Generator, field: Plane, imaging: Imaging, amount: float) -> None:
    """Add debris to `field` in place, `amount` times the usual: dots in ones to threes, heaps of granules, specks."""
    height, width = field.shape
    share = amount * height * width / (520 * 704)
    singles = rng.choice((1, 1, 1, 2, 3), rng.poisson(imaging.dots * share / 1.6))
    groups = [(int(n), imaging.dot_size, 0.25) for n in singles]
    groups += [(int(n), 2.6, 0.6) for n in rng.integers(3, 14, rng.poisson(imaging.clumps * share))]
    for number, scale, bright in groups:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        for dx, dy in rng.normal(0, 0.8 * scale * np.sqrt(number - 0.5), (number, 2)):
            size = scale * float(np.exp(rng.normal(0, 0.25)))
            thickness = imaging.dot_thickness * float(np.exp(rng.normal(0, 0.3)))
            add_spot(field, x + dx, y + dy, size, thickness)
            if size > 2.2:  # a rim around a kernel, which is a bright vesicle or dark
                kernel = -1.3 if rng.random() < bright else rng.uniform(-0.6, 0.6)
                add_spot(field, x + dx, y + dy, size - 1.2, thickness * kernel)
    for x, y in rng.uniform(0, (width, height), (rng.poisson(imaging.specks * share), 2)):
        add_spot(field, x, y, rng.uniform(0.8, 1.5), imaging.dot_thickness * rng.uniform(0.15, 0.8))


def photograph(rng: np.random.Generator, field: Plane, contrast: float, noise: float, unevenness: float) -> GreyImage:
    """Draw the image uint8 [H, W] of a thickness map.

    `contrast` multiplies the map; `noise` is the sensor's standard deviation and `unevenness` that of the background,
    in grey levels. A shade to one side, as in the real images, is drawn at random.
    """
    height, width = field.shape
    near, far = (cv2.GaussianBlur(field, (0, 0), sigma) for sigma, _ in SURROUNDINGS)
    filtered = SURROUNDINGS[0][1] * near + SURROUNDINGS[1][1] * far - cv2.GaussianBlur(field, (0, 0), SHARP)
    shade = rng.uniform(0, 2 * np.pi)
    down, right = np.gradient(near - far)
    filtered += rng.uniform(*SHADE) * (np.cos(shade) * right + np.sin(shade) * down)
    background = cv2.resize(texture(rng, 6, 8, ((1.0, 1.0),)), (width, height), interpolation=cv2.INTER_CUBIC)
    grey = GREY + contrast * filtered + unevenness * background + noise * texture(rng, height, width, NOISE)
    return np.asarray(np.clip(np.rint(grey - grey.mean() + GREY), DARKEST, 255), np.uint8)


def bodies(cells: list[Cell], height: int, width: int) -> Bools:
    """Return the pixels of any cell's body: bool [H, W]."""
    covered = np.zeros((height, width), bool)
    for cell in cells:
        region, crop = window(cell, height, width)
        covered[region] |= cell.body[crop]
    return covered


def middle(cell: Cell) -> Floats:
    """Return the middle (x, y) of a cell's body in the image, float64 [2]."""
    y, x = np.nonzero(cell.body)
    return np.array([cell.left + x.mean(), cell.top + y.mean()])

"""Phase-contrast imaging of generated cells: a map of optical thickness, and the microscope's filter over it.

Phase contrast shows differences of thickness. Cells, neurites and debris are added to one thickness map, and the image
is the mean grey plus the map's surroundings (a sum of blurs, `SURROUNDINGS`) less the map. That one filter makes the
bright halo around a body, the dark rim inside it, and the middle of a flat cell nearly as grey as the background, as in
the real images (whose mean is 128 everywhere, and whose edges have about -5 to -16 grey levels 3 px inside the mask and
+4 to +11 on its border).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.structures.arrays import GreyImage, Plane, Points
from sartorius.synthetic.cells import Cell
from sartorius.synthetic.placement import window

SHARP = 0.55  # px, sigma of the point spread
SURROUNDINGS = ((1.15, 0.67), (2.6, 0.28), (9.0, 0.05))  # px and share of the light that is taken away
GRAIN_SIZE = 1.0  # px, sigma of the grains inside cells
DARKEST = 3  # grey level below which no real image goes
GREY = 128.0  # mean grey level of every real image


@dataclass(frozen=True)
class Imaging:
    """Imaging parameters of one cell type; thickness is in grey levels before the filter.

    Attributes:
        thickness: median of a cell's thickness; `shapes` holds a factor on it for each shape (1 by default).
        spread: standard deviation of log thickness between cells.
        grain: standard deviation of the texture inside a cell, as a share of its thickness.
        ramp: pixels over which a cell rises from its edge.
        nucleus: thickness of the nucleus, as a share of the cell's; `nucleoli`: mean number of dark dots near it.
        neurites: mean number that leaves a cell, along its axis or `neurite_spread` radians off; the first three
            are `neurite_length` px long (mean), the others 0.4 of it; `neurite_thickness` of the strongest.
        free_neurites: neurites from anywhere, for each cell.
        dots: round debris in an image of 520 x 704 pixels; `clumps`: heaps of granules in it.
    """

    thickness: float
    spread: float
    grain: float
    ramp: float
    nucleus: float
    nucleoli: float
    neurites: float
    neurite_spread: float
    neurite_length: float
    neurite_thickness: float
    free_neurites: float
    dots: float
    clumps: float
    shapes: dict[str, float] = dataclasses.field(default_factory=dict)


# Set by eye beside real images and by their grey levels (standard deviation 12-20 cort, 12-14 shsy5y, 6-11 astro).
IMAGING: dict[str, Imaging] = {
    "cort": Imaging(
        thickness=225, spread=0.25, grain=0.27, ramp=2.0, nucleus=0.3, nucleoli=0.4,
        neurites=8.0, neurite_spread=2.0, neurite_length=110, neurite_thickness=80, free_neurites=6.0,
        dots=170, clumps=6,
    ),
    "shsy5y": Imaging(
        thickness=185, spread=0.25, grain=0.18, ramp=2.3, nucleus=0.15, nucleoli=0.2,
        neurites=1.6, neurite_spread=0.25, neurite_length=38, neurite_thickness=65, free_neurites=0.1,
        dots=10, clumps=20, shapes={"round": 1.4, "corners": 0.85},
    ),
    "astro": Imaging(
        thickness=175, spread=0.35, grain=0.14, ramp=3.5, nucleus=0.1, nucleoli=1.2,
        neurites=0.0, neurite_spread=0.3, neurite_length=60, neurite_thickness=50, free_neurites=0.0,
        dots=25, clumps=4, shapes={"sheet": 0.6, "star": 0.9},
    ),
}  # fmt: skip


def texture(rng: np.random.Generator, height: int, width: int, sigma: float) -> Plane:
    """Draw smooth noise float32 [height, width] with mean 0 and standard deviation 1; `sigma` in pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), sigma)
    return np.asarray(noise / max(float(noise.std()), 1e-6), np.float32)


def add_cell(rng: np.random.Generator, field: Plane, grains: Plane, cell: Cell, imaging: Imaging, grain: float) -> None:
    """Add a cell to the thickness map `field` float32 [H, W] in place: a plateau, a soft edge, grains, a nucleus."""
    height = (
        imaging.thickness * imaging.shapes.get(cell.shape, 1.0) * float(np.exp(imaging.spread * rng.standard_normal()))
    )
    depth = cv2.distanceTransform(cell.body.astype(np.uint8), cv2.DIST_L2, 3)
    inner = np.argwhere(depth > 0.7 * depth.max())
    y0, x0 = inner[int(rng.integers(len(inner)))]
    radius = float(np.clip(0.6 * depth.max(), 2.0, 7.0))
    y, x = np.ogrid[: depth.shape[0], : depth.shape[1]]
    nucleus = np.exp(-((((y - y0) ** 2 + (x - x0) ** 2) / radius**2) ** 2))
    profile = (1 - np.exp(-depth / imaging.ramp)) * (1 + imaging.nucleus * nucleus)
    region, crop = window(cell, *field.shape)
    spots = np.maximum(np.abs(grains[region]) - 1.1, 0) * np.sign(grains[region]) + 0.25 * grains[region]
    field[region] += height * (profile[crop] + grain * (depth > 1.5)[crop] * spots)
    for _ in range(rng.poisson(imaging.nucleoli)):
        away = rng.normal(0, 0.4 * radius, 2)
        _add_spot(field, cell.left + x0 + away[0], cell.top + y0 + away[1], rng.uniform(0.9, 1.4), 0.7 * height)


def neurite_path(rng: np.random.Generator, start: tuple[float, float], heading: float, length: float) -> Points:
    """Draw a winding line from `start` (x, y): float64 [P, 2], of mean `length` pixels (gamma distributed)."""
    step = 5.0
    steps = 2 + rng.poisson(rng.gamma(2.0, length / step / 2))
    turns = heading + np.cumsum(rng.normal(0, 0.11, steps))
    moves = step * np.stack([np.cos(turns), np.sin(turns)], 1)
    return np.asarray(start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)]))


def _leaving_point(cell: Cell, heading: float) -> tuple[float, float]:
    """Return the point where a ray from the middle of a cell's crop leaves its body: (x, y) in the image."""
    rows, columns = cell.body.shape
    reach = np.arange(min(rows, columns) / 2)
    x, y = columns / 2 + reach * np.cos(heading), rows / 2 + reach * np.sin(heading)
    inside = np.flatnonzero(cell.body[y.astype(int), x.astype(int)])
    last = inside[-1] if len(inside) else 0
    return cell.left + float(x[last]), cell.top + float(y[last])


def add_neurites(rng: np.random.Generator, field: Plane, grains: Plane, cells: list[Cell], imaging: Imaging) -> None:
    """Add thin processes to `field` in place: some from the cells, thicker at their roots, and some from anywhere."""
    height, width = field.shape
    layer = np.zeros((height, width), np.uint8)

    def draw(start: tuple[float, float], heading: float, length: float, root: float) -> None:
        points = np.round(neurite_path(rng, start, heading, length) * 16).astype(np.int32)
        grey = int(255 * rng.uniform(0.3, 1.0))
        cv2.polylines(layer, [points], False, grey, 1, cv2.LINE_AA, 4)
        cv2.polylines(layer, [points[: int(2 + root * len(points))]], False, int(0.55 * grey), 2, cv2.LINE_AA, 4)

    for _ in range(rng.poisson(imaging.free_neurites * len(cells))):
        draw((rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(0, 2 * np.pi), imaging.neurite_length, 0.0)
    for cell in cells:
        for k in range(rng.poisson(imaging.neurites)):
            heading = cell.heading + np.pi * k + rng.normal(0, imaging.neurite_spread)
            draw(_leaving_point(cell, heading), heading, imaging.neurite_length * (1.0 if k < 3 else 0.4), 0.2)
    field += layer * (imaging.neurite_thickness / 255) * np.clip(1 + 0.25 * grains, 0, 2)


def add_debris(rng: np.random.Generator, field: Plane, imaging: Imaging, amount: float) -> None:
    """Add debris to `field` in place, `amount` times the usual: dots in ones to threes, heaps of granules."""
    height, width = field.shape
    share = amount * height * width / (520 * 704)
    groups = [(int(n), 1.6) for n in rng.choice((1, 1, 1, 2, 3), rng.poisson(imaging.dots * share))]
    groups += [(int(n), 1.25) for n in rng.integers(5, 30, rng.poisson(imaging.clumps * share))]
    for number, scale in groups:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        away = rng.normal(0, 1.5 * np.sqrt(number - 0.5), (number, 2))
        for dx, dy in away:
            size = scale * float(np.exp(rng.normal(0, 0.35)))
            thickness = rng.uniform(70, 420) * rng.choice((1.0, -0.5), p=(0.85, 0.15))
            _add_spot(field, x + dx, y + dy, size, float(thickness))


def _add_spot(field: Plane, x: float, y: float, size: float, thickness: float) -> None:
    """Add a dot with a steep edge of radius `size` pixels at (x, y); clipped at the image's edge."""
    reach = int(np.ceil(2.2 * size)) + 1
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    part = field[y0 : max(int(y) + reach + 1, 0), x0 : max(int(x) + reach + 1, 0)]
    row, column = np.ogrid[: part.shape[0], : part.shape[1]]
    part += thickness * np.exp(-((((row + y0 - y) ** 2 + (column + x0 - x) ** 2) / size**2) ** 2))


def photograph(rng: np.random.Generator, field: Plane, contrast: float, noise: float, unevenness: float) -> GreyImage:
    """Draw the image uint8 [H, W] of a thickness map.

    `contrast` multiplies the map; `noise` is the sensor's standard deviation and `unevenness` that of the background,
    in grey levels. A shade to one side, as in the real images, is drawn at random.
    """
    height, width = field.shape
    blurred = [share * cv2.GaussianBlur(field, (0, 0), sigma) for sigma, share in SURROUNDINGS]
    filtered = sum(blurred) - cv2.GaussianBlur(field, (0, 0), SHARP)
    shade = rng.uniform(0, 2 * np.pi)
    down, right = np.gradient(blurred[0])
    filtered += rng.uniform(0.2, 1.6) * (np.cos(shade) * right + np.sin(shade) * down)
    background = cv2.resize(texture(rng, 6, 8, 1.0), (width, height), interpolation=cv2.INTER_CUBIC)
    grey = GREY + contrast * filtered + unevenness * background + noise * texture(rng, height, width, 0.45)
    return np.asarray(np.clip(np.rint(grey - grey.mean() + GREY), DARKEST, 255), np.uint8)

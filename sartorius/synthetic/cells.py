"""Generated cells: their number, areas and outlines.

Numbers of cells, areas and overlaps are those of 500 annotated images of the competition (its `train.csv`);
shapes imitate the cells there. An outline is a closed polygon float64 [P, 2] of (x, y) around (0, 0), with no
scale of its own; `draw_cell` scales it to an area in pixels and rasters it into a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.structures.arrays import Bools, Floats

COUNT_LEVELS = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
MARGIN = 14  # pixels around a cell in its crop: room for a stray piece or a spike of a broken mask


@dataclass(frozen=True)
class Population:
    """Distribution of the cells of one type over images of 520 x 704 pixels.

    Attributes:
        counts: cells an image at the cumulative shares `COUNT_LEVELS`.
        area: median area in pixels of an image with `area_count` cells.
        area_exponent: median area grows as (cells / area_count) ** area_exponent.
        area_between, area_within: standard deviations of log area between images and within one.
        attached: share of cells placed onto the edge of another one.
        overlap: mean overlap of such a cell, in pixels.
        shapes: share of each shape of `OUTLINES`.
        broken: probabilities that an annotated mask has a hole, a straight spike, a stray piece.
    """

    counts: tuple[float, ...]
    area: float
    area_count: float
    area_exponent: float
    area_between: float
    area_within: float
    attached: float
    overlap: float
    shapes: dict[str, float]
    broken: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def count(self, level: float, height: int, width: int) -> int:
        """Count the cells (at least 1) of an image at the cumulative share `level` in [0, 1], scaled to its area."""
        return max(1, round(float(np.interp(level, COUNT_LEVELS, self.counts)) * height * width / (520 * 704)))

    def areas(self, rng: np.random.Generator, count: int, full_count: float, offset: float) -> Floats:
        """Draw areas float64 [count] in pixels; `offset` is the image's own deviation in standard deviations."""
        median = self.area * (full_count / self.area_count) ** self.area_exponent * np.exp(self.area_between * offset)
        spread = np.clip(rng.standard_normal(count), -2.5, 2.8)
        return median * np.exp(self.area_within * spread)


# Measured on the annotations named above: counts, areas, share of broken masks (holes in 26 %, parts connected
# over a corner only in 25 % of the astro masks). attached and overlap were set so that the overlaps agree.
POPULATIONS: dict[str, Population] = {
    "cort": Population(
        counts=(4, 8, 16, 19, 23, 30, 39, 54, 70, 93, 108),
        area=216, area_count=30, area_exponent=0.0, area_between=0.34, area_within=0.37,
        attached=0.15, overlap=14,
        shapes={"round": 1.0},
    ),
    "shsy5y": Population(
        counts=(49, 57, 85, 125, 198, 306, 419, 508, 545, 639, 790),
        area=213, area_count=306, area_exponent=-0.284, area_between=0.26, area_within=0.47,
        attached=0.46, overlap=17,
        shapes={"spindle": 0.35, "corners": 0.5, "round": 0.15},
    ),
    "astro": Population(
        counts=(5, 10, 15, 28, 50, 74, 100, 135, 152, 309, 594),
        area=742, area_count=74, area_exponent=-0.195, area_between=0.36, area_within=0.68,
        attached=0.73, overlap=27,
        shapes={"strip": 0.4, "star": 0.35, "sheet": 0.15, "round": 0.1},
        broken=(0.2, 0.15, 0.04),
    ),
}  # fmt: skip


def _angles(points: int) -> Floats:
    return np.linspace(0, 2 * np.pi, points, endpoint=False)


def _wobble(rng: np.random.Generator, angles: Floats, size: float, orders: int) -> Floats:
    """Draw a smooth closed deviation of about `size`, from harmonics 2 to `orders`."""
    harmonics = np.arange(2, orders + 1)
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    weights = rng.standard_normal(len(harmonics)) * size / np.sqrt(harmonics - 1)
    return np.asarray(np.cos(angles[:, None] * harmonics + phases) @ weights)


def _bumps(angles: Floats, at: Floats, width: float) -> Floats:
    """Return bumps of height 1 at the angles `at`: float64 [P, K]."""
    return np.asarray(np.exp(-(((angles[:, None] - at + np.pi) % (2 * np.pi) - np.pi) ** 2) / (2 * width**2)))


def _polar(angles: Floats, radius: Floats, aspect: float) -> Floats:
    radius = np.maximum(radius, 0.15)
    return np.stack([radius * np.cos(angles) * np.sqrt(aspect), radius * np.sin(angles) / np.sqrt(aspect)], 1)


def round_outline(rng: np.random.Generator) -> Floats:
    """Draw a cell body: nearly round, drawn out a little at the roots of up to two neurites."""
    angles = _angles(40)
    corners = rng.uniform(0, 2 * np.pi, rng.integers(0, 3))
    radius = 1 + _wobble(rng, angles, 0.06, 5) + 0.3 * _bumps(angles, corners, 0.25).sum(1)
    return _polar(angles, radius, 1 + abs(rng.normal(0.15, 0.25)))


def _points(rng: np.random.Generator, angles: Floats, number: int, width: tuple[float, float], height: float) -> Floats:
    """Draw pointed arms: the sum of `number` cusps up to `height` high and `width` radians wide, float64 [P]."""
    at = np.arange(number) * 2 * np.pi / number + rng.normal(0, 0.35, number)
    away = np.abs((angles[:, None] - at + np.pi) % (2 * np.pi) - np.pi)
    return np.asarray(np.exp(-away / rng.uniform(*width, number)) @ rng.uniform(0.2 * height, height, number))


def corners_outline(rng: np.random.Generator) -> Floats:
    """Draw a flattened cell with two to four corners."""
    angles = _angles(60)
    number = int(rng.choice((2, 3, 3, 3, 4)))
    radius = 0.8 + _wobble(rng, angles, 0.05, 6) + _points(rng, angles, number, (0.2, 0.4), 1.2)
    return _polar(angles, radius, rng.uniform(1.1, 2.4))


def _ribbon(along: Floats, width: Floats, length: float, bend: Floats) -> Floats:
    """Return the outline of a body of half `width` around a line of `length` along x that is bent by `bend`."""
    x = length * (along - 0.5)
    # the sides stand on the middle line, so that a bent end does not grow thin
    slope = np.gradient(bend, x)
    norm = np.sqrt(1 + slope**2)
    side = np.stack([-slope / norm, 1 / norm], 1) * width[:, None]
    middle = np.stack([x, bend], 1)
    return np.concatenate([middle + side, (middle - side)[::-1]])


def spindle_outline(rng: np.random.Generator) -> Floats:
    """Draw a body that tapers to both ends, slightly bent."""
    along = np.linspace(0, 1, 24)
    width = np.sin(np.pi * along ** rng.uniform(0.6, 1.6)).clip(0) ** rng.uniform(0.8, 1.7) + 0.1
    length = 2 * rng.uniform(1.8, 4.2)
    return _ribbon(along, width, length, rng.normal(0, 0.1) * length * (2 * along - 1) ** 2)


def strip_outline(rng: np.random.Generator) -> Floats:
    """Draw a long winding cell: a body somewhere along two arms that end blunt."""
    along = np.linspace(0, 1, 40)
    arm = rng.uniform(0.1, 0.4)
    body = np.exp(-(((along - rng.uniform(0.25, 0.75)) / rng.uniform(0.08, 0.25)) ** 2))
    width = (arm + (1 - arm) * body + _wobble(rng, 2 * np.pi * along, 0.04, 6) + rng.normal(0, 0.03, 40)).clip(0.1)
    width *= np.minimum(1, 0.3 + 12 * np.minimum(along, 1 - along))
    length = 2 * rng.uniform(3.0, 8.5)
    bend = rng.normal(0, 0.16) * (2 * along - 1) ** 2 + rng.normal(0, 0.03) * np.sin(2 * np.pi * along)
    return _ribbon(along, width, length, length * bend)


def star_outline(rng: np.random.Generator) -> Floats:
    """Draw a body with two to four pointed arms, hollow between them."""
    angles = _angles(120)
    number = int(rng.integers(2, 5))
    radius = 0.6 + _wobble(rng, angles, 0.05, 6) + _points(rng, angles, number, (0.12, 0.3), 4.2)
    return _polar(angles, radius + rng.normal(0, 0.04, 120), rng.uniform(1.2, 2.2))


def sheet_outline(rng: np.random.Generator) -> Floats:
    """Draw a wide flat cell with corners and a ragged edge."""
    angles = _angles(70)
    corners = rng.uniform(0, 2 * np.pi, 4)
    radius = 0.9 + _wobble(rng, angles, 0.12, 4) + 0.5 * _bumps(angles, corners, 0.2).sum(1) + rng.normal(0, 0.02, 70)
    return _polar(angles, radius, rng.uniform(1.2, 2.8))


OUTLINES = {
    "round": round_outline,
    "corners": corners_outline,
    "spindle": spindle_outline,
    "strip": strip_outline,
    "star": star_outline,
    "sheet": sheet_outline,
}


@dataclass
class Cell:
    """One cell: `body` is drawn, `mask` is annotated, both bool [h, w].

    `heading` is the direction of its long axis in radians (x to the right, y down); `top`, `left` place the crop.
    """

    body: Bools
    mask: Bools
    shape: str
    heading: float
    top: int = 0
    left: int = 0


def draw_cell(rng: np.random.Generator, population: Population, area: float) -> Cell:
    """Draw a cell of about `area` pixels, turned at random, in a crop with `MARGIN` pixels around it."""
    shape = str(rng.choice(list(population.shapes), p=list(population.shapes.values())))
    outline = OUTLINES[shape](rng)
    turn = rng.uniform(0, 2 * np.pi)
    outline = outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline *= _scale_to_area(outline, area)
    low = outline.min(0) - MARGIN
    width, height = (np.ceil(outline.max(0) + MARGIN - low) + 1).astype(int)
    crop = np.zeros((height, width), np.uint8)
    cv2.fillPoly(crop, [np.round((outline - low) * 16).astype(np.int32)], 1, shift=4)
    body = crop.astype(bool)
    return Cell(body, break_mask(rng, body, population.broken), shape, turn)


def _scale_to_area(outline: Floats, area: float) -> float:
    """Return the scale s at which fillPoly, which includes the border, covers s^2 A + s P / 2 = `area` pixels."""
    after = np.roll(outline, -1, 0)
    polygon = abs(float((outline[:, 0] * after[:, 1] - outline[:, 1] * after[:, 0]).sum())) / 2
    half = float(np.hypot(*(after - outline).T).sum()) / 4
    return (np.sqrt(half**2 + polygon * area) - half) / polygon


def break_mask(rng: np.random.Generator, body: Bools, broken: tuple[float, float, float]) -> Bools:
    """Annotate `body` bool [h, w], with probabilities `broken` of a hole, a straight spike, a stray piece."""
    hole, spike, stray = rng.random(3) < np.asarray(broken)
    if not (hole or spike or stray):
        return body
    mask = body.astype(np.uint8)
    ys, xs = np.nonzero(body)
    y, x = (int(v[rng.integers(len(ys))]) for v in (ys, xs))
    if hole:
        end = (x + int(rng.integers(-4, 5)), y + int(rng.integers(-4, 5)))
        cv2.line(mask, (x, y), end, 0, thickness=int(rng.integers(1, 3)))
    if spike:
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(8, 25)
        end = (round(x + length * np.cos(turn)), round(y + length * np.sin(turn)))
        cv2.line(mask, (x, y), end, 1)
    if stray:
        spot = (int(rng.integers(3, body.shape[1] - 3)), int(rng.integers(3, body.shape[0] - 3)))
        cv2.circle(mask, spot, int(rng.integers(1, 3)), 1, -1)
    return mask.astype(bool)

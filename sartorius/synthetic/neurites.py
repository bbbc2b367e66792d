"""Neurites of generated images: from the cells, between them in bundles, and from anywhere."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import KDTree

from sartorius.structures.arrays import Floats, Plane, Points
from sartorius.synthetic.cells import Cell
from sartorius.synthetic.optics import Imaging, bodies, middle

STEP = 5.0  # px between the corners of a line
STRENGTH = (0.15, 0.6)  # of a line, as a share of the thickness of a bead
UNDER = 0.15  # share of a neurite's thickness that shows over a cell's body


def neurite_path(rng: np.random.Generator, start: Floats, heading: float, length: float) -> Points:
    """Draw a winding line from `start` (x, y): float64 [P, 2], of mean `length` pixels (gamma distributed)."""
    steps = 2 + rng.poisson(rng.gamma(2.0, length / STEP / 2))
    turns = heading + np.cumsum(rng.normal(0, 0.14, steps))
    moves = STEP * np.stack([np.cos(turns), np.sin(turns)], 1)
    return np.asarray(start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)]))


def link_path(rng: np.random.Generator, start: Floats, end: Floats, apart: float) -> Points:
    """Draw a slightly bent line from `start` to `end` (x, y), up to about `apart` px off: float64 [P, 2]."""
    along = end - start
    length = float(np.hypot(*along))
    share = np.linspace(0, 1, max(3, round(length / STEP)))[:, None]
    side = np.array([-along[1], along[0]]) / max(length, 1.0)
    bend = rng.normal(0, 0.07 * length) + rng.normal(0, apart)
    wave = rng.normal(0, 0.03 * length) * np.sin(2 * np.pi * share)
    return np.asarray(start + share * along + side * (bend * 4 * share * (1 - share) + wave))


class _Sheet:
    """A layer uint8 [H, W] that lines are drawn on; 255 is the thickness of a strong bead."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, beads: float) -> None:
        self.rng, self.beads = rng, beads
        self.layer = np.zeros((height, width), np.uint8)

    def line(self, path: Points, thick: float, ends: tuple[float, float] = (0.0, 0.0), faint: float = 1.0) -> None:
        """Draw a line of 1 px with beads, `faint` times as strong; shares `ends` at both ends are `thick` px wide."""
        points = np.round(path * 16).astype(np.int32)
        grey = int(255 * faint * self.rng.uniform(*STRENGTH))
        for share, part in zip(ends, (points, points[::-1]), strict=True):
            for k, width in enumerate(range(round(thick), 1, -1)):
                count = max(2, round((k + 1) * share * len(points) / max(round(thick) - 1, 1)))
                if share:
                    cv2.polylines(self.layer, [part[:count]], False, int(0.5 * grey), width, cv2.LINE_AA, 4)
        cv2.polylines(self.layer, [points], False, grey, 1, cv2.LINE_AA, 4)
        for x, y in points[self.rng.integers(0, len(points), self.rng.poisson(self.beads * len(points) * STEP / 100))]:
            self.bead(int(x), int(y))

    def bead(self, x: int, y: int) -> None:
        """Draw a dot at (x, y) in sixteenths of a pixel."""
        grey = int(255 * self.rng.uniform(0.6, 1.0))
        cv2.circle(self.layer, (x, y), int(self.rng.uniform(6, 20)), grey, -1, cv2.LINE_AA, 4)


def add_neurites(rng: np.random.Generator, field: Plane, grains: Plane, cells: list[Cell], imaging: Imaging) -> None:
    """Add neurites to `field` in place: from cells and hubs, thicker at their roots, in bundles, and from anywhere."""
    height, width = field.shape
    share = height * width / (520 * 704)
    sheet = _Sheet(rng, height, width, imaging.beads)
    for _ in range(rng.poisson(imaging.free_neurites * share)):
        start = rng.uniform(0, (width, height))
        sheet.line(neurite_path(rng, start, rng.uniform(0, 2 * np.pi), 2 * imaging.neurite_length), 1, faint=0.6)
    hubs = rng.uniform(0, (width, height), (rng.poisson(imaging.hubs * share), 2))
    for hub in hubs:
        for x, y in np.round(16 * rng.normal(hub, rng.uniform(4, 9), (int(rng.integers(15, 50)), 2))).astype(int):
            sheet.bead(int(x), int(y))
    roots = [(middle(cell), cell.heading) for cell in cells] + [(hub, rng.uniform(0, 2 * np.pi)) for hub in hubs]
    for start, axis in roots:
        number = rng.poisson(imaging.neurites * rng.gamma(1.0))
        for k in range(number):
            heading = axis + np.pi * k + rng.normal(0, imaging.neurite_spread)
            sheet.line(neurite_path(rng, start, heading, imaging.neurite_length), rng.uniform(1, 2.4), (0.4, 0.0))
    _link(sheet, np.array([start for start, _ in roots]).reshape(-1, 2), imaging)
    seen = np.where(bodies(cells, height, width), UNDER, 1.0) * np.clip(1 + 0.25 * grains, 0, 2)
    field += sheet.layer * (imaging.neurite_thickness / 255) * seen


def _link(sheet: _Sheet, middles: Points, imaging: Imaging) -> None:
    """Join the points `middles` float64 [N, 2] to some of their four nearest neighbours within reach."""
    if len(middles) < 2 or not imaging.links:
        return
    rng = sheet.rng
    away, near = KDTree(middles).query(middles, k=min(5, len(middles)))
    for k, start in enumerate(middles):
        there = near[k][1:][away[k][1:] < imaging.link_reach]
        for other in rng.permutation(there)[: rng.poisson(imaging.links)]:
            thick, lines = rng.uniform(1, 4), 1 + rng.poisson(imaging.bundle - 1)
            for _ in range(lines):
                ends = rng.normal(0, 0.8 * (lines - 1), (2, 2)).clip(-5, 5)
                path = link_path(rng, start + ends[0], middles[other] + ends[1], 0.6 * (lines - 1))
                sheet.line(path, thick, (0.45, 0.45))

"""Features of each finished cell, from which the false-positive filter predicts its IoU with the truth."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sartorius.rescoring.shapes import Shapes
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

_FAR = 10.0  # radii

FEATURES: tuple[str, ...] = (
    "score",  # of the detection, 0..1
    "agreement",  # of the members of an ensemble, 0..1; -1 where the detections carry none
    "area",  # px, of the finished cell
    "box_long", "box_short",  # px, sides of the detection's box
    "elongation", "fill",  # see `Shapes`
    "inside",  # mean probability of the mask where it is above one half, 0..1
    "undecided",  # share of the box with a probability of 0.2 to 0.8
    "left",  # area over the area of the detection's mask at one half: the share that overlaps and cleaning left
    "neighbours",  # cells whose centre is within three radii (of a circle of the cell's area)
    "nearest",  # distance to the nearest centre of another cell, in those radii, at most 10
    "relative_area", "relative_score",  # over the image's medians
    "cells", "covered",  # of the image: cells, and share of pixels in cells
    "type", "image_type",  # index of the cell's own type, and of the image's most frequent one
)  # fmt: skip


def cell_features(detections: Detections, source: Ints, runs: Runs) -> Floats:
    """Compute the FEATURES of N cells, float64 [N, F]; reads no image.

    source: int64 [N], position of each cell in the image's `detections`. runs: its pixels.
    """
    chosen, count = detections.select(source), len(source)
    if not count:
        return np.zeros((0, len(FEATURES)))
    shapes = Shapes.of(runs)
    sides = (chosen.boxes[:, 2:] - chosen.boxes[:, :2]).astype(np.float64)
    masks = chosen.masks.astype(np.float64)
    above = masks > 0.5
    share = above.mean(axis=(1, 2))
    radius = np.sqrt(shapes.area / np.pi)
    neighbours, nearest = _crowding(np.column_stack((shapes.x, shapes.y)), radius)
    scores = chosen.scores.astype(np.float64)
    types = chosen.cell_types
    columns = {
        "score": scores,
        "agreement": np.full(count, -1.0) if chosen.agreement is None else chosen.agreement.astype(np.float64),
        "area": shapes.area,
        "box_long": sides.max(axis=1),
        "box_short": sides.min(axis=1),
        "elongation": shapes.elongation,
        "fill": shapes.fill,
        "inside": (masks * above).sum(axis=(1, 2)) / np.maximum(above.sum(axis=(1, 2)), 1),
        "undecided": ((masks > 0.2) & (masks < 0.8)).mean(axis=(1, 2)),
        "left": shapes.area / np.maximum(share * sides.prod(axis=1), 1),
        "neighbours": neighbours,
        "nearest": nearest,
        "relative_area": shapes.area / np.median(shapes.area),
        "relative_score": scores / max(float(np.median(scores)), 1e-6),
        "cells": np.full(count, float(count)),
        "covered": np.full(count, shapes.area.sum() / (detections.height * detections.width)),
        "type": types.astype(np.float64),
        "image_type": np.full(count, float(np.bincount(types).argmax())),
    }
    return np.column_stack([columns[name] for name in FEATURES])


def _crowding(centres: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Count other centres within three radii of each cell; returns that and the nearest one's radii, float64 [N]."""
    tree = cKDTree(centres)
    neighbours = tree.query_ball_point(centres, 3 * radius, return_length=True) - 1
    nearest = tree.query(centres, k=2)[0][:, 1]  # infinite for a cell alone
    return neighbours.astype(np.float64), np.minimum(nearest / radius, _FAR)

"""A false-positive filter that is easy to follow: it keeps cells of more than so many pixels."""

from __future__ import annotations

import numpy as np

from sartorius.rescoring.cell_features import FEATURES
from sartorius.rescoring.filter import FalsePositiveFilter
from sartorius.rescoring.trees import Trees
from sartorius.structures.cell_types import CELL_TYPES


def larger_than(area: float, names: tuple[str, ...] = CELL_TYPES) -> FalsePositiveFilter:
    """Expects an IoU of 1 of cells of more than `area` pixels, 0 of others, and keeps those of 0.5 or more."""
    feature = np.array([FEATURES.index("area"), -1, -1])
    left, right = np.array([1, 0, 0]), np.array([2, 0, 0])
    value, threshold = np.array([0.0, 0.0, 1.0]), np.array([float(area), 0.0, 0.0])
    trees = Trees(np.float64(0), np.zeros(1, np.int64), feature, threshold, left, right, value)
    return FalsePositiveFilter(trees, 0.5, names)

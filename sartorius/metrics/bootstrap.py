"""Percentile bootstrap intervals of a mean over images.

The image is the unit that is drawn, not the cell: cells of one image share their well, focus and density.
Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, percentile intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.errors import InputError
from sartorius.structures.arrays import Floats

_BLOCK = 1 << 20  # indices drawn at once: 8 MB, whatever the number of samples


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval, in the unit of the scores. All three are NaN without images."""

    mean: float
    low: float
    high: float


def bootstrap_interval(scores: Floats, samples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Return the mean of the scores [P] of images and the central `level` of the means of resampled images.

    Deterministic in `seed`. One image gives an interval of zero width.
    Raises InputError for fewer than one sample, or a level outside (0, 1).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(f"expected one score per image, got an array of shape {scores.shape}")
    return bootstrap_intervals(scores[None], samples, seed, level)[0]


def bootstrap_intervals(scores: Floats, samples: int = 10_000, seed: int = 0, level: float = 0.95) -> list[Interval]:
    """Return the `bootstrap_interval` of each of K quantities of the same P images, float [K, P], in one pass."""
    if samples < 1 or not 0 < level < 1:
        raise InputError(
            f"bootstrap: expected samples >= 1 and a level between 0 and 1 (0.95 for 95 %), got samples={samples}, "
            f"level={level}"
        )
    count = scores.shape[1]
    if scores.size == 0:
        return [Interval(float("nan"), float("nan"), float("nan"))] * len(scores)
    means = scores.mean(axis=1)
    if count == 1:
        return [Interval(mean, mean, mean) for mean in means.tolist()]  # SciPy refuses a single value
    from scipy import stats  # a second to import

    result = stats.bootstrap(
        (scores,), np.mean, axis=1, n_resamples=samples, confidence_level=level, method="percentile", vectorized=True,
        batch=max(1, _BLOCK // scores.size), random_state=np.random.default_rng(seed),
    )  # fmt: skip
    limits = result.confidence_interval
    return [Interval(*map(float, values)) for values in zip(means, limits.low, limits.high, strict=True)]


def paired_bootstrap(a: Floats, b: Floats, samples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Return the mean of a - b over the same images and its interval; zero outside it indicates a real difference.

    `a` and `b` are float64 [P], the same images in the same order; raises ValueError when the lengths differ.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired comparison needs the same images: {a.shape} and {b.shape} scores")
    return bootstrap_interval(a - b, samples, seed, level)

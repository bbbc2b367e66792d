from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sartorius.errors import InputError
from sartorius.metrics.bootstrap import Interval, bootstrap_interval, bootstrap_intervals, paired_bootstrap


def test_agrees_with_scipy_percentile_bootstrap() -> None:
    scores = np.random.default_rng(0).beta(2, 4, 60)
    ours = bootstrap_interval(scores, samples=20_000, seed=1)
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert ours.mean == scores.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_is_a_function_of_the_seed() -> None:
    scores = np.sqrt(np.arange(1, 40)) % 1
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)


def test_pairing_removes_what_the_images_share() -> None:
    random = np.random.default_rng(0)
    hard = random.uniform(0, 1, 200)
    paired = paired_bootstrap(hard + 0.01, hard, samples=500)
    assert paired.mean == pytest.approx(0.01)
    assert paired.low == pytest.approx(0.01) and paired.high == pytest.approx(0.01)


def test_one_image_and_none() -> None:
    assert bootstrap_interval(np.array([0.4])) == Interval(0.4, 0.4, 0.4)
    assert all(math.isnan(x) for x in vars(bootstrap_interval(np.zeros(0))).values())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
    for arguments in ({"samples": 0}, {"level": 1.0}, {"level": 95}):
        with pytest.raises(InputError, match="samples"):
            bootstrap_interval(np.zeros(3), **arguments)
    with pytest.raises(ValueError, match="one score per image"):
        bootstrap_interval(np.zeros((3, 2)))


def test_several_quantities_of_the_same_images_are_each_as_alone() -> None:
    scores = np.random.default_rng(3).random((3, 7))
    every = bootstrap_intervals(scores, samples=300, seed=2, level=0.8)
    assert every == [bootstrap_interval(row, samples=300, seed=2, level=0.8) for row in scores]
    assert bootstrap_intervals(scores[:, :1]) == [Interval(x, x, x) for x in scores[:, 0].tolist()]
    assert bootstrap_intervals(scores[:0]) == []

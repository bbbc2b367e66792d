"""Predicted scores and their intervals: against jackknife+ written out, their coverage, groups, few images."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sartorius.labelling.review.prediction import Calibration, ScorePredictor
from sartorius.labelling.review.quality import FEATURES, Quality


def ridge(x: np.ndarray, y: np.ndarray, alpha: float, new: np.ndarray) -> np.ndarray:
    """By the normal equations, of standardised features."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    a = (x - mean) / spread
    weights = np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ (y - y.mean()))
    return np.clip((new - mean) / spread @ weights + y.mean(), 0, 1)


def simulated(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are no linear function of the features, and noisier where they are high."""
    x = rng.normal(size=(count, 3))
    middle = 0.5 + 0.15 * np.tanh(x[:, 0]) + 0.05 * x[:, 1] ** 2 * np.sign(x[:, 2])
    return x, np.clip(middle + rng.normal(size=count) * 0.05 * (1.5 + np.tanh(x[:, 0])), 0, 1)


@pytest.mark.parametrize("level", ["0.8", "0.9", "0.5"])
def test_the_interval_is_the_one_of_jackknife_plus(level: str) -> None:
    rng = np.random.default_rng(1)
    x, y = simulated(rng, 19)
    new = rng.normal(size=(7, 3))
    predictor = ScorePredictor.fit(x, y, [str(k) for k in range(19)], 2.0, 50)
    forecast = predictor.predict(new, float(level))
    rest = [np.delete(np.arange(19), k) for k in range(19)]
    held_out = np.array([ridge(x[r], y[r], 2.0, x[[k]])[0] for k, r in enumerate(rest)])
    assert predictor.held_out == pytest.approx(held_out) and predictor.residual == pytest.approx(abs(y - held_out))
    assert forecast.score == pytest.approx(ridge(x, y, 2.0, new))
    a = 1 - Fraction(level)
    below, above = math.floor(a * 20), math.ceil((1 - a) * 20)
    for j in range(7):
        by_model = np.array([ridge(x[r], y[r], 2.0, new[[j]])[0] for r in rest])
        low = np.sort(by_model - abs(y - held_out))[below - 1]
        high = np.sort(by_model + abs(y - held_out))[above - 1]
        assert forecast.low[j] == pytest.approx(min(max(low, 0), forecast.score[j]))
        assert forecast.high[j] == pytest.approx(max(min(high, 1), forecast.score[j]))


@pytest.mark.parametrize(("count", "folds"), [(12, 50), (40, 8)])
def test_intervals_cover_about_as_many_scores_as_they_say(count: int, folds: int) -> None:
    """1 - 2a is proven, 1 - a is what happens; folds below the number of images make it CV+."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(30):
        x, y = simulated(rng, count + 40)
        predictor = ScorePredictor.fit(x[:count], y[:count], [str(k) for k in range(count)], 3.0, folds)
        forecast = predictor.predict(x[count:], 0.8)
        covered.append(np.mean((forecast.low <= y[count:]) & (y[count:] <= forecast.high)))
        assert ((forecast.low <= forecast.score) & (forecast.score <= forecast.high)).all()
    assert 0.76 < np.mean(covered) < 0.9


def test_images_of_one_group_do_not_predict_each_other() -> None:
    """Two copies of an odd image: by itself each would be predicted right."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(14, 2))
    y = np.full(14, 0.4)
    x[12:], y[12:] = (9.0, -9.0), 0.9
    apart = [str(k) for k in range(14)]
    together = [*apart[:13], apart[12]]
    alone = ScorePredictor.fit(x, y, apart, 0.01, 50).residual[12:]
    grouped = ScorePredictor.fit(x, y, together, 0.01, 50).residual[12:]
    assert alone.max() < 0.05 and grouped.min() > 0.45


def test_with_few_images_the_interval_is_everything() -> None:
    x, y = simulated(np.random.default_rng(0), 3)
    forecast = ScorePredictor.fit(x, y, ["a", "b", "c"], 3.0, 50).predict(x, 0.8)
    assert forecast.low.tolist() == [0, 0, 0] and forecast.high.tolist() == [1, 1, 1]
    assert ScorePredictor.fit(x, y, ["a", "b", "c"], 3.0, 50).predict(x[:0], 0.8).score.shape == (0,)


def quality(value: float, agreement: float | None) -> Quality:
    return Quality(np.full(len(FEATURES), value), agreement, 3)


def test_agreement_counts_only_where_all_images_have_one() -> None:
    """The features are the same for all, so that the agreement alone tells the images apart."""
    scores = np.linspace(0.1, 0.9, 9)
    groups = [str(k) for k in range(9)]
    known = [quality(0.5, value) for value in scores]
    options = {"alpha": 0.01, "folds": 50}
    found = Calibration.fit(known, scores, groups, agreement=True, **options)
    assert found.agreement and found.rank_correlation == pytest.approx(1)
    assert found.predict([quality(0.5, 0.3)], 0.8).score[0] == pytest.approx(0.3, abs=0.01)
    for qualities, agreement in (([*known[:-1], quality(0.5, None)], True), (known, False)):
        without = Calibration.fit(qualities, scores, groups, agreement=agreement, **options)
        assert not without.agreement
        assert without.predict([quality(0.5, None)], 0.8).score[0] == pytest.approx(scores.mean())


def test_no_correlation_of_images_that_are_all_alike() -> None:
    found = Calibration.fit(
        [quality(0.5, None)] * 9, np.full(9, 0.3), list("abcdefghi"), agreement=False, alpha=3.0, folds=50
    )
    assert found.rank_correlation is None and found.mean_error == pytest.approx(0)

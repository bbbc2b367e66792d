"""Predict an image's score from its features, with an interval, calibrated on images whose score is known.

Ridge regression, and around it the interval of jackknife+ or, with more groups of images than folds, of CV+: Barber,
Candes, Ramdas & Tibshirani, "Predictive inference with the jackknife+" (2021). Where images are exchangeable, an
interval of level 1 - a covers at least 1 - 2a of them whatever the model, and close to 1 - a in practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.labelling.review.quality import FEATURES, Quality
from sartorius.structures.arrays import Floats

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Forecast:
    """Predicted scores of N images, float64 [N] in 0..1, and the limits of their intervals."""

    score: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class ScorePredictor:
    """Regressions of the score on all images but those of one fold, and on all.

    held_out: float64 [P], of each image the prediction by the model that did not see it. residual: its absolute error.
    of: the position of that model in `models`.
    """

    full: Pipeline
    models: Sequence[Pipeline]
    of: Sequence[int]
    held_out: Floats
    residual: Floats

    @classmethod
    def fit(cls, features: Floats, scores: Floats, groups: Sequence[str], alpha: float, folds: int) -> ScorePredictor:
        """Fit to P images: features float64 [P, F], scores float64 [P].

        groups: of the images, no two folds share one; at most `folds` folds. alpha: weight of the penalty, where
        features have the variance 1. Raises ValueError for fewer than two groups.
        """
        from sklearn.model_selection import GroupKFold

        of, models = np.zeros(len(scores), np.int64), []
        held_out = np.zeros(len(scores))
        splits = GroupKFold(min(folds, len(set(groups)))).split(features, groups=list(groups))
        for k, (train, test) in enumerate(splits):
            model = _regression(alpha).fit(features[train], scores[train])
            held_out[test], of[test] = _clipped(model.predict(features[test])), k
            models.append(model)
        full = _regression(alpha).fit(features, scores)
        return cls(full, models, of.tolist(), held_out, np.abs(scores - held_out))

    def predict(self, features: Floats, level: float) -> Forecast:
        """Predict N images from their features, float64 [N, F], with intervals of this level, within 0..1."""
        if not len(features):
            return Forecast(*(np.zeros(0) for _ in range(3)))
        score = _clipped(self.full.predict(features))
        by_model = np.stack([_clipped(model.predict(features)) for model in self.models])[list(self.of)]  # [P, N]
        low, high = by_model - self.residual[:, None], by_model + self.residual[:, None]
        count = len(self.residual)
        # the tolerance: (1 - 0.8) * 10 is 1.9999...
        outside = int(np.floor((1 - level) * (count + 1) + 1e-9))  # of the P + 1 images, on either side
        if not outside:
            return Forecast(score, np.zeros(len(score)), np.ones(len(score)))
        lower, upper = np.sort(low, axis=0)[outside - 1], np.sort(high, axis=0)[count - outside]
        return Forecast(score, np.minimum(_clipped(lower), score), np.maximum(_clipped(upper), score))


@dataclass(frozen=True)
class Calibration:
    """A predictor of the scores of images from the `Quality` of their cells, and how well it does on images not seen.

    agreement: it is a feature, too. scores: float64 [P], the true ones.
    """

    predictor: ScorePredictor
    agreement: bool
    scores: Floats

    @classmethod
    def fit(
        cls, qualities: Sequence[Quality], scores: Floats, groups: Sequence[str], *, agreement: bool, alpha: float,
        folds: int,
    ) -> Calibration:  # fmt: skip
        """Fit to images with cells; see `ScorePredictor.fit`. agreement: use it where all of these images have one."""
        used = agreement and all(quality.agreement is not None for quality in qualities)
        features = _features(qualities, used)
        return cls(ScorePredictor.fit(features, scores, groups, alpha, folds), used, scores)

    def predict(self, qualities: Sequence[Quality], level: float) -> Forecast:
        """Predict images with cells, see `ScorePredictor.predict`."""
        return self.predictor.predict(_features(qualities, self.agreement), level)

    @property
    def mean_error(self) -> float:
        """Mean absolute error, of each image by the regression that did not see it."""
        return float(self.predictor.residual.mean())

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's correlation of true scores with those predicted without the image; None where all are alike."""
        from scipy.stats import spearmanr

        predicted = self.predictor.held_out
        if not (np.ptp(self.scores) and np.ptp(predicted)):
            return None
        return float(spearmanr(predicted, self.scores).statistic)


def _features(qualities: Sequence[Quality], agreement: bool) -> Floats:
    rows = [[*q.features, *([q.agreement] if agreement else [])] for q in qualities if q.features is not None]
    return np.array(rows, np.float64).reshape(len(rows), len(FEATURES) + agreement)


def _regression(alpha: float) -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha))


def _clipped(scores: Floats) -> Floats:
    return np.clip(scores, 0.0, 1.0)

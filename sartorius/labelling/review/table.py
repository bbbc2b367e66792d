"""The table of images in the order to label them, with reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.labelling.review.order import review_order
from sartorius.labelling.review.prediction import Calibration
from sartorius.labelling.review.quality import FEATURES, Quality
from sartorius.structures.arrays import Bools, Floats

COLUMNS = ("rank", "id", "file", "predicted_score", "low", "high", "disagreement", "distance", "cells", "reason")
_SCORE = FEATURES.index("score")


def review_table(
    files: Mapping[str, Path],
    qualities: Sequence[Quality],
    looks: Floats,
    labelled: Floats,
    calibration: Calibration | None,
    level: float,
) -> pd.DataFrame:
    """Return the COLUMNS of unlabelled images, the first to label first.

    files: by id. qualities, looks: of these images, looks standardised with those of the labelled ones (see
    `appearance`). calibration, level: of the scores; None leaves three columns empty. An image without cells has no
    predicted score.

    The need of an image is 1 - its predicted score; without a calibration its disagreement or, of one model alone, 1 -
    the mean score of its cells; without cells 1.
    """
    count = len(files)
    seen = np.array([quality.features is not None for quality in qualities], bool)
    score, low, high = (np.full(count, np.nan) for _ in range(3))
    if calibration is not None and seen.any():
        forecast = calibration.predict([quality for quality in qualities if quality.features is not None], level)
        score[seen], low[seen], high[seen] = forecast.score, forecast.low, forecast.high
    disagreement = np.array([np.nan if q.agreement is None else 1 - q.agreement for q in qualities], float)
    need = _need(qualities, score, disagreement, seen)
    order, distance = review_order(need, looks, labelled)
    table = pd.DataFrame({
        "id": list(files), "file": [str(path) for path in files.values()],
        "predicted_score": score, "low": low, "high": high, "disagreement": disagreement, "distance": distance,
        "cells": [quality.count for quality in qualities],
        "reason": _reasons(seen, score, disagreement, need, distance),
    }).iloc[order]  # fmt: skip
    table.insert(0, "rank", np.arange(1, count + 1))
    return table.round(4)[list(COLUMNS)].reset_index(drop=True)


def _need(qualities: Sequence[Quality], score: Floats, disagreement: Floats, seen: Bools) -> Floats:
    doubt = np.array([1.0 if q.features is None else 1 - q.features[_SCORE] for q in qualities])
    need = np.where(np.isfinite(score), 1 - score, np.where(np.isfinite(disagreement), disagreement, doubt))
    return np.where(seen, need, 1.0)


def _reasons(seen: Bools, score: Floats, disagreement: Floats, need: Floats, distance: Floats) -> list[str]:
    """Name in words what stands out in each image: it is in the upper third, and above the median."""
    phrases = {
        "no cells found": ~seen,
        "low predicted score": seen & np.isfinite(score) & _high(need),
        "models disagree": seen & _high(disagreement),
        "low scores of cells": seen & ~np.isfinite(score) & ~np.isfinite(disagreement) & _high(need),
        "unlike the images before it": _high(distance),
    }
    texts = ("; ".join(text for text, applies in phrases.items() if applies[k]) for k in range(len(seen)))
    return [text or "nothing stands out" for text in texts]


def _high(values: Floats) -> Bools:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values), bool)
    return (values >= np.quantile(known, 2 / 3)) & (values > np.median(known))

"""Describe how sure the cells of an image look, and how far several models agree on them.

Disagreement of models stands in for the error where no truth is known: Roy et al., "Bayesian QuickNAT" (2019), of
samples of one network; Yang et al., "Suggestive annotation" (2017), of members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sartorius.metrics.functional import average_precision_per_image, image_row
from sartorius.postprocess.finalise import Finalised
from sartorius.rescoring.cell_features import FEATURES as OF_CELLS
from sartorius.rescoring.cell_features import cell_features
from sartorius.structures.arrays import Floats
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

FEATURES: tuple[str, ...] = (
    "cells",  # log(1 + their number)
    "score", "low_score",  # mean and lowest tenth of the cells' scores, 0..1
    "inside", "undecided",  # means over cells, see `cell_features`
    "area",  # log of the median, px
    "covered",  # share of the image's pixels
)  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """The cells of one image.

    features: float64 [F], the FEATURES; None without cells. agreement: 0..1, of the models or views that found them;
    None where one alone did. count: their number, of several models the mean.
    """

    features: Floats | None
    agreement: float | None
    count: float


def quality_of(detections: Detections, final: Finalised, runs: Runs) -> Quality:
    """Describe the finished cells of an image; `runs` are their pixels."""
    if not len(final):
        return Quality(None, None, 0)
    cells = dict(zip(OF_CELLS, cell_features(detections, final.source, runs).T, strict=True))
    features = {
        "cells": np.log1p(len(final)),
        "score": cells["score"].mean(),
        "low_score": np.quantile(cells["score"], 0.1),
        "inside": cells["inside"].mean(),
        "undecided": cells["undecided"].mean(),
        "area": np.log(np.median(cells["area"])),
        "covered": cells["covered"][0],
    }
    agreement = None if detections.agreement is None else float(cells["agreement"].mean())
    return Quality(np.array([features[name] for name in FEATURES]), agreement, len(final))


def joined(members: Sequence[Quality], cells: Sequence[Runs]) -> Quality:
    """Join what several models found in an image: the mean of their features, and their agreement.

    The agreement is the competition's score of one member's cells with another's as the truth, mean over pairs: 1 where
    all find the same, or nothing. Of one member it is its own.
    """
    if len(members) == 1:
        return members[0]
    known = [member.features for member in members if member.features is not None]
    rows = np.array([image_row(0, one, other) for one, other in combinations(cells, 2)])
    agreement = float(average_precision_per_image(rows).mean())
    count = float(np.mean([member.count for member in members]))
    return Quality(np.mean(known, axis=0) if known else None, agreement, count)

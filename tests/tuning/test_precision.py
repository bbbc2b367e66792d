from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sartorius.postprocess import Score
from sartorius.structures.detections import Detections
from sartorius.tuning.precision import NONE, RatedCells, rate_cells, score_threshold, score_thresholds
from tests.tuning.images import NAMES, START, Images


def test_the_cells_and_which_are_right() -> None:
    """The same cells as at any threshold, compared by full-size masks."""
    images = Images(3)
    rights = 0
    for make_image, found in images.found.items():
        truth = images.truth[make_image]
        rated = rate_cells(found, truth, START)
        sums = [found.scores[found.cell_types == k].astype(float).sum() for k in range(3)]
        assert rated.cell_type == NAMES[int(np.argmax(sums))]
        cells = START.with_step(Score(0.4))(replace(found, cell_types=np.full(len(found), np.argmax(sums))))
        masks = cells.instances.layers[0][None] == np.arange(1, len(cells) + 1)[:, None, None]
        at, owner = truth.pixels()
        true = np.zeros((truth.count, truth.height * truth.width), bool)
        true[owner, at] = True
        both = masks.reshape(len(cells), -1).astype(int) @ true.T.astype(int)
        union = masks.sum(axis=(1, 2))[:, None] + true.sum(axis=1) - both
        sure = rated.scores >= 0.4
        np.testing.assert_allclose(rated.scores[sure], cells.scores, atol=1e-6)
        assert rated.right[sure].tolist() == (both / union > 0.5).any(axis=1).tolist()
        rights += int(rated.right.sum())
    assert rights > 3


def test_nothing_found() -> None:
    rated = rate_cells(Detections.empty("p", 50, 70), Images(1).truth["p0"], START)
    assert (rated.cell_type, len(rated.scores), len(rated.right)) == ("shsy5y", 0, 0)
    entry = score_thresholds([rated], np.zeros(1, np.int64), {"astro": 0.9}, 1)["astro"]
    assert entry == {
        "asked": 0.9, "min_score": NONE, "cells": 0, "precision": None,
        "cross_fitted_cells": 0, "cross_fitted_precision": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (1.0, 0.8),
        (0.79, 0.5),  # (1 + 1 + 3 * 2 / 3) / 5 = 0.8
        (0.1, 0.3),
    ],
)
def test_the_lowest_score_that_is_right_often_enough(asked: float, expected: float) -> None:
    scores = np.array([0.3, 0.9, 0.5, 0.7, 0.6, 0.8, 0.4])
    right = np.array([False, True, True, False, True, True, False])
    # pooled: 0.9, 0.8 are right; of 0.7, 0.6, 0.5 two of three; 0.4 and 0.3 are wrong
    pooled = {0.9: 1, 0.8: 1, 0.7: 2 / 3, 0.6: 2 / 3, 0.5: 2 / 3, 0.4: 0, 0.3: 0}
    means = {limit: np.mean([chance for score, chance in pooled.items() if score >= limit]) for limit in pooled}
    assert min(limit for limit, mean in means.items() if mean >= asked) == expected
    assert score_threshold(scores, right, asked, 1) == expected


def test_equal_scores_stay_together_and_few_cells_are_no_evidence() -> None:
    scores, right = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    assert score_threshold(scores, right, 0.6, 1) == 0.9 and score_threshold(scores, right, 0.5, 1) == 0.5
    assert score_threshold(scores, right, 0.6, 2) == NONE, "one cell only is right so often"
    assert score_threshold(scores, right, 0.5, 5) == NONE == score_threshold(np.zeros(0), np.zeros(0, bool), 0.5, 0)


def test_cross_fitted_thresholds_do_not_see_the_fold() -> None:
    def make_image(*right: bool) -> RatedCells:
        return RatedCells("cort", np.array([0.9, 0.6, 0.3]), np.array(right))

    rated = [
        make_image(True, True, False),
        make_image(True, False, False),
        RatedCells("astro", np.ones(1), np.ones(1, bool)),
    ]
    entry = score_thresholds(rated, np.array([0, 1, 1]), {"cort": 0.9}, 1)["cort"]
    assert (entry["min_score"], entry["cells"], entry["precision"]) == (0.9, 2, 1.0)
    # without the first image 0.9, without the second 0.6: the first has 1 of 1 right, the second 1 of 2
    assert (entry["cross_fitted_cells"], entry["cross_fitted_precision"]) == (3, 2 / 3)
    assert "cross_fitted_cells" not in score_thresholds(rated, None, {"cort": 0.9}, 1)["cort"]

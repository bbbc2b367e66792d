from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from sartorius.metrics import precision_recall
from sartorius.metrics.functional import THRESHOLD_PERCENT, image_row
from sartorius.metrics.precision_recall import curve
from sartorius.structures.instances import Instances


def hits(predictions: Instances, truth: Instances, percents: list[int]) -> np.ndarray:
    return precision_recall.hits(predictions.to_runs(), truth.to_runs(), percents)


def cells(*boxes: tuple[int, int, int, int]) -> Instances:
    masks = np.zeros((len(boxes), 20, 30), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances.from_masks(masks, np.zeros(len(boxes), np.int64))


def test_which_predictions_hit() -> None:
    truth = cells((0, 0, 10, 10), (15, 0, 25, 10))
    found = cells((0, 0, 10, 8), (15, 0, 25, 5), (0, 12, 5, 18))  # IoU 80 / 100, 50 / 100, none
    assert hits(found, truth, [50, 75, 80]).tolist() == [[True, True, False], [False, False, False], [False] * 3]


def test_nothing_on_either_side() -> None:
    some, none = cells((0, 0, 5, 5)), Instances.empty(20, 30)
    assert hits(none, some, [50]).shape == (0, 1)
    assert hits(some, none, [50]).tolist() == [[False]]
    assert hits(none, none, [50, 75]).shape == (0, 2)


def test_thresholds_below_one_half_are_refused() -> None:
    with pytest.raises(ValueError, match="50 percent and more"):
        hits(cells(), cells(), [45])


@given(st.integers(0, 10_000))
def test_as_many_hits_as_the_competition_counts(seed: int) -> None:
    """Overlapping cells on the side of the truth, overlap-free predictions of shifted ones."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, (20, 12), (8, 2))
    sizes = rng.integers(4, 9, (8, 2))
    truth = cells(*((x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)))
    label_map = np.zeros((20, 30), np.uint16)
    for k, ((x, y), (w, h)) in enumerate(zip(corners + rng.integers(-1, 2, (8, 2)), sizes, strict=True)):
        label_map[max(y, 0) : y + h, max(x, 0) : x + w] = k + 1
    found = Instances.from_label_map(label_map, np.zeros(8, np.int64))
    counted = hits(found, truth, THRESHOLD_PERCENT.tolist()).sum(axis=0)
    assert counted.tolist() == image_row(0, found, truth)[1:-2].tolist()


def test_the_curve_by_hand() -> None:
    line = curve([0.9, 0.5, 0.7, 0.5], [True, True, False, False], cells=4, points=10)
    assert line.scores.tolist() == [0.9, 0.7, 0.5]
    assert line.precision.tolist() == [1 / 1, 1 / 2, 2 / 4]  # both of 0.5 come in together
    assert line.recall.tolist() == [1 / 4, 1 / 4, 2 / 4]


def test_the_curve_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, hit = rng.integers(0, 50, 300) / 50, rng.random(300) < 0.4
    precision, recall, thresholds = precision_recall_curve(hit, scores)
    line = curve(scores, hit, cells=int(hit.sum()), points=1000)
    np.testing.assert_allclose(line.scores, thresholds[::-1])
    np.testing.assert_allclose(line.precision, precision[:-1][::-1])
    np.testing.assert_allclose(line.recall, recall[:-1][::-1])


def test_a_thinned_curve_keeps_its_ends() -> None:
    scores = np.linspace(0.1, 0.9, 1000)
    whole = curve(scores, scores > 0.5, cells=1000, points=5000)
    thin = curve(scores, scores > 0.5, cells=1000, points=50)
    assert len(whole.scores) == 1000
    assert len(thin.scores) == 50
    assert (thin.scores[0], thin.scores[-1]) == (whole.scores[0], whole.scores[-1])
    assert set(thin.recall) <= set(whole.recall)


def test_a_curve_of_nothing() -> None:
    assert len(curve([], [], cells=3, points=5).scores) == 0
    line = curve([0.5], [False], cells=0, points=5)
    assert (line.precision.tolist(), line.recall.tolist()) == ([0.0], [0.0])

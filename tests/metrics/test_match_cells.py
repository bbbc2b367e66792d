"""Which prediction hits which cell: as many as the score counts, and the closest of several."""

from __future__ import annotations

import numpy as np
import pytest

from sartorius.metrics.functional import image_row, match_cells
from tests.metrics.test_functional import dense_row, masks_to_runs, random_masks


@pytest.mark.parametrize("seed", range(30))
def test_as_many_pairs_as_the_score_counts(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random_masks(random, int(random.integers(1, 9)))
    noisy = truth[random.permutation(len(truth))] ^ (random.random(truth.shape) < 0.01)
    predictions = np.concatenate((noisy, random_masks(random, 3)))
    left, right = masks_to_runs(predictions), masks_to_runs(truth)
    judged = match_cells(left, right)
    assert (judged.cell >= 0).sum() == (judged.prediction >= 0).sum() == image_row(0, left, right)[1]
    assert (judged.cell >= 0).sum() == dense_row(0, predictions, truth)[1]
    for i, j in enumerate(judged.cell.tolist()):
        ious = [(p & q).sum() / (p | q).sum() for p, q in ((predictions[i], one) for one in truth)]
        assert judged.iou[i] == pytest.approx(ious[j] if j >= 0 else max(ious, default=0))
        if j >= 0:
            assert judged.prediction[j] == i and judged.iou[i] > 0.5 and judged.cell_iou[j] == judged.iou[i]
    for j, i in enumerate(judged.prediction.tolist()):
        if i < 0:
            assert judged.cell_iou[j] == pytest.approx(
                max(((p & truth[j]).sum() / (p | truth[j]).sum() for p in predictions), default=0)
            )


def test_of_two_overlapping_cells_the_closer_is_found() -> None:
    truth = np.zeros((2, 1, 10), int)
    truth[0, 0, :8] = 1  # IoU 8 / 10
    truth[1, 0, :9] = 2  # IoU 9 / 10
    judged = match_cells(np.ones((1, 10), int), truth)
    assert judged.cell.tolist() == [1] and judged.prediction.tolist() == [-1, 0]
    assert judged.iou.tolist() == [9 / 10] and judged.cell_iou.tolist() == [8 / 10, 9 / 10]


def test_exactly_one_half_is_a_false_alarm_and_a_miss() -> None:
    judged = match_cells(np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1]]))
    assert judged.cell.tolist() == [-1] and judged.prediction.tolist() == [-1] and judged.iou.tolist() == [0.5]


def test_a_chain_is_matched_as_far_as_it_goes() -> None:
    """Two predictions above the threshold with two cells each: no star, and the greedy choice would lose one."""
    cells, predictions = np.zeros((2, 1, 10), int), np.zeros((2, 1, 10), int)
    cells[0, 0, :9], cells[1, 0, 1:] = 1, 2
    predictions[0, 0, :], predictions[1, 0, 1:9] = 1, 2
    judged = match_cells(predictions, cells)
    assert sorted(judged.cell.tolist()) == [0, 1] and sorted(judged.prediction.tolist()) == [0, 1]


def test_nothing_on_either_side() -> None:
    none, one = np.zeros((2, 3), int), np.ones((2, 3), int)
    assert match_cells(none, none).cell.size == 0
    assert match_cells(one, none).cell.tolist() == [-1] and match_cells(none, one).prediction.tolist() == [-1]
    with pytest.raises(ValueError, match="cannot be compared"):
        match_cells(none, np.zeros((3, 2), int))

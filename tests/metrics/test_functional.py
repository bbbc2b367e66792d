"""The competition's score against naive dense references and hand-written arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from sartorius.metrics import functional as F
from sartorius.structures import coco_rle, rle
from sartorius.structures.instances import Instances


def masks_to_runs(masks: np.ndarray) -> rle.Runs:
    """bool [N, H, W] as runs, by way of the text."""
    texts = []
    for mask in masks:
        flat = np.flatnonzero(mask.ravel())
        texts.append(" ".join(f"{k + 1} 1" for k in flat))
    return rle.parse(texts, *masks.shape[1:])


def dense_row(index: int, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Reference: full matrices and the Hungarian method on bool [N, H, W]."""
    p, t = (m.reshape(len(m), -1).astype(np.int64) for m in (predictions, truth))
    shared = p @ t.T
    union = p.sum(1)[:, None] + t.sum(1)[None] - shared
    found = []
    for percent in range(50, 100, 5):
        hits = (100 * shared > percent * union).astype(int)
        rows, columns = linear_sum_assignment(-hits)
        found.append(hits[rows, columns].sum())
    return np.array([index, *found, len(p), len(t)])


def random_masks(random: np.random.Generator, n: int, size: int = 24) -> np.ndarray:
    masks = np.zeros((n, size, size), dtype=bool)
    for mask in masks:
        y, x = random.integers(0, size - 8, 2)
        h, w = random.integers(2, 9, 2)
        mask[y : y + h, x : x + w] = True
    return masks


@pytest.mark.parametrize("seed", range(20))
def test_rows_agree_with_dense_hungarian_matching(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random_masks(random, int(random.integers(1, 12)))
    shifted = np.roll(truth, tuple(random.integers(-1, 2, 2)), axis=(1, 2))
    predictions = np.concatenate([shifted, random_masks(random, int(random.integers(0, 6))), truth[:2]])
    expected = dense_row(seed, predictions, truth)
    assert expected[1] > 0
    np.testing.assert_array_equal(F.image_row(seed, masks_to_runs(predictions), masks_to_runs(truth)), expected)


def test_runs_instances_layers_and_label_maps_give_one_row() -> None:
    random = np.random.default_rng(3)
    truth = random_masks(random, 9)
    cells = Instances.from_masks(truth, np.zeros(9))
    label_map = np.zeros((24, 24), np.int32)
    for k, mask in enumerate(np.roll(truth, 1, axis=2)):
        label_map[mask] = k + 1
    predictions = np.stack([label_map == k for k in np.unique(label_map)[1:]])
    expected = dense_row(5, predictions, truth)
    for side in (masks_to_runs(truth), cells, cells.layers):
        for other in (label_map, label_map[None], masks_to_runs(predictions)):
            np.testing.assert_array_equal(F.image_row(5, other, side), expected)


def test_an_iou_of_exactly_the_threshold_does_not_hit() -> None:
    truth = np.zeros((10, 10), int)
    truth[0] = 1  # 10 pixels
    for percent, shared in ((50, 10), (80, 8)):
        predicted = np.zeros((10, 10), int)
        if percent == 50:
            predicted[:2] = 1  # 20 pixels around the 10: IoU is 10 / 20
        else:
            predicted[0, :shared] = 1  # 8 of the 10: IoU is 8 / 10
        hits = F.image_row(0, predicted, truth)[1:-2]
        assert hits.tolist() == [int(t < percent) for t in range(50, 100, 5)]


def test_every_threshold_is_exact_at_its_own_iou() -> None:
    truth = np.ones((10, 10), int)
    for k, percent in enumerate(range(50, 100, 5)):
        predicted = np.zeros(100, int)
        predicted[:percent] = 1  # IoU is percent / 100 exactly
        assert F.image_row(0, predicted.reshape(10, 10), truth)[1:-2].sum() == k
        predicted[: percent + 1] = 1
        assert F.image_row(0, predicted.reshape(10, 10), truth)[1:-2].sum() == k + 1


def test_one_prediction_over_two_overlapping_cells_is_one_hit_and_one_miss() -> None:
    truth = np.zeros((2, 4, 10), bool)
    truth[0, 0, :10] = truth[1, 0, :9] = True
    predicted = np.zeros((4, 10), int)
    predicted[0] = 1  # IoU 1 with the first and 0.9 with the second
    row = F.image_row(0, predicted, Instances.from_masks(truth, [0, 0]))
    assert row.tolist() == [0, *[1] * 10, 1, 2]
    assert F.competition_map(row[None]) == 1 / (1 + 0 + 1)


def test_chains_are_matched_as_far_as_possible() -> None:
    # prediction 0 hits cells 0 and 1, prediction 1 hits cell 0 only: both find one
    i, j = np.array([0, 0, 1]), np.array([0, 1, 0])
    areas = np.array([10, 10])
    assert F.true_positives(i, j, np.array([9, 8, 8]), areas, areas)[0] == 2


def test_empties() -> None:
    empty, one = np.zeros((5, 5), int), np.eye(5, dtype=int)
    rows = np.stack([F.image_row(0, empty, empty), F.image_row(1, one, empty), F.image_row(2, empty, one)])
    assert rows[:, -2:].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert F.average_precision_per_image(rows).tolist() == [1.0, 0.0, 0.0]
    none = rows[:0]
    assert np.isnan(F.competition_map(none)) and np.isnan(F.pooled_precision(none)).all()
    assert F.deduplicate(none).shape == (0, F.ROW_LENGTH)
    nothing = rle.parse([], 5, 5)
    assert F.image_row(0, nothing, Instances.empty(5, 5)).tolist() == [0] * 13


def test_cells_without_pixels_are_not_counted() -> None:
    row = F.image_row(0, rle.parse(["", "1 3"], 5, 5), rle.parse(["1 3", ""], 5, 5))
    assert row.tolist() == [0, *[1] * 10, 1, 1]
    gaps = np.zeros((5, 5), int)
    gaps[0, :3] = 40
    assert F.image_row(0, gaps, rle.parse(["1 3"], 5, 5)).tolist() == [0, *[1] * 10, 1, 1]


def test_image_mean_and_pooled_counts_are_different_numbers() -> None:
    rows = np.array([[0, *[1] * 10, 1, 1], [1, *[0] * 10, 0, 9]])  # one perfect image of 1 cell, one missed of 9
    assert F.competition_map(rows) == (1 / 1 + 0 / 9) / 2
    assert F.pooled_precision(rows).tolist() == [1 / (1 + 9)] * 10


def test_a_repeated_image_counts_once_and_the_order_does_not_matter() -> None:
    rows = np.array([[7, *[1] * 10, 2, 1], [2, *[0] * 10, 1, 1], [7, *[1] * 10, 2, 1]])
    once = F.deduplicate(rows)
    assert once[:, 0].tolist() == [2, 7]
    assert F.competition_map(once) == (0 + 1 / 2) / 2
    np.testing.assert_array_equal(F.deduplicate(rows[::-1]), once)


def test_mean_by_group_keeps_the_groups_apart() -> None:
    assert F.mean_by_group(np.array([0.0, 1.0, 0.5]), ["a", "b", "a"]) == {"a": 0.25, "b": 1.0}
    assert F.mean_by_group(np.zeros(0), []) == {}


def test_images_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        F.image_row(0, np.zeros((5, 6), int), np.zeros((6, 5), int))


def test_real_images_agree_with_pycocotools(real_data: object) -> None:
    import pandas as pd

    table = pd.read_csv(f"{real_data}/sartorius/train.csv")
    predicted = pd.read_csv(f"{real_data}/peer_predictions/maskrcnn.csv")
    for image_id in sorted(predicted.id.unique())[::5]:
        sides = [predicted.predicted[predicted.id == image_id], table.annotation[table.id == image_id]]
        runs = [rle.parse(side.tolist(), 520, 704) for side in sides]
        iou = coco.iou(*[coco_rle.encode(side) for side in runs], [0] * runs[1].count)
        expected = [(iou > t / 100).any(axis=1).sum() for t in range(50, 100, 5)]  # predictions are disjoint
        assert F.image_row(0, *runs)[1:-2].tolist() == expected

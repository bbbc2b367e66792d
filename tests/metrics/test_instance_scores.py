"""F1, PQ and AJI beside torchmetrics and plain references, on layered maps and on real annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchmetrics.detection import PanopticQuality

from sartorius.data.competition.folder import Competition
from sartorius.metrics import report
from sartorius.metrics.functional import Intersections, best_pairs
from sartorius.metrics.instance_scores import f1_by_threshold, overlap_row, scores_per_image
from sartorius.structures.instances import Instances
from tests.metrics.test_functional import masks_to_runs, random_masks

EXACT = {"rtol": 0, "atol": 1e-12}


def scores_of(predictions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The scores of an image from masks [N, H, W]."""
    shared = Intersections.of(masks_to_runs(predictions), masks_to_runs(truth))
    scores = scores_per_image(shared.row(0)[None], overlap_row(0, shared)[None])
    return {key: float(value[0]) for key, value in scores.items()}


def plain(predictions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """All scores with loops over masks: StarDist's matching, Kumar's algorithm 1, HoVer-Net's AJI+."""
    predictions, truth = (side[side.any(axis=(1, 2))] for side in (predictions, truth))
    shared = np.array([[(s & g).sum() for s in predictions] for g in truth]).reshape(len(truth), len(predictions))
    union = np.array([[(s | g).sum() for s in predictions] for g in truth]).reshape(shared.shape)
    iou = shared / np.maximum(union, 1)
    hits = iou > 0.5
    rows, columns = linear_sum_assignment(-(hits + iou * hits / (2 * max(1, *iou.shape))))
    matched = [iou[j, i] for j, i in zip(rows, columns, strict=True) if hits[j, i]]
    n, predicted, cells = len(matched), len(predictions), len(truth)
    c = u = 0
    used: set[int] = set()
    for j, mask in enumerate(truth):
        best = max(range(predicted), key=lambda i: iou[j, i], default=-1)  # the first of equal ones
        if best >= 0 and iou[j, best] > 0:
            c, u = c + shared[j, best], u + union[j, best]
            used.add(best)
        else:
            u += mask.sum()
    u += sum(predictions[i].sum() for i in range(predicted) if i not in used)
    rows, columns = linear_sum_assignment(-iou)
    pairs = [(j, i) for j, i in zip(rows, columns, strict=True) if iou[j, i] > 0]
    plus_c, plus_u = sum(shared[p] for p in pairs), sum(union[p] for p in pairs)
    plus_u += sum(truth[j].sum() for j in range(cells) if j not in [p[0] for p in pairs])
    plus_u += sum(predictions[i].sum() for i in range(predicted) if i not in [p[1] for p in pairs])
    return {
        "f1": n / (n + (predicted - n) / 2 + (cells - n) / 2),
        "f1_precision": n / max(predicted, 1),
        "f1_recall": n / max(cells, 1),
        "pq": sum(matched) / (n + (predicted - n) / 2 + (cells - n) / 2),
        "sq": sum(matched) / max(n, 1),
        "aji": c / u,
        "aji_plus": plus_c / plus_u,
    }


def flat(masks: np.ndarray) -> np.ndarray:
    """A label map [H, W] in which later masks lie on top."""
    label_map = np.zeros(masks.shape[1:], int)
    for k, mask in enumerate(masks):
        label_map[mask] = k + 1
    return label_map


def sides(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping cells, and predictions: noisy copies in another order, strangers, some missing."""
    random = np.random.default_rng(seed)
    truth = random_masks(random, int(random.integers(1, 12)))
    copies = truth[random.permutation(len(truth))[: random.integers(0, len(truth) + 1)]]
    noisy = copies ^ (random.random(copies.shape) < 0.01)
    return np.concatenate((noisy, random_masks(random, int(random.integers(0, 4))))), truth


@pytest.mark.parametrize("seed", range(60))
def test_layered_maps_beside_plain_loops(seed: int) -> None:
    predictions, truth = sides(seed)
    np.testing.assert_allclose(
        list(scores_of(predictions, truth).values()), list(plain(predictions, truth).values()), **EXACT
    )


@pytest.mark.parametrize("seed", range(20))
def test_panoptic_quality_is_torchmetrics(seed: int) -> None:
    """Of an image and, pooled, of several: their maps have no overlaps, and one class of things."""
    theirs = PanopticQuality(things={1}, stuffs={0}, allow_unknown_preds_category=False, return_per_class=True)
    rows, overlaps = [], []
    for k in range(3):
        predictions, truth = (flat(masks) for masks in sides(100 * seed + k))
        shared = Intersections.of(predictions, truth)
        rows.append(shared.row(k))
        overlaps.append(overlap_row(k, shared))
        pair = [torch.from_numpy(np.stack((m > 0, m), axis=-1))[None].long() for m in (predictions, truth)]
        alone = PanopticQuality(things={1}, stuffs={0}, return_per_class=True, return_sq_and_rq=True)(*pair)
        ours = scores_per_image(rows[-1][None], overlaps[-1][None])
        np.testing.assert_allclose([ours["pq"][0], ours["sq"][0], ours["f1"][0]], alone[0].tolist(), atol=1e-6)
        theirs.update(*pair)
    numbers = report.summary(np.array(rows), ["cort"] * 3, ["cort"], np.array(overlaps), samples=50)
    assert numbers["pooled_pq"] == pytest.approx(theirs.compute()[0, 0].item(), abs=1e-6), "float32"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_pairs_are_linear_sum_assignments(seed: int) -> None:
    random = np.random.default_rng(seed)
    gain = random.random((7, 9)) * (random.random((7, 9)) < 0.3)
    i, j = np.nonzero(gain)
    order = random.permutation(len(i))
    i, j = i[order], j[order]
    chosen = best_pairs(i, j, gain[i, j])
    assert len(set(i[chosen].tolist())) == len(set(j[chosen].tolist())) == len(chosen)
    assert gain[i, j][chosen].sum() == pytest.approx(gain[linear_sum_assignment(-gain)].sum())


def test_values_by_hand() -> None:
    truth, predictions = np.zeros((2, 2, 10), bool), np.zeros((3, 2, 10), bool)
    truth[0, 0, :8], truth[1, 1, :4] = True, True  # 8 and 4 pixels
    predictions[0, 0, :6] = True  # 6 of the 8
    predictions[1, 1, :1] = True  # 1 of the 4
    predictions[2, 1, 7:] = True  # 3 of none
    scores = scores_of(predictions, truth)
    assert scores["f1"] == 2 * 1 / (3 + 2) and scores["f1_precision"] == 1 / 3 and scores["f1_recall"] == 1 / 2
    assert scores["sq"] == 6 / 8 and scores["pq"] == (6 / 8) / (1 + 2 / 2 + 1 / 2)
    assert scores["aji"] == scores["aji_plus"] == (6 + 1) / (8 + 4 + 3)


def test_one_prediction_on_two_cells_counts_twice_in_aji_and_once_in_aji_plus() -> None:
    truth = np.zeros((2, 1, 10), bool)
    truth[0, 0, :4], truth[1, 0, 4:] = True, True
    scores = scores_of(np.ones((1, 1, 10), bool), truth)
    assert scores["aji"] == (4 + 6) / (10 + 10) and scores["aji_plus"] == 6 / (10 + 4)


def test_nothing_on_both_sides_is_perfect_and_on_one_side_worthless() -> None:
    none, one = np.zeros((0, 2, 5), bool), np.ones((1, 2, 5), bool)
    assert set(scores_of(none, none).values()) == {1.0}
    assert set(scores_of(one, none).values()) == set(scores_of(none, one).values()) == {0.0}
    assert scores_of(np.concatenate((one, none, one & False)), one) == scores_of(one, one), "an empty mask is no cell"
    assert set(scores_of(one, one).values()) == {1.0}


def test_summary_names_means_pooled_counts_and_intervals() -> None:
    found = Intersections.of(np.array([[1, 1, 0]]), np.array([[1, 1, 0]]))
    missed = Intersections.of(np.array([[0, 0, 0]]), np.array([[1, 2, 3]]))
    images = [found, missed, Intersections.of(np.zeros((1, 3), int), np.zeros((1, 3), int))]
    rows = np.array([shared.row(k) for k, shared in enumerate(images)])
    overlaps = np.array([overlap_row(k, shared) for k, shared in enumerate(images)])
    numbers = report.summary(rows, ["astro", "cort", "cort"], ("shsy5y", "astro", "cort"), overlaps, samples=100)
    for key in ("f1", "f1_precision", "f1_recall", "pq", "sq", "aji", "aji_plus"):
        assert numbers[key] == pytest.approx((1 + 0 + 1) / 3) and numbers[f"{key}_cort"] == (0 + 1) / 2
        assert numbers[f"{key}_shsy5y"] is None and numbers[f"{key}_interval_shsy5y"] is None
        low, high = numbers[f"{key}_interval"]
        assert 0 <= low <= numbers[key] <= high <= 1
    assert numbers["pooled_f1"] == numbers["pooled_pq"] == 2 * 1 / (1 + 4) and numbers["pooled_aji"] == 2 / (2 + 3)
    assert numbers["pooled_f1_precision"] == 1 and numbers["pooled_f1_recall"] == 1 / 4
    assert numbers["f1_by_threshold"]["0.95"] == numbers["f1"]
    table = report.per_image_table(rows, ["a", "b", "c"], ["astro", "cort", "cort"], overlaps)
    assert table.pq.tolist() == [1, 0, 1] and table.columns[-1] == "aji_plus"
    nothing = report.summary(rows[:0], [], ("cort",), overlaps[:0])
    assert nothing["pq"] is nothing["pooled_aji"] is nothing["f1_by_threshold"]["0.50"] is None
    json.dumps([numbers, nothing], allow_nan=False)


def test_f1_by_threshold() -> None:
    rows = np.array([[0, *[3] * 4, *[1] * 6, 4, 5], [1, *[0] * 12]])
    np.testing.assert_allclose(f1_by_threshold(rows), [(2 * 3 / 9 + 1) / 2] * 4 + [(2 * 1 / 9 + 1) / 2] * 6)


def test_real_annotations_beside_plain_loops(real_data: Path) -> None:
    """Cells against themselves moved, cut to windows so that the loops end."""
    truth, compared = Competition(real_data / "sartorius"), 0
    for k, image_id in enumerate(truth.ids[::3]):
        layers = truth.instances(image_id).layers
        moved = np.roll(layers, (k % 4, -(k % 3)), axis=(1, 2))
        windows = [side[:, 150:310, 200:400] for side in (moved, layers)]
        masks = [np.array([(side == v).any(axis=0) for v in np.unique(side[side > 0])]) for side in windows]
        if min(map(len, masks)):
            kinds = [Instances.from_masks(side, np.zeros(len(side))) for side in masks]
            shared = Intersections.of(*kinds)
            ours = scores_per_image(shared.row(0)[None], overlap_row(0, shared)[None])
            expected = plain(*masks)
            np.testing.assert_allclose([ours[key][0] for key in expected], list(expected.values()), **EXACT)
            compared += 1
    assert compared >= 5

"""Joining: handwritten cases, an independent weighted boxes fusion, and the promise that nothing moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from sartorius.errors import InputError
from sartorius.fusion.clusters import cluster
from sartorius.fusion.methods import NMS, WBF, Vote
from sartorius.fusion.pool import calibrated
from sartorius.postprocess.nms import box_nms
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.detections import Detections
from tests.fusion.members_of import found, member, pooled
from tests.postprocess.shapes import random_detections

WBF_ = WBF(box_iou=0.4, mask_iou=0.4, share_power=1.0)
VOTE = Vote(box_iou=0.4, mask_iou=0.4, share_power=1.0, min_share=0.25)
NMS_ = NMS(box_nms=0.7, mask_nms=0.3, mask_iou=0.5)
METHODS = [WBF_, VOTE, NMS_]
BOX = [10, 10, 30, 20]


def pixels(detections: Detections, k: int = 0, threshold: float = 0.5) -> np.ndarray:
    one = detections.select([k])
    image = np.zeros(one.height * one.width, bool)
    image[paste_masks(one.boxes, one.masks, np.full(1, threshold), one.height, one.width).pixel] = True
    return image.reshape(one.height, one.width)


@pytest.mark.parametrize("method", METHODS)
def test_one_member_stays_as_it_is(method) -> None:
    own = found([BOX, [35, 5, 50, 35]], [0.4, 0.9], [2, 1], value=0.75)
    joined = method(pooled(member(own)))
    expected = own.sorted()
    for name in ("boxes", "scores", "cell_types", "masks"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(expected, name))
    assert joined.agreement.tolist() == [1, 1] and joined.agreement.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
def test_identical_members_give_what_each_has(method) -> None:
    own = random_detections(3, 6)
    own = own.select(np.flatnonzero(box_nms(own.boxes, own.cell_types, np.full(6, 0.1)))).sorted()
    own = replace(own, scores=np.linspace(0.9, 0.5, len(own)).astype(np.float32))
    joined = method(pooled(member(own), member(own), member(own)))
    np.testing.assert_allclose(joined.scores, own.scores, rtol=1e-6)
    for k in range(len(own)):
        a, b = pixels(own, k), pixels(joined, k)
        assert (a & b).sum() / (a | b).sum() > 0.9, "M x M cells of a vote are not those of the member"
    np.testing.assert_allclose(joined.agreement, 1, atol=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_of_one_member_keeps_its_mask_and_loses_score(method) -> None:
    joined = method(pooled(member(found([BOX], [0.8])), member(found([], [])), member(found([[40, 2, 50, 9]], [0.5]))))
    assert len(joined) == 2
    np.testing.assert_array_equal(joined.boxes[0], BOX)
    assert (joined.masks == 1).all()
    if method is not NMS_:
        np.testing.assert_allclose(joined.scores, [0.8 / 3, 0.5 / 3], rtol=1e-6)
    np.testing.assert_allclose(joined.agreement, 1 / 3, rtol=1e-6)


def naive_wbf(boxes: list[np.ndarray], scores: list[np.ndarray], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Solovyev et al. 2021, with the running mean, written from the paper."""
    flat = sorted(
        ((s, m, b) for m, (bs, ss) in enumerate(zip(boxes, scores, strict=True)) for b, s in zip(bs, ss, strict=True)),
        key=lambda one: -one[0],
    )
    clusters: list[list[tuple[float, int, np.ndarray]]] = []
    fused: list[np.ndarray] = []
    for one in flat:
        ious = [box_iou(one[2], f) for f in fused]
        best = int(np.argmax(ious)) if ious else -1
        if best < 0 or ious[best] <= threshold:
            clusters.append([one])
            fused.append(one[2])
        else:
            clusters[best].append(one)
            fused[best] = np.average([c[2] for c in clusters[best]], axis=0, weights=[c[0] for c in clusters[best]])
    confidence = [np.mean([c[0] for c in own]) * min(len(own), len(boxes)) / len(boxes) for own in clusters]
    order = np.argsort(-np.array(confidence), kind="stable")
    return np.array(fused)[order], np.array(confidence)[order]


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_wbf_gives_the_papers_boxes_and_scores() -> None:
    random = np.random.default_rng(0)
    corners = np.array([[x, y] for x in (2, 17, 32, 47) for y in (2, 15, 28)], float)
    boxes, scores, members = [], [], []
    for _ in range(4):
        kept = corners[random.random(len(corners)) > 0.3]
        low = kept + random.uniform(-1, 1, kept.shape)
        boxes.append(np.concatenate([low, low + random.uniform(8, 10, kept.shape)], axis=1))
        scores.append(random.uniform(0.3, 1, len(kept)))
        members.append(member(found(boxes[-1].tolist(), scores[-1].tolist())))
    expected_boxes, expected_scores = naive_wbf(boxes, scores, 0.4)
    joined = WBF_(pooled(*members))
    assert len(joined) == len(expected_boxes) > 8
    np.testing.assert_allclose(joined.scores, expected_scores, rtol=1e-5)
    np.testing.assert_allclose(joined.boxes, expected_boxes, rtol=1e-5)


def test_wbf_weights() -> None:
    a, b = found([[10, 10, 30, 20]], [0.8], [0]), found([[12, 10, 32, 20]], [0.4], [1])
    joined = WBF_(pooled(member(a, 1.0), member(b, 3.0)))
    part = 0.8 * 1 / (0.8 * 1 + 0.4 * 3)
    np.testing.assert_allclose(joined.boxes[0], [10 * part + 12 * (1 - part), 10, 30 * part + 32 * (1 - part), 20])
    np.testing.assert_allclose(joined.scores, (0.8 * 1 + 0.4 * 3) / (1 + 3), rtol=1e-6)
    assert joined.cell_types.tolist() == [1], "0.4 x 3 against 0.8 x 1"


def test_wbf_without_penalty_for_being_alone() -> None:
    joined = replace(WBF_, share_power=0.0)(pooled(member(found([BOX], [0.8])), member(found([], []))))
    np.testing.assert_allclose(joined.scores, 0.8)
    np.testing.assert_allclose(joined.agreement, 1 / 2)


def test_wbf_averages_probabilities() -> None:
    joined = WBF_(pooled(member(found([BOX], [0.9])), member(found([BOX], [0.9], value=0.6))))
    np.testing.assert_allclose(joined.masks[0].astype(float), (1 + 0.6) / 2, atol=1e-3)


def test_vote_is_the_majority_of_the_pixels() -> None:
    left, right, tall = [10, 10, 28, 20], [12, 10, 30, 20], [12, 10, 28, 26]
    joined = VOTE(pooled(*(member(found([box], [0.5], size=40)) for box in (left, right, tall))))
    votes = sum(np.asarray(pixels(found([box], [0.5]))).astype(int) for box in (left, right, tall))
    np.testing.assert_array_equal(pixels(joined), votes >= 2)
    assert joined.boxes[0].tolist() == [10, 10, 30, 26]
    most, masks = votes >= 2, [mask_of(box) for box in (left, right, tall)]
    expected = np.mean([(one & most).sum() / (one | most).sum() for one in masks])
    np.testing.assert_allclose(joined.agreement, expected, rtol=1e-6)


def mask_of(box: list[int]) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_vote_leaves_out_a_single_slip() -> None:
    slip = [10, 10, 50, 20]
    members = [member(found([BOX], [0.9], size=40)) for _ in range(5)]
    joined = VOTE(pooled(*members, member(found([slip], [0.9], size=40))))
    assert joined.boxes[0].tolist() == BOX, "1/6 of the votes is below min_share"


def test_nms_keeps_the_largest_weight_times_score() -> None:
    a, b = found([BOX, [40, 30, 50, 39]], [0.6, 0.3]), found([[11, 10, 31, 20]], [0.9])
    joined = NMS_(pooled(member(a, 1.0), member(b, 0.5)))
    np.testing.assert_allclose(joined.scores, [0.6, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(joined.boxes[0], BOX)
    np.testing.assert_allclose(joined.agreement, [(1 + 0.5 * 19 / 21) / 1.5, 1 / 1.5], rtol=1e-5)


def test_neighbours_with_shared_boxes_stay_two_cells() -> None:
    """Two crossing bars: their boxes agree, their masks do not."""
    bar = np.zeros((2, 8, 8), np.float16)
    bar[0, np.arange(8), np.arange(8)], bar[1, np.arange(8), 7 - np.arange(8)] = 1, 1
    both = replace(found([[10, 10, 34, 34]] * 2, [0.9, 0.8]), masks=bar)
    for method in (WBF_, VOTE):
        joined = method(pooled(member(both), member(both)))
        assert len(joined) == 2 and joined.agreement.min() > 0.7


def test_a_detection_goes_to_the_cell_it_agrees_with_most() -> None:
    two, between = [[10, 10, 30, 20], [20, 10, 40, 20]], [[17, 10, 37, 20]]  # IoU 13/27 with the first, 17/23
    low = cluster(pooled(member(found(two, [0.9, 0.8])), member(found(between, [0.3]))), 0.4, 0.4)
    assert low.seed.tolist() == [0, 1] and low.rows.tolist() == [0, 1, 2] and low.cell.tolist() == [0, 1, 1]
    high = cluster(pooled(member(found(two, [0.9, 0.7])), member(found(between, [0.8]))), 0.4, 0.4)
    assert high.seed.tolist() == [0, 2] and high.rows.tolist() == [0, 2, 1] and high.cell.tolist() == [0, 1, 1]


def test_duplicates_of_one_member_are_dropped() -> None:
    joined = WBF_(pooled(member(found([BOX, [11, 10, 31, 20]], [0.9, 0.8])), member(found([BOX], [0.7]))))
    assert len(joined) == 1
    np.testing.assert_allclose(joined.scores, (0.9 + 0.7) / 2, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_found(method) -> None:
    assert len(method(pooled(member(found([], [])), member(found([], []))))) == 0


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_zero_and_masks_without_pixels(method) -> None:
    nothing = found([[5, 5, 9, 9]], [0.9], value=0.0)
    joined = method(pooled(member(found([BOX], [0.0])), member(found([BOX], [0.0])), member(nothing)))
    assert len(joined) == 1 and joined.scores.tolist() == [0] and np.isfinite(joined.masks).all()


def test_thresholds_are_levelled() -> None:
    masks = np.array([[[0.0, 0.4], [0.8, 0.9]]])
    expected = [[[0, 0.25], [0.5, 1 - 0.5 * 0.1 / 0.2]]]
    np.testing.assert_allclose(calibrated(masks, np.array([0.8])), expected, atol=1e-6)
    np.testing.assert_allclose(calibrated(masks, np.array([0.5])), masks, atol=1e-6)
    low = found([BOX], [0.9], value=0.7)
    joined = WBF_(pooled(member(low, threshold=0.65), member(low, threshold=0.6)))
    np.testing.assert_allclose(joined.masks.astype(float), (1 - 0.5 * 0.3 / 0.35 + 1 - 0.5 * 0.3 / 0.4) / 2, atol=1e-3)


def test_members_without_types_take_the_prevailing_one() -> None:
    typed, hard = found([BOX], [0.3], [2]), found([BOX, [40, 2, 50, 9]], [1.0, 1.0], [0, 0])
    assert WBF_(pooled(member(typed), member(hard, typed=False))).cell_types.tolist() == [2, 2]
    assert WBF_(pooled(member(hard, typed=False))).cell_types.tolist() == [0, 0]


def test_one_type_a_image() -> None:
    a = found([BOX, [40, 2, 50, 9], [40, 22, 50, 29]], [0.5, 0.5, 0.9], [2, 2, 1])
    assert WBF_(pooled(member(a))).cell_types.tolist() == [1, 2, 2]
    assert WBF_(pooled(member(a), image_type="majority")).cell_types.tolist() == [2, 2, 2]


@pytest.mark.parametrize("method", METHODS)
def test_masks_of_different_sizes(method) -> None:
    """The result has the largest M of all members, also of one that found nothing."""
    sizes = [member(found([BOX], [0.9], size=14)), member(found([BOX], [0.9], size=28))]
    for members, size in ((sizes, 28), ([*sizes, member(found([], [], size=40))], 40), (sizes[:1], 14)):
        joined = method(pooled(*members))
        assert (len(joined), joined.mask_size) == (1, size) and joined.masks.min() > 0.4
        np.testing.assert_allclose(joined.agreement, min(len(members), 2) / len(members), rtol=1e-3)
    nothing = method(pooled(member(found([], [], size=14)), member(found([], [], size=28))))
    assert (len(nothing), nothing.mask_size) == (0, 28)


@pytest.mark.parametrize(("name", "value"), [("mask_iou", 1.5), ("mask_iou", "half"), ("mask_iou", True)])
def test_bad_numbers_are_named(name: str, value: object) -> None:
    for method in METHODS:
        with pytest.raises(InputError, match=f"fusion.{name}: expected a number from 0 to 1"):
            replace(method, **{name: value})


def crowded(seed: int, n: int = 40) -> Detections:
    """Boxes of three types that overlap much, with scores that differ."""
    random = np.random.default_rng(seed)
    low, size = random.uniform(0, 25, (n, 2)), random.uniform(6, 14, (n, 2))
    boxes = np.concatenate((low, low + size), axis=1)
    return found(boxes.tolist(), random.uniform(0.1, 0.9, n).tolist(), random.integers(0, 3, n).tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("class_agnostic", [True, False])
def test_nms_between_types_or_within_each_is_torchvisions(seed: int, class_agnostic: bool) -> None:
    members = [crowded(2 * seed), crowded(2 * seed + 1)]
    method = NMS(box_nms=0.3, mask_nms=1.0, mask_iou=0.5, class_agnostic=class_agnostic)
    joined = method(pooled(*(member(one) for one in members)))
    both = Detections.concatenate(members)
    boxes, scores = torch.from_numpy(both.boxes), torch.from_numpy(both.scores)
    groups = torch.from_numpy(both.cell_types * (not class_agnostic))
    kept = batched_nms(boxes, scores, groups, 0.3).numpy()
    assert len(kept) < len(both)
    np.testing.assert_array_equal(joined.boxes, both.boxes[kept])
    np.testing.assert_array_equal(joined.cell_types, both.cell_types[kept])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_per_class_is_each_type_fused_by_itself(method, seed: int) -> None:
    members, method = [crowded(20 + 3 * seed + k) for k in range(3)], replace(method, class_agnostic=False)
    joined = method(pooled(*(member(one) for one in members)))
    alone = [method(pooled(*(member(m.select(m.cell_types == t)) for m in members))) for t in range(3)]
    expected = Detections.concatenate(alone)
    order, places = np.lexsort((*joined.boxes.T, joined.scores)), np.lexsort((*expected.boxes.T, expected.scores))
    for name in ("boxes", "scores", "cell_types", "masks"):
        np.testing.assert_array_equal(getattr(joined, name)[order], getattr(expected, name)[places])
    np.testing.assert_array_equal(joined.agreement[order], np.concatenate([a.agreement for a in alone])[places])
    assert len(joined) > len(replace(method, class_agnostic=True)(pooled(*(member(one) for one in members))))


@pytest.mark.parametrize("method", METHODS)
def test_one_place_claimed_by_two_types(method) -> None:
    members = [member(found([BOX], [0.9], [0])), member(found([BOX], [0.6], [2]))]
    assert method(pooled(*members)).cell_types.tolist() == [0]
    apart = replace(method, class_agnostic=False)(pooled(*members))
    assert apart.cell_types.tolist() == [0, 2] and apart.agreement.tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match="fusion.class_agnostic: expected true or false, got 'no'"):
        replace(method, class_agnostic="no")

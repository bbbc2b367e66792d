"""The order of images: against k-center by brute force, by hand, ties, no labelled image."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sartorius.labelling.review.order import review_order


def radius(images: np.ndarray, centres: np.ndarray) -> float:
    return float(np.linalg.norm(images[:, None] - centres[None], axis=2).min(axis=1).max())


@pytest.mark.parametrize("seed", range(10))
def test_as_far_as_k_center_may_be_from_the_best_choice(seed: int) -> None:
    """With equal needs it is Gonzalez' greedy k-center, whose radius is at most twice the smallest there is."""
    rng = np.random.default_rng(seed)
    images, labelled = rng.normal(size=(9, 2)), rng.normal(size=(2, 2))
    order, distance = review_order(np.ones(9), images, labelled)
    every = np.concatenate((images, labelled))
    for k in (1, 2, 3, 4):
        found = radius(every, np.concatenate((images[order[:k]], labelled)))
        best = min(
            radius(every, np.concatenate((images[list(chosen)], labelled))) for chosen in combinations(range(9), k)
        )
        assert found <= 2 * best + 1e-12
        assert distance[order[k]] == pytest.approx(found)  # the next one is the farthest
    assert sorted(order.tolist()) == list(range(9))


@pytest.mark.parametrize("seed", range(5))
def test_every_choice_has_the_largest_product_at_its_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, labelled, need = rng.normal(size=(12, 4)), rng.normal(size=(3, 4)), rng.random(12)
    order, distance = review_order(need, images, labelled)
    known, left = list(labelled), set(range(12))
    for chosen in order.tolist():
        nearest = {k: min(float(np.linalg.norm(images[k] - one)) for one in known) for k in left}
        assert need[chosen] * nearest[chosen] == pytest.approx(max(need[k] * nearest[k] for k in left))
        assert distance[chosen] == pytest.approx(nearest[chosen])
        known.append(images[chosen])
        left.remove(chosen)


def test_a_copy_of_the_worst_image_comes_last() -> None:
    images = np.array([[5.0], [5.0], [1.0], [2.0]])
    order, distance = review_order(np.array([0.9, 0.9, 0.5, 0.1]), images, np.zeros((1, 1)))
    assert order.tolist() == [0, 2, 3, 1] and distance.tolist() == [5, 0, 1, 1]


def test_need_outweighs_distance() -> None:
    order, _ = review_order(np.array([0.1, 0.9]), np.array([[4.0], [1.0]]), np.zeros((1, 1)))
    assert order.tolist() == [1, 0]


def test_without_labelled_images_the_neediest_is_first() -> None:
    order, distance = review_order(np.array([0.2, 0.8, 0.8]), np.array([[0.0], [3.0], [9.0]]), np.zeros((0, 1)))
    assert order.tolist() == [1, 2, 0] and np.isnan(distance[1]) and distance[[2, 0]].tolist() == [6, 3]


def test_perfect_images_come_by_distance_and_equal_ones_in_their_order() -> None:
    order, _ = review_order(np.zeros(3), np.array([[1.0], [2.0], [1.0]]), np.zeros((1, 1)))
    assert order.tolist() == [1, 0, 2]
    assert review_order(np.ones(4), np.zeros((4, 2)), np.zeros((1, 2)))[0].tolist() == [0, 1, 2, 3]
    assert review_order(np.zeros(0), np.zeros((0, 2)), np.zeros((1, 2)))[0].shape == (0,)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from sartorius.rescoring.trees import Trees


@pytest.fixture(scope="module")
def grown() -> tuple[HistGradientBoostingRegressor, np.ndarray]:
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 4)).round(1)
    target = np.sin(features[:, 0]) * features[:, 1] + (features[:, 2] > 0.3)
    model = HistGradientBoostingRegressor(max_iter=7, max_leaf_nodes=6, min_samples_leaf=5, early_stopping=False)
    return model.fit(features, target), features


def test_agrees_with_scikit_learn(grown: tuple[HistGradientBoostingRegressor, np.ndarray]) -> None:
    model, features = grown
    trees = Trees.of(model)
    assert len(trees.root) == 7
    others = np.random.default_rng(1).normal(size=(50, 4)) * 3
    for asked in (features, others, features[:0]):
        if len(asked):
            assert trees.predict(asked) == pytest.approx(model.predict(asked), abs=1e-12)
        else:
            assert trees.predict(asked).shape == (0,)


def test_stored_arrays_give_the_same(grown: tuple[HistGradientBoostingRegressor, np.ndarray]) -> None:
    trees = Trees.of(grown[0])
    assert (Trees.from_arrays(trees.arrays()).predict(grown[1]) == trees.predict(grown[1])).all()
    with pytest.raises(KeyError):
        Trees.from_arrays({"base": 1.0})


def test_a_tree_of_one_leaf() -> None:
    model = HistGradientBoostingRegressor(max_iter=2, early_stopping=False).fit(np.zeros((5, 1)), np.full(5, 0.25))
    assert Trees.of(model).predict(np.ones((3, 1))) == pytest.approx(3 * [0.25])


def test_trees_that_no_walk_would_leave_are_refused(grown: tuple[HistGradientBoostingRegressor, np.ndarray]) -> None:
    trees = Trees.of(grown[0])
    circle = trees.left.copy()
    circle[0] = 0
    beyond = trees.right.copy()
    beyond[0] = len(beyond)
    for changes, message in (
        ({"left": circle}, "after its parent"),
        ({"right": beyond}, "after its parent"),
        ({"root": trees.root - 1}, "outside the nodes"),
        ({"value": trees.value[1:]}, "value: .* nodes expected"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(trees, **changes)
    with pytest.raises(ValueError, match="use feature"):
        trees.predict(np.zeros((1, 1)))

"""Gradient-boosted regression trees as plain arrays: fitted by scikit-learn, evaluated and stored without it.

A stored file holds numbers only, so loading one from elsewhere executes nothing, and using it needs no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.structures.arrays import Floats, Ints

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor


@dataclass(frozen=True)
class Trees:
    """The sum of T trees; their nodes lie in one row, S in all.

    base: float64 array [], added to every prediction. root: int64 [T], each tree's first node. feature: int64 [S], the
    feature that a node splits on, -1 in a leaf. threshold: float64 [S]: values up to it go left. left, right: int64
    [S], nodes; a child comes after its parent. value: float64 [S], what a leaf adds.
    """

    base: Floats
    root: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    def __post_init__(self) -> None:
        nodes, inner = len(self.feature), np.flatnonzero(self.feature >= 0)
        arrays = self.arrays()
        for name in ("threshold", "left", "right", "value"):
            if arrays[name].shape != (nodes,):
                raise ValueError(f"{name}: {nodes} nodes expected, got {arrays[name].shape}")
        if not (np.isfinite(self.base).all() and np.isfinite(self.value).all()) or np.isnan(self.threshold).any():
            raise ValueError("base, threshold, value: numbers expected, got NaN or infinite ones")
        if len(self.root) and not (self.root.min() >= 0 and self.root.max() < nodes):
            raise ValueError("root: a tree begins outside the nodes")
        for child in (self.left[inner], self.right[inner]):  # ascending, so that no walk is endless
            if (child <= inner).any() or (child >= nodes).any():
                raise ValueError("left, right: a child must come after its parent")

    def predict(self, features: Floats) -> Floats:
        """Predict float64 [N] from features [N, F], without NaN. Raises ValueError where a tree needs more features."""
        if self.feature.max(initial=-1) >= features.shape[1]:
            raise ValueError(f"the trees use feature {self.feature.max()}, there are {features.shape[1]}")
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.root, (len(features), len(self.root))).copy()
        while (self.feature[node] >= 0).any():
            feature = self.feature[node]
            value = features[rows, np.maximum(feature, 0)]
            child = np.where(value <= self.threshold[node], self.left[node], self.right[node])
            node = np.where(feature < 0, node, child)
        return np.asarray(self.base + self.value[node].sum(axis=1))

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor) -> Trees:
        """Copy the trees of a fitted regressor with squared error and without categorical features."""
        parts = [stage[0].nodes for stage in model._predictors]
        sizes = np.array([len(nodes) for nodes in parts], np.int64)
        root = np.cumsum(sizes) - sizes
        nodes, first = np.concatenate(parts), np.repeat(root, sizes)
        leaf = nodes["is_leaf"].astype(bool)
        return cls(
            np.ravel(model._baseline_prediction)[0].reshape(()),
            root,
            np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)),
            nodes["num_threshold"].astype(np.float64),
            nodes["left"].astype(np.int64) + first,
            nodes["right"].astype(np.int64) + first,
            nodes["value"].astype(np.float64),
        )

    def arrays(self) -> dict[str, Any]:
        """Return the fields by name, to be stored."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Trees:
        """Invert `arrays`; KeyError and ValueError for content that does not fit."""
        return cls(**{field.name: np.asarray(arrays[field.name]) for field in fields(cls)})

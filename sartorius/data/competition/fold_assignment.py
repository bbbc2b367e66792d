"""Assignment of plate wells to folds: greedy, largest first, where they unbalance least; then exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sartorius.errors import InputError
from sartorius.structures.arrays import Floats, Ints

# Beside the images of each type, which weigh 1: the cells of each type, so that no fold gets all dense images.
CELLS_WEIGHT = 0.5
# And all images whatever their type, so that small types do not pile up in one fold and no fold stays empty.
ALL_WEIGHT = 0.5


def assign_folds(
    wells: Sequence[str],
    types: Sequence[str],
    cells: Sequence[int],
    n_folds: int,
    seed: int,
    before: Mapping[str, int] | None = None,
    least: int = 2,
) -> Ints:
    """Assign each image to a fold, int64 [images], by its well, cell type and number of cells.

    Greedy: wells in falling order of size (ties in an order drawn from `seed`), each to the fold that keeps the sum of
    squared shares of every type's images and cells smallest; then exchanges. before: wells that have a fold and keep
    it. Raises InputError where n_folds is below `least` or, without `before`, above the number of wells.
    """
    before = before or {}
    names, well = np.unique(np.asarray(wells), return_inverse=True)
    if not (least <= n_folds and (before or n_folds <= len(names))):
        raise InputError(
            f"{n_folds} folds of {len(names)} plate wells: expected {least} to {len(names)} folds; set data.n_folds"
        )
    load = _shares(well, types, cells)
    fold_of_well = np.array([before.get(str(name), -1) for name in names], np.int64)
    total = np.stack([load[fold_of_well == fold].sum(axis=0) for fold in range(n_folds)])
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-load.sum(axis=1)[order], kind="stable")]
    order = order[fold_of_well[order] < 0]
    for index in order:
        growth = ((total + load[index]) ** 2 - total**2).sum(axis=1)
        fold = int(np.argmin(growth))
        fold_of_well[index] = fold
        total[fold] += load[index]
    free = np.sort(order)
    fold_of_well[free] = _exchange(load[free], fold_of_well[free], total)
    return fold_of_well[well]


def _exchange(load: Floats, fold: Ints, total: Floats) -> Ints:
    """Exchange or move single wells between folds while that lowers the sum of squares.

    total: [folds, shares], of all wells in each fold, those included that are none of `load` and stay.
    """
    n_folds = len(total)
    load = np.concatenate((load, np.zeros((n_folds, load.shape[1]))))  # an empty well in each fold: its partner moves
    fold = np.concatenate((fold, np.arange(n_folds)))
    improved = True
    while improved:
        improved = False
        for i in range(len(fold)):
            change = load - load[i]
            growth = 2 * (change * (total[fold[i]] - total[fold] + change)).sum(axis=1)
            j = int(np.argmin(growth))
            if growth[j] < -1e-9:  # a well of the same fold gives growth >= 0, as 2 * change^2
                total[fold[i]] += change[j]
                total[fold[j]] -= change[j]
                fold[i], fold[j] = fold[j], fold[i]
                improved = True
    return fold[:-n_folds]


def _shares(well: Ints, types: Sequence[str], cells: Sequence[int]) -> Floats:
    """Return [wells, 2 x types + 1]: weighted shares of each type's images, its cells and all images, in each well."""
    names, kind = np.unique(np.asarray(types), return_inverse=True)
    load = np.zeros((int(well.max()) + 1, 2 * len(names) + 1))
    np.add.at(load, (well, kind), 1.0)
    np.add.at(load, (well, kind + len(names)), np.asarray(cells, float))
    load[:, -1] = np.bincount(well)
    share: Floats = load / np.maximum(load.sum(axis=0), 1)
    share[:, len(names) : -1] *= CELLS_WEIGHT
    share[:, -1] *= ALL_WEIGHT
    return share

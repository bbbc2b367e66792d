"""Folds of images: grouped by plate well, stratified by cell type, stored as a csv file.

Images of one plate well show the same cells days or fields apart, so a well in training and validation flatters the
score (by 0.0055 on this competition). Wells are assigned greedily, largest first, to the fold where they unbalance
least, then exchanged while that helps.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError, raise_all
from sartorius.files import write_csv
from sartorius.structures.arrays import Floats, Ints

COLUMNS = ("id", "fold", "cell_type", "well")
# Beside the images of each type, which weigh 1: the cells of each type, so that no fold gets all dense images.
CELLS_WEIGHT = 0.5
# And all images whatever their type, so that small types do not pile up in one fold and no fold stays empty.
ALL_WEIGHT = 0.5


@dataclass(frozen=True)
class Folds:
    """Validation fold of every labelled image. `table` has the columns id, fold, cell_type, well."""

    table: pd.DataFrame

    @property
    def n_folds(self) -> int:
        """Folds count from 0 to n_folds - 1."""
        return int(self.table["fold"].max()) + 1

    def split(self, fold: int | str) -> tuple[list[str], list[str]]:
        """Return (training images, validation images) of a fold, sorted ids; raises InputError for an unknown fold."""
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < self.n_folds:
            raise InputError(f"fold {fold!r}: there are folds 0 to {self.n_folds - 1}; give data.fold one of these")
        inside = self.table["fold"] == fold
        return sorted(self.table["id"][~inside]), sorted(self.table["id"][inside])

    def write(self, path: str | Path) -> None:
        """Write the csv file, atomically."""
        write_csv(path, self.table)


def make_folds(competition: Competition, n_folds: int, seed: int) -> Folds:
    """Assign the labelled images to folds, the same for the same images and seed.

    No well lies in two folds; images (and roughly cells) of each type are spread evenly. Without the plate columns
    every image is its own well, with a warning. Raises InputError where there are fewer wells than folds.
    """
    if not competition.has_wells:
        warnings.warn(
            f"{competition.csv}: no column sample_id, so plate wells are not known; folds are stratified by cell type "
            "only, and scores may flatter where a well lies on both sides",
            stacklevel=2,
        )
    ids = competition.ids
    fold = assign_image_folds(competition, ids, n_folds, seed)
    types = [competition.cell_type(image_id) for image_id in ids]
    shown = [competition.wells[image_id] if competition.has_wells else "" for image_id in ids]
    return Folds(pd.DataFrame({"id": ids, "fold": fold, "cell_type": types, "well": shown}))


def assign_folds(wells: Sequence[str], types: Sequence[str], cells: Sequence[int], n_folds: int, seed: int) -> Ints:
    """Assign each image to a fold, int64 [images], by its well, cell type and number of cells.

    Greedy: wells in falling order of size (ties in an order drawn from `seed`), each to the fold that keeps the sum of
    squared shares of every type's images and cells smallest; then exchanges. Raises InputError where
    n_folds is below 2 or above the number of wells.
    """
    names, well = np.unique(np.asarray(wells), return_inverse=True)
    if not 2 <= n_folds <= len(names):
        raise InputError(
            f"{n_folds} folds of {len(names)} plate wells: expected 2 to {len(names)} folds; set data.n_folds"
        )
    load = _shares(well, types, cells)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-load.sum(axis=1)[order], kind="stable")]
    total, fold_of_well = np.zeros((n_folds, load.shape[1])), np.zeros(len(names), np.int64)
    for index in order:
        growth = ((total + load[index]) ** 2 - total**2).sum(axis=1)
        fold = int(np.argmin(growth))
        fold_of_well[index] = fold
        total[fold] += load[index]
    return _exchange(load, fold_of_well, n_folds)[well]


def assign_image_folds(competition: Competition, images: Sequence[str], n_folds: int, seed: int) -> Ints:
    """Assign some labelled images to folds, int64 [images]; see `assign_folds`."""
    records = [competition.record(image_id) for image_id in images]
    wells = [competition.wells[image_id] for image_id in images]
    return assign_folds(
        wells, [record.cell_type for record in records], [len(record) for record in records], n_folds, seed
    )


def _exchange(load: Floats, fold: Ints, n_folds: int) -> Ints:
    """Exchange or move single wells between folds while that lowers the sum of squares."""
    load = np.concatenate((load, np.zeros((n_folds, load.shape[1]))))  # an empty well in each fold: its partner moves
    fold = np.concatenate((fold, np.arange(n_folds)))
    total = np.stack([load[fold == f].sum(axis=0) for f in range(n_folds)])
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


def read_folds(path: str | Path, competition: Competition) -> Folds:
    """Read a fold file of exactly these labelled images.

    Raises InputError where the file is missing or malformed, names other images, or a well lies in two folds.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such fold file; write one with `python -m sartorius.prepare`") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a readable fold file ({error}); write it again with `python -m sartorius.prepare`"
        ) from error
    if missing := [column for column in COLUMNS[:2] if column not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    _check_rows(path, table, competition)
    table = table.assign(fold=table["fold"].astype(int)).sort_values("id", ignore_index=True)
    if competition.has_wells:
        check_wells(dict(zip(table["id"], table["fold"], strict=True)), competition.wells, path)
    return Folds(table)


def _check_rows(path: str | Path, table: pd.DataFrame, competition: Competition) -> None:
    row = np.arange(2, len(table) + 2)
    bad, again = ~table["fold"].str.fullmatch("[0-9]{1,6}").to_numpy(bool), table["id"].duplicated().to_numpy(bool)
    folds, ids = table["fold"], table["id"]
    raise_all(
        [
            *(
                f"{path} row {r}: fold '{f}', expected a whole number from 0"
                for r, f in zip(row[bad], folds[bad], strict=True)
            ),
            *(
                f"{path} row {r}: image {i} a second time; an image has one fold"
                for r, i in zip(row[again], ids[again], strict=True)
            ),
        ]
    )
    listed, labelled = set(table["id"]), set(competition.ids)
    for names, what in ((labelled - listed, "lacks"), (listed - labelled, "also names")):
        if names:
            raise InputError(
                f"{path}: {what} {len(names)} images ({', '.join(sorted(names)[:3])}) compared with "
                f"{competition.csv}; it was made for other images: write it again with `python -m sartorius.prepare`"
            )
    if empty := sorted(set(range(int(table["fold"].astype(int).max()) + 1)) - set(table["fold"].astype(int))):
        raise InputError(f"{path}: no image in fold {empty[0]}; folds count from 0 without gaps")


def check_wells(fold_of: Mapping[str, int], wells: Mapping[str, str], path: str | Path) -> None:
    """Raise InputError where a plate well lies in two folds."""
    first: dict[str, str] = {}
    for image_id, fold in fold_of.items():
        other = first.setdefault(wells[image_id], image_id)
        if fold_of[other] != fold:
            raise InputError(
                f"{path}: images {other} (fold {fold_of[other]}) and {image_id} (fold {fold}) are of one plate well "
                f"'{wells[image_id]}', which flatters scores; write the file again with `python -m sartorius.prepare`"
            )


def check_leak(training: Collection[str], validation: Collection[str], wells: Mapping[str, str]) -> None:
    """Raise InputError where a validation image, or its plate well, is also trained on."""
    trained = {wells[image_id]: image_id for image_id in training}
    for image_id in validation:
        if (other := trained.get(wells[image_id])) is not None:
            what = (
                "is also a training image"
                if image_id in training
                else f"shares plate well '{wells[image_id]}' with {other}"
            )
            raise InputError(f"validation image {image_id} {what}; the score would be flattered: leave one of them out")

"""Folds of images: grouped by plate well, stratified by cell type, stored as a csv file.

Images of one plate well show the same cells days or fields apart, so a well in training and validation flatters the
score (by 0.0055 on this competition).

A folder with a dataset.json, which grows as people label, keeps its folds in a file of its own: an image that has a
fold stays there (`extend_folds`), so that weights of fold k never see a validation image of fold k in a later round.
Its column `of` holds the number of folds, as images that are removed may leave a fold empty.
"""

from __future__ import annotations

import logging
import re
import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.competition.about import read_about
from sartorius.data.competition.fold_assignment import assign_folds
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError, raise_all
from sartorius.files import write_csv
from sartorius.structures.arrays import Ints

COLUMNS = ("id", "fold", "cell_type", "well")
FILE = "folds.csv"  # in a folder with a dataset.json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folds:
    """Validation fold of every labelled image. `table` has the columns id, fold, cell_type, well, of own labels of."""

    table: pd.DataFrame

    @property
    def n_folds(self) -> int:
        """Folds count from 0 to n_folds - 1."""
        return _count(self.table)

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
    return _table(competition, assign_image_folds(competition, competition.ids, n_folds, seed))


def extend_folds(competition: Competition, n_folds: int, seed: int, path: Path) -> Folds:
    """Assign the images that a fold file lacks, and leave out those that are gone; all others keep their fold.

    An image whose well is in a fold joins it; other wells are assigned as in `assign_folds`, beside those that stay.
    A file keeps its number of folds, unless each of its wells is a fold of its own, for want of wells: then, and
    without a file, there are `n_folds`, or as many as wells. Raises InputError where the file is malformed, or a well
    lies in two folds.
    """
    ids = competition.ids
    before: dict[str, int] = {}
    count = 0
    if path.is_file():
        table = _read(path, _command(competition, path))
        count = _count(table)
        fold_of = dict(zip(table["id"], table["fold"], strict=True))
        kept = {image_id: fold_of[image_id] for image_id in ids if image_id in fold_of}
        check_wells(kept, competition, path)
        before = {competition.wells[image_id]: fold for image_id, fold in kept.items()}
    if len(before) <= count:
        count = max(count, min(n_folds, len({competition.wells[image_id] for image_id in ids})))
    return _table(competition, assign_image_folds(competition, ids, count, seed, before, least=1), count)


def update_folds(root: Path, n_folds: int, seed: int = 0) -> Folds:
    """Write folds.csv into a folder with a dataset.json whose images have changed, see `extend_folds`.

    Raises InputError where there is no dataset.json, and as `extend_folds` does.
    """
    if (about := read_about(root)) is None:
        raise InputError(f"{root}: no dataset.json in it; only folders of own labels keep folds, see data.fold_file")
    folds = extend_folds(Competition(root, about.cell_types), n_folds, seed, root / FILE)
    folds.write(root / FILE)
    return folds


def choose_folds(competition: Competition, n_folds: int, seed: int, file: str | Path | None) -> Folds:
    """Read the folds of a file, else those that the folder keeps itself, else assign `n_folds` folds by the seed.

    A file has its own number of folds; where another one was asked for, this is logged. Raises InputError as
    `read_folds` and `make_folds` do.
    """
    own = competition.root / FILE
    if file is None and competition.about is not None and own.is_file():
        folds = read_folds(own, competition)
        if n_folds != folds.n_folds != len({*competition.wells.values()}):
            log.warning("%s has %d folds, data.n_folds=%d is not applied", own, folds.n_folds, n_folds)
        return folds
    return make_folds(competition, n_folds, seed) if file is None else read_folds(file, competition)


def _count(table: pd.DataFrame) -> int:
    return int(table["of"].iloc[0] if "of" in table and len(table) else table["fold"].max() + 1)


def _table(competition: Competition, fold: Ints, of: int | None = None) -> Folds:
    ids = competition.ids
    types = [competition.cell_type(image_id) for image_id in ids]
    shown = [competition.wells[image_id] if competition.has_wells else "" for image_id in ids]
    columns = {"id": ids, "fold": fold, "cell_type": types, "well": shown}
    return Folds(pd.DataFrame(columns if of is None else {**columns, "of": of}))


def assign_image_folds(
    competition: Competition,
    images: Sequence[str],
    n_folds: int,
    seed: int,
    before: Mapping[str, int] | None = None,
    least: int = 2,
) -> Ints:
    """Assign some labelled images to folds, int64 [images]; see `assign_folds`."""
    records = [competition.record(image_id) for image_id in images]
    wells, types = [competition.wells[image_id] for image_id in images], [record.cell_type for record in records]
    return assign_folds(wells, types, [len(record) for record in records], n_folds, seed, before, least)


def read_folds(path: str | Path, competition: Competition) -> Folds:
    """Read a fold file of exactly these labelled images.

    Raises InputError where the file is missing or malformed, names other images, or a well lies in two folds.
    """
    remedy = _command(competition, path)
    table = _read(path, remedy)
    listed, labelled = set(table["id"]), set(competition.ids)
    for names, what in ((labelled - listed, "lacks"), (listed - labelled, "also names")):
        if names:
            raise InputError(
                f"{path}: {what} {len(names)} images ({', '.join(sorted(names)[:3])}) compared with "
                f"{competition.csv}; it was made for other images: write it again with `{remedy}`"
            )
    if competition.has_wells:
        check_wells(dict(zip(table["id"], table["fold"], strict=True)), competition, path)
    return Folds(table)


def _command(competition: Competition, path: str | Path) -> str:
    """Return the command that writes a fold file."""
    own = competition.about is not None and Path(path) == competition.root / FILE
    options = [f"data.root={competition.root}", *([] if own else [f"fold_file={path}"])]
    return shlex.join(["python", "-m", "sartorius.prepare", *options])


def _read(path: str | Path, remedy: str) -> pd.DataFrame:
    """Read the rows of a fold file, sorted by id, `fold` and `of` as int."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such fold file; write one with `{remedy}`") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable fold file ({error}); write it again with `{remedy}`") from error
    if missing := [column for column in COLUMNS[:2] if column not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    _check_rows(path, table)
    table = table.astype({column: int for column in ("fold", "of") if column in table})
    if "of" not in table and (empty := sorted({*range(table["fold"].max() + 1)} - {*table["fold"]})):
        raise InputError(f"{path}: no image in fold {empty[0]}; folds count from 0 without gaps")
    return table.sort_values("id", ignore_index=True)


def _check_rows(path: str | Path, table: pd.DataFrame) -> None:
    if "of" in table:
        numbers = sorted({*table["of"]})
        if len(numbers) > 1 or not all(re.fullmatch("[1-9][0-9]{0,5}", text) for text in numbers):
            raise InputError(
                f"{path}: column of holds {', '.join(numbers[:3])}; expected the number of folds, the same in all rows"
            )
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
                f"{path} row {r}: fold {f}, but there are folds 0 to {int(of) - 1}; correct it"
                for r, f, of in zip(row[~bad], folds[~bad], table["of"][~bad] if "of" in table else (), strict=False)
                if int(f) >= int(of)
            ),
            *(
                f"{path} row {r}: image {i} a second time; an image has one fold"
                for r, i in zip(row[again], ids[again], strict=True)
            ),
        ]
    )


def check_wells(fold_of: Mapping[str, int], competition: Competition, path: str | Path) -> None:
    """Raise InputError where a plate well lies in two folds."""
    wells, name = competition.wells, competition.well_name
    first: dict[str, str] = {}
    for image_id, fold in fold_of.items():
        other = first.setdefault(wells[image_id], image_id)
        if fold_of[other] != fold:
            raise InputError(
                f"{path}: images {other} (fold {fold_of[other]}) and {image_id} (fold {fold}) are of one "
                f"{name} '{wells[image_id]}', which flatters scores; correct the {name}s in train.csv, or delete the "
                f"file, write it with `{_command(competition, path)}` and train from new weights"
            )


def check_leak(
    training: Collection[str], validation: Collection[str], wells: Mapping[str, str], well_name: str = "plate well"
) -> None:
    """Raise InputError where a validation image, or its plate well, is also trained on."""
    trained = {wells[image_id]: image_id for image_id in training}
    for image_id in validation:
        if (other := trained.get(wells[image_id])) is not None:
            what = (
                "is also a training image"
                if image_id in training
                else f"shares {well_name} '{wells[image_id]}' with {other}"
            )
            raise InputError(f"validation image {image_id} {what}; the score would be flattered: leave one of them out")

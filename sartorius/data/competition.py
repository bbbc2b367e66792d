"""The competition's folder: train.csv, train/, test/, train_semi_supervised/, sample_submission.csv.

A labelled picture is the rows of one id in train.csv (a row is a cell; a picture without cells is one row with an empty
annotation) and train/<id>.png. What does not fit together is found here, before any training, and said with file, row
and picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius import rle
from sartorius.cells import CELL_TYPES
from sartorius.data.annotation_rows import LabelledPicture, labelled_picture, parse_runs, read_table
from sartorius.data.pictures import GreyImage, list_pictures, read_grey
from sartorius.errors import InputError
from sartorius.instances import Instances

_HOW_TO_GET = (
    "get the data with `kaggle competitions download -c sartorius-cell-instance-segmentation` and unzip it there, give "
    "another folder with data.root=..., or write a synthetic one with `python -m sartorius.prepare source=synthetic`"
)


class Competition:
    """The labelled pictures of a folder in the competition's layout.

    The constructor reads train.csv and the header of every picture (0.2 s for 606 pictures) and raises InputError for
    what does not fit; `check` decodes pictures and annotations. With `keep_going` pictures that do not fit are left out
    and the reasons collected in `problems` (for the audit). A PNG without a row is left out with a warning (`unused`).

    pictures: id -> LabelledPicture, sorted by id.  cell_type_names: the names that class indices count in.
    """

    def __init__(self, root: str | Path, cell_type_names: Sequence[str] = CELL_TYPES, keep_going: bool = False) -> None:
        self.root, self.keep_going = Path(root), keep_going
        self.csv = self.root / "train.csv"
        self.cell_type_names = tuple(cell_type_names)
        self.problems: list[str] = []
        for needed in (self.root, self.csv, self.root / "train"):
            if not needed.exists():
                raise InputError(f"{needed}: not found; {_HOW_TO_GET}")
        table = read_table(self.csv)
        self.has_wells = "sample_id" in table
        self.pictures: dict[str, LabelledPicture] = {}
        for picture, rows in table.groupby("id", sort=True):
            self._attempt(lambda p=str(picture), r=rows: self._add(p, r))
        named = set(table["id"])
        self.unused = [path for path in list_pictures(self.root / "train") if path.stem not in named]
        if self.unused:
            names = ", ".join(path.name for path in self.unused[:3])
            warnings.warn(
                f"{self.root / 'train'}: {len(self.unused)} pictures without a row in train.csv are left out ({names})",
                stacklevel=2,
            )

    def _attempt(self, action: object) -> bool:
        """Run `action`; with `keep_going` an InputError is noted instead of raised. True when it went well."""
        try:
            action()  # type: ignore[operator]
        except InputError as error:
            if not self.keep_going:
                raise
            self.problems.append(str(error))
            return False
        return True

    def _add(self, picture: str, rows: pd.DataFrame) -> None:
        path = self.root / "train" / f"{picture}.png"
        self.pictures[picture] = labelled_picture(picture, rows, self.csv, path, self.cell_type_names)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the labelled pictures, sorted."""
        return tuple(self.pictures)

    @cached_property
    def wells(self) -> dict[str, str]:
        """Picture -> plate well; a picture whose well is not known is its own well."""
        return {picture: record.well or picture for picture, record in self.pictures.items()}

    def record(self, picture: str) -> LabelledPicture:
        """What train.csv says about a picture; raises InputError for an id that is not labelled."""
        if picture not in self.pictures:
            raise InputError(f"{self.csv}: no labelled picture '{picture}'; ids look like {', '.join(self.ids[:3])}")
        return self.pictures[picture]

    def image(self, picture: str) -> GreyImage:
        """The pixels of a picture, uint8 [H, W]; raises InputError where the file is damaged."""
        return read_grey(self.record(picture).path)

    def runs(self, picture: str) -> rle.Runs:
        """The runs of the picture's cells in the order of train.csv; raises InputError naming row and picture."""
        return parse_runs(self.record(picture), self.csv)

    def instances(self, picture: str) -> Instances:
        """The picture's cells as annotated, in the order of train.csv. Decoded at every call: datasets keep them."""
        record = self.record(picture)
        cell_type = self.cell_type_names.index(record.cell_type)
        return Instances.from_runs(self.runs(picture), np.full(len(record), cell_type))

    def cell_type(self, picture: str) -> str:
        """Name of the picture's cell type."""
        return self.record(picture).cell_type

    def check(self, pictures: Iterable[str] | None = None) -> None:
        """Decode these pictures (default: all) and their annotations; raises InputError for the first that is bad.

        With `keep_going` bad pictures are dropped and noted in `problems` instead.
        """
        for picture in list(self.ids if pictures is None else pictures):
            if not self._attempt(lambda p=picture: (self.image(p), self.runs(p))):
                del self.pictures[picture]

    def test_pictures(self) -> list[Path]:
        """The PNGs of test/, sorted; empty when there is no such folder."""
        return self._folder("test")

    def unlabelled_pictures(self) -> list[Path]:
        """The PNGs of train_semi_supervised/, sorted, or none; `well_of` a file's stem is its plate well."""
        return self._folder("train_semi_supervised")

    def _folder(self, name: str) -> list[Path]:
        return list_pictures(self.root / name) if (self.root / name).is_dir() else []

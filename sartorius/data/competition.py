"""The competition's folder: train.csv, train/, test/, train_semi_supervised/, sample_submission.csv.

A labelled picture is the rows of one id in train.csv (a row is a cell; a picture without cells is one row with an empty
annotation) and train/<id>.png. What does not fit together is found here, before any training, and said with file, row
and picture.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius import rle
from sartorius.cells import CELL_TYPES
from sartorius.data.pictures import GreyImage, list_pictures, read_grey, read_header
from sartorius.errors import InputError
from sartorius.instances import Instances

COLUMNS = ("id", "annotation", "width", "height", "cell_type")
_HOW_TO_GET = (
    "get the data with `kaggle competitions download -c sartorius-cell-instance-segmentation` and unzip it there, give "
    "another folder with data.root=..., or write a synthetic one with `python -m sartorius.prepare source=synthetic`"
)
_WELL = re.compile(r"^(.+?_[A-P]\d{1,2})(?=[-_.]|$)")  # a 384-well plate has rows A to P and columns 1 to 24


def well_of(sample_id: str) -> str:
    """The plate well of a sample id or of an unlabelled picture's file name: the text through `_G11`.

    `astros[cereb]_G11-4_Vessel-361_Ph_4` gives `astros[cereb]_G11`. A text without such a part is its own well.
    """
    found = _WELL.match(sample_id)
    return found[1] if found else sample_id


@dataclass(frozen=True)
class LabelledPicture:
    """What train.csv says about one picture. `rows` are line numbers of the csv file (the header is line 1)."""

    id: str
    path: Path
    height: int
    width: int
    cell_type: str
    annotations: tuple[str, ...]
    rows: tuple[int, ...]
    well: str | None

    def __len__(self) -> int:
        return len(self.annotations)


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
        table = _read_table(self.csv)
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
        record = _labelled_picture(picture, rows, self.csv, self.root / "train" / f"{picture}.png")
        if record.cell_type not in self.cell_type_names:
            raise InputError(
                f"{self.csv} row {record.rows[0]}: picture {picture} has cell type '{record.cell_type}', expected one "
                f"of {', '.join(self.cell_type_names)}; correct the row"
            )
        height, width, mode = read_header(record.path)
        if (height, width) != (record.height, record.width):
            raise InputError(
                f"{record.path}: {width}x{height} pixels, but {self.csv} row {record.rows[0]} says "
                f"{record.width}x{record.height}; put the original picture back or correct the row"
            )
        if mode != "L":
            read_grey(record.path)  # says what is wrong with it
        self.pictures[picture] = record

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
        record = self.record(picture)
        try:
            return rle.parse(record.annotations, record.height, record.width)
        except rle.RleError as error:
            row = record.rows[error.cell]
            raise InputError(f"{self.csv} row {row}: annotation of picture {picture}: {error.problem}") from error

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


def _read_table(path: Path) -> pd.DataFrame:
    """train.csv as text, with the line number of each row in `row`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{path}: the file is empty; expected the header {','.join(COLUMNS)} and a row per cell"
        ) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable csv file ({error}); copy or download it again") from error
    if missing := [column for column in COLUMNS if column not in table]:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}, found {', '.join(table.columns)}"
        )
    table = table.fillna("")
    table["row"] = np.arange(2, len(table) + 2)
    table = table[(table[list(COLUMNS)] != "").any(axis=1)]
    if table.empty:
        raise InputError(
            f"{path}: no rows; expected one for each cell (and one without annotation for a picture without cells)"
        )
    if (table["id"] == "").any():
        raise InputError(
            f"{path} row {table['row'][table['id'] == ''].iloc[0]}: no id; name the picture or remove the row"
        )
    return table


def _labelled_picture(picture: str, rows: pd.DataFrame, csv: Path, path: Path) -> LabelledPicture:
    for column in ("cell_type", "height", "width", "sample_id"):
        if column in rows and (rows[column] != rows[column].iloc[0]).any():
            other = rows[rows[column] != rows[column].iloc[0]].iloc[0]
            raise InputError(
                f"{csv} row {other['row']}: picture {picture} has {column} '{other[column]}', but row "
                f"{rows['row'].iloc[0]} says '{rows[column].iloc[0]}'; a picture has one, correct the rows"
            )
    first = rows.iloc[0]
    cells = rows[rows["annotation"].str.strip() != ""]
    if 0 < len(cells) < len(rows):
        row = rows["row"][rows["annotation"].str.strip() == ""].iloc[0]
        raise InputError(
            f"{csv} row {row}: an empty annotation, but picture {picture} has cells in other rows; remove the row"
        )
    if len(cells) == 0 and len(rows) > 1:
        raise InputError(
            f"{csv} row {rows['row'].iloc[1]}: picture {picture} has a second empty annotation; remove the row"
        )
    return LabelledPicture(
        id=picture,
        path=path,
        height=_pixels(first, "height", csv),
        width=_pixels(first, "width", csv),
        cell_type=str(first["cell_type"]),
        annotations=tuple(cells["annotation"]),
        rows=tuple(int(row) for row in (cells if len(cells) else rows)["row"]),
        well=well_of(str(first["sample_id"])) if first.get("sample_id", "") else None,
    )


def _pixels(row: pd.Series, column: str, csv: Path) -> int:
    text = str(row[column])
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"{csv} row {row['row']}: {column} '{text}' of picture {row['id']}, expected a number of pixels"
        )
    return int(text)

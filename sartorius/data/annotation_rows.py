"""Rows of train.csv and of files like it: a row is a cell, an image is all rows of an id.

An image without cells is one row with an empty annotation. Rows that contradict each other raise InputError with file,
row and image.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.image_files import read_header
from sartorius.data.images import read_grey
from sartorius.errors import InputError, InputErrors, raise_all
from sartorius.structures import rle
from sartorius.structures.arrays import GreyImage
from sartorius.structures.image_ids import id_problem
from sartorius.structures.rle_readings import shape_hint

COLUMNS = ("id", "annotation", "width", "height", "cell_type")
_WELL = re.compile(r"^(.+?_[A-P]\d{1,2})(?=[-_.]|$)")  # a 384-well plate has rows A to P and columns 1 to 24


def well_of(sample_id: str) -> str:
    """Return the plate well of a sample id or of an unlabelled image's file name: the text through `_G11`.

    `astros[cereb]_G11-4_Vessel-361_Ph_4` gives `astros[cereb]_G11`. A text without such a part is its own well.
    """
    match = _WELL.match(sample_id)
    return match[1] if match else sample_id


@dataclass(frozen=True)
class LabelledImage:
    """The rows of one image. `rows` are line numbers of the csv file (the header is line 1)."""

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


class AnnotatedImages:
    """The images of a csv file of annotation rows: an `ImageSource` whose `instances` a subclass decodes.

    csv: the file.  images: id -> LabelledImage, sorted by id.
    """

    def __init__(self, csv: Path) -> None:
        self.csv = csv
        self.images: dict[str, LabelledImage] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, sorted."""
        return tuple(self.images)

    def record(self, image_id: str) -> LabelledImage:
        """Return the rows of an image; raises InputError for an id without any."""
        if image_id not in self.images:
            raise InputError(f"{self.csv}: no labelled image '{image_id}'; ids look like {', '.join(self.ids[:3])}")
        return self.images[image_id]

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]; raises InputError where the file is damaged."""
        return read_grey(self.record(image_id).path)

    def cell_type(self, image_id: str) -> str:
        """Return the name of the image's cell type."""
        return self.record(image_id).cell_type


def read_table(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Read the file as text, with the line number of each row in `row` (the header is line 1); blank rows are left out.

    Raises InputError where it is missing, no csv, empty, lacks one of `columns`, or a row has no id or a bad one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{path}: the file is empty; expected the header {','.join(columns)} and a row per cell"
        ) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable csv file ({error}); copy or download it again") from error
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; expected {', '.join(columns)}, found {', '.join(table.columns)}"
        )
    table = table.fillna("")
    table["row"] = np.arange(2, len(table) + 2)
    table = table[(table[list(columns)] != "").any(axis=1)]
    if table.empty:
        raise InputError(
            f"{path}: no rows; expected one for each cell (and one without annotation for an image without cells)"
        )
    first = table.drop_duplicates("id")
    found = zip(first["row"], map(id_problem, first["id"]), strict=True)
    raise_all([f"{path} row {row}: {problem}" for row, problem in found if problem is not None])
    return table


def labelled_image(
    image_id: str,
    rows: pd.DataFrame,
    csv: Path,
    path: Path,
    cell_type_names: Sequence[str],
    types_of_file: Iterable[str],
) -> LabelledImage:
    """Check the rows of one id in a table of `read_table` against each other and the header of the image.

    types_of_file: cell types of all rows, which a message suggests. Raises InputError where rows contradict each other,
    the cell type is none of `cell_type_names`, or the image is missing, no 8-bit grey one, or of another size.
    """
    record = _from_rows(image_id, rows, csv, path)
    if record.cell_type not in cell_type_names:
        raise InputError(
            f"{csv} row {record.rows[0]}: image {image_id} has cell type '{record.cell_type}', expected one "
            f"of {', '.join(cell_type_names)}; correct the rows, or give your own types: "
            f"cell_types=[{','.join(dict.fromkeys(types_of_file))}]"
        )
    header = read_header(record.path)
    if header[:2] != (record.height, record.width):
        raise InputError(
            f"{record.path}: {header.width}x{header.height} pixels, but {csv} row {record.rows[0]} says "
            f"{record.width}x{record.height}; put the original image back or correct the row"
        )
    if not header.is_plain:
        read_grey(record.path)  # raises
    return record


def parse_runs(record: LabelledImage, csv: Path, cells: Iterable[int] | None = None) -> rle.Runs:
    """Parse the runs of an image's cells in the order of the file, or of these `cells` in theirs.

    Raises InputError naming rows and image.
    """
    chosen = list(range(len(record)) if cells is None else cells)
    texts = [record.annotations[cell] for cell in chosen]
    try:
        return rle.parse(texts, record.height, record.width)
    except rle.RleError:
        bad = rle.problems(texts, record.height, record.width)
    where = f"annotation of image {record.id}"
    raise InputErrors([f"{csv} row {record.rows[chosen[error.cell]]}: {where}: {error.problem}" for error in bad])


def doubts(csv: Path, records: Sequence[LabelledImage]) -> list[str]:
    """Name what is valid in the rows of these images but is hardly meant: rows that stand twice, another reading."""
    twice = []
    for record in records:
        first: dict[str, int] = {}
        for row, text in zip(record.rows, record.annotations, strict=False):
            if first.setdefault(" ".join(text.split()), row) != row:
                twice.append(f"row {row} is row {first[' '.join(text.split())]} again")
    found = []
    if twice:
        some = ", ".join(twice[:3]) + (", ..." if len(twice) > 3 else "")
        found.append(
            f"{csv}: rows that repeat another one: {len(twice)} ({some}); each counts as a cell of its own, in "
            "training and in the score: remove them if they are a slip"
        )
    hint = shape_hint(csv, (parse_runs(record, csv) for record in records))
    return found if hint is None else [*found, hint]


def _from_rows(image_id: str, rows: pd.DataFrame, csv: Path, path: Path) -> LabelledImage:
    first, problems = rows.iloc[0], []
    for column in ("cell_type", "height", "width", "sample_id"):
        if column in rows:
            others = rows[rows[column] != first[column]]
            problems += [
                f"{csv} row {row}: image {image_id} has {column} '{other}', but row {first['row']} says "
                f"'{first[column]}'; an image has one, correct the rows"
                for row, other in zip(others["row"], others[column], strict=True)
            ]
    cells = rows[rows["annotation"].str.strip() != ""]
    empty = rows["row"].drop(cells.index)
    what = f"an empty annotation, but image {image_id} has cells in other rows"
    if not len(cells):
        what, empty = f"image {image_id} has a second empty annotation", empty[1:]
    problems += [f"{csv} row {row}: {what}; remove the row" for row in empty]
    raise_all(problems)
    return LabelledImage(
        id=image_id,
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
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise InputError(f"{csv} row {row['row']}: {column} '{text}' of image {row['id']}, expected a number of pixels")
    return int(text)

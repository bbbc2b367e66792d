"""Images of a table of annotation rows (`annotation_rows`), checked against each other and the image files.

An image without cells is one row with an empty annotation. A row of the type `unlabelled` is a region that nobody has
labelled. Rows that contradict each other raise InputError with file, row and image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sartorius.data.annotation_rows import well_of
from sartorius.data.image_files import read_header
from sartorius.data.images import read_grey
from sartorius.errors import InputError, InputErrors, raise_all
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, GreyImage
from sartorius.structures.cell_types import UNLABELLED
from sartorius.structures.rle_readings import shape_hint


@dataclass(frozen=True)
class LabelledImage:
    """The rows of one image.

    cell_type: of most of its cells (the first of equals); of the row without annotation where there are none,
    which of own labels may be "", not known.
    annotations, types: of each cell.  unlabelled: annotations of the regions that nobody has labelled.
    rows, unlabelled_rows: line numbers of the csv file (the header is line 1).  well: must not lie in two folds.
    """

    id: str
    path: Path
    height: int
    width: int
    cell_type: str
    annotations: tuple[str, ...]
    rows: tuple[int, ...]
    well: str | None
    types: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    unlabelled_rows: tuple[int, ...] = ()

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

    def ignored(self, image_id: str) -> Bools | None:
        """Return the pixels that nobody has labelled, bool [H, W], of no cell; None where all are labelled."""
        return parse_ignored(self.record(image_id), self.csv)

    def cell_type(self, image_id: str) -> str:
        """Return the name of the image's cell type, "" where it is not known."""
        return self.record(image_id).cell_type


def labelled_image(
    image_id: str,
    rows: pd.DataFrame,
    csv: Path,
    path: Path,
    cell_type_names: Sequence[str],
    types_of_file: Iterable[str],
    mixed: bool = False,
) -> LabelledImage:
    """Check the rows of one id in a table of `read_table` against each other and the header of the image.

    types_of_file: cell types of all rows, which a message suggests. mixed: an image may hold cells of several types.
    Raises InputError where rows contradict each other, a cell type is none of `cell_type_names`, or the image is
    missing, no 8-bit grey one, or of another size.
    """
    record = record_of(image_id, rows, csv, path, mixed)
    types = zip(record.types or (record.cell_type,), record.rows, strict=True)
    allowed = ("", *cell_type_names) if mixed and not record.types else cell_type_names
    if unknown := [(name, row) for name, row in types if name not in allowed]:
        own = ",".join(name for name in dict.fromkeys(types_of_file) if name not in ("", UNLABELLED))
        raise InputError(
            f"{csv} row {unknown[0][1]}: image {image_id} has cell type '{unknown[0][0]}', expected one "
            f"of {', '.join(cell_type_names)}; correct the rows, or give your own types: cell_types=[{own}]"
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
    return _runs(record, csv, [record.annotations[k] for k in chosen], [record.rows[k] for k in chosen])


def parse_ignored(record: LabelledImage, csv: Path) -> Bools | None:
    """Parse the regions that nobody has labelled, bool [H, W], of no cell; None where all are labelled.

    Raises InputError as `parse_runs` does.
    """
    if not record.unlabelled:
        return None
    regions = _runs(record, csv, record.unlabelled, record.unlabelled_rows)
    mask = regions.foreground() & ~parse_runs(record, csv).foreground()
    return mask if mask.any() else None


def _runs(record: LabelledImage, csv: Path, texts: Sequence[str], rows: Sequence[int]) -> rle.Runs:
    try:
        return rle.parse(texts, record.height, record.width)
    except rle.RleError:
        bad = rle.problems(texts, record.height, record.width)
    where = f"annotation of image {record.id}"
    raise InputErrors([f"{csv} row {rows[error.cell]}: {where}: {error.problem}" for error in bad])


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


def record_of(image_id: str, rows: pd.DataFrame, csv: Path, path: Path, mixed: bool) -> LabelledImage:
    """Check the rows of one id against each other; see `labelled_image`, which reads the image's header too."""
    every, regions = rows, rows[rows["cell_type"] == UNLABELLED]
    rows = rows.drop(regions.index)
    if rows.empty:
        raise InputError(
            f"{csv} row {regions['row'].iloc[0]}: image {image_id} has unlabelled regions only; add a row with its "
            "cell type, whose annotation is empty where it has no cells"
        )
    first, problems = rows.iloc[0], []
    for column in (*(() if mixed else ("cell_type",)), "height", "width", "sample_id", "group"):
        if column in rows:
            compared = rows if column == "cell_type" else every
            others = compared[compared[column] != first[column]]
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
    types = [str(name) for name in (cells if len(cells) else rows)["cell_type"]]
    return LabelledImage(
        id=image_id,
        path=path,
        height=_pixels(first, "height", csv),
        width=_pixels(first, "width", csv),
        cell_type=Counter(types).most_common(1)[0][0],
        annotations=tuple(cells["annotation"]),
        rows=tuple(int(row) for row in (cells if len(cells) else rows)["row"]),
        well=well_in(first),
        types=tuple(types[: len(cells)]),
        unlabelled=tuple(regions["annotation"]),
        unlabelled_rows=tuple(int(row) for row in regions["row"]),
    )


def well_in(row: pd.Series) -> str | None:
    """Return the group of an image, else its plate well, as a row of it tells; None where it tells neither."""
    if row.get("group", ""):
        return str(row["group"])
    return well_of(str(row["sample_id"])) if row.get("sample_id", "") else None


def _pixels(row: pd.Series, column: str, csv: Path) -> int:
    text = str(row[column])
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise InputError(f"{csv} row {row['row']}: {column} '{text}' of image {row['id']}, expected a number of pixels")
    return int(text)

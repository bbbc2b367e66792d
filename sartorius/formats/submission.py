"""The competition's submission: header `id,predicted`, one row a cell, no pixel twice in an image.

An image without cells has one row with nothing predicted. The validator lists problems by line number (the
header is line 1), because a refused upload gives no reason.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sartorius.errors import InputError, raise_all
from sartorius.files import atomic_path
from sartorius.structures import rle
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.image_ids import id_problem
from sartorius.structures.rle_readings import SAMPLED, shape_hint

csv.field_size_limit(2**31 - 1)  # characters; Python's 131,072 are fewer than a large mask has
HEADER = ("id", "predicted")
Sizes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """One line of a submission: its number in the file, the image, the run-length text."""

    line: int
    image_id: str
    text: str


@dataclass(frozen=True)
class Problem:
    """A broken rule: the line (0 where the file lacks one), the image, the rule's short name, and what came."""

    line: int
    image_id: str
    rule: str
    detail: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.rule}: {self.detail}"


def write_submission(path: str | Path, rows: Mapping[str, Sequence[str]]) -> None:
    """Write the run-length texts of each image's cells, atomically; an image without cells gets one empty row."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for image_id, texts in rows.items():
            writer.writerows((image_id, text) for text in texts or [""])


def read_rows(path: str | Path) -> list[Row]:
    """Read the rows of a submission in their order, without blank lines.

    Raises InputError when the file cannot be read, its header is not `id,predicted`, or rows have not two columns or a
    bad id.
    """
    rows, problems = _read(path)
    raise_all([f"{path}: {problem}" for problem in problems])
    return rows


def _read(path: str | Path) -> tuple[list[Row], list[Problem]]:
    """Read the rows, and the problems of header, columns and ids. Raises InputError when the file cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a csv with the header {','.join(HEADER)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv file ({error})") from error
    header = tuple(lines[0][1]) if lines else ()
    if header != HEADER:
        got = ",".join(header)[:80] if header else "an empty file"
        return [], [Problem(1, "", "header", f"expected {','.join(HEADER)}, found {got}")]
    rows, problems = [], []
    bad = {image_id: id_problem(image_id) for image_id in {row[0] for _, row in lines[1:]}}
    for line, row in lines[1:]:
        if len(row) != len(HEADER):
            problems.append(Problem(line, row[0], "columns", f"expected 2, id and predicted, found {len(row)}"))
        elif detail := bad[row[0]]:
            problems.append(Problem(line, row[0], "bad id", detail))
        else:
            rows.append(Row(line, row[0], row[1].strip()))
    return rows, problems


def read_submission(path: str | Path) -> dict[str, list[str]]:
    """Read the texts of each image's cells, [] for an image without cells, images in the order of the file.

    Masks are not checked; `validate_submission` does. Raises InputError as `read_rows` does.
    """
    images: dict[str, list[str]] = {}
    for row in read_rows(path):
        images.setdefault(row.image_id, []).extend([row.text] if row.text else [])
    return images


def validate_submission(path: str | Path, sizes: Sizes | None = None, limit: int = 50) -> list[Problem]:
    """List the rules that the file breaks, at most `limit` problems, by line; [] for a file that may be submitted.

    `sizes`: (height, width) of each expected image; without it any id is accepted and images are 520 x 704.
    Rules: header, columns, bad id, unknown id, missing id, empty row (beside others), duplicate row, bad mask, overlap.
    Raises InputError only when the file cannot be read at all.
    """
    rows, problems = _read(path)
    if rows or not problems:
        problems += check_rows(rows, sizes, limit)
    return sorted(problems, key=lambda problem: (problem.line == 0, problem.line))[:limit]


def submission_hint(path: str | Path, images: Mapping[str, Sequence[str]], sizes: Sizes | None = None) -> str | None:
    """Format a hint where the masks of these images of a file fit in another reading, see `rle_readings`.

    sizes: see `validate_submission`; None without a hint where masks do not fit in images of the competition's size.
    """
    sample = list(images.items())[:SAMPLED]
    try:
        runs = [rle.parse(texts, *(sizes or {}).get(image_id, (HEIGHT, WIDTH))) for image_id, texts in sample]
    except rle.RleError:
        return None
    return shape_hint(path, runs)


def check_rows(rows: Iterable[Row], sizes: Sizes | None = None, limit: int = 50) -> list[Problem]:
    """List the problems as `validate_submission`, of rows that were read already."""
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image_id].append(row)
    problems: list[Problem] = []
    for image_id, image_rows in by_image.items():
        if sizes is not None and image_id not in sizes:
            detail = f"{image_id!r} is not one of the {len(sizes)} expected images"
            problems.append(Problem(image_rows[0].line, image_id, "unknown id", detail))
        height, width = (sizes or {}).get(image_id, (HEIGHT, WIDTH))
        problems += _check_image(image_rows, height, width)
        if len(problems) >= limit:
            return sorted(problems[:limit], key=lambda problem: problem.line)
    missing = [image_id for image_id in sizes or () if image_id not in by_image]
    detail = "image {} has no row; one without cells needs a row with nothing predicted"
    problems += [Problem(0, image_id, "missing id", detail.format(image_id)) for image_id in missing]
    return sorted(problems[:limit], key=lambda problem: (problem.line == 0, problem.line))


def _check_image(rows: list[Row], height: int, width: int) -> list[Problem]:
    """List the problems of one image's rows; rows with a bad text and copies are not searched for overlaps."""
    problems: list[Problem] = []
    first_line: dict[str, int] = {}
    masks: list[Row] = []
    for row in rows:
        if row.text in first_line:
            detail = f"the same as line {first_line[row.text]}, image {row.image_id}"
            problems.append(Problem(row.line, row.image_id, "duplicate row", detail))
        elif row.text:
            masks.append(row)
        elif len(rows) > 1:
            detail = f"nothing predicted, but image {row.image_id} has other rows"
            problems.append(Problem(row.line, row.image_id, "empty row", detail))
        first_line.setdefault(row.text, row.line)
    try:
        return problems + _overlaps(masks, rle.parse([row.text for row in masks], height, width))
    except rle.RleError:
        bad = {error.cell: error.problem for error in rle.problems([row.text for row in masks], height, width)}
    problems += [
        Problem(masks[k].line, masks[k].image_id, "bad mask", f"image {masks[k].image_id}: {problem}")
        for k, problem in bad.items()
    ]
    good = [row for k, row in enumerate(masks) if k not in bad]
    return problems + _overlaps(good, rle.parse([row.text for row in good], height, width))


def _overlaps(rows: list[Row], runs: rle.Runs) -> list[Problem]:
    return [
        Problem(
            rows[j].line,
            rows[j].image_id,
            "overlap",
            f"shares {pixels} pixels with line {rows[i].line}, image {rows[j].image_id}; a pixel belongs to one cell",
        )
        for i, j, pixels in zip(*(array.tolist() for array in rle.overlaps(runs)), strict=True)
    ]

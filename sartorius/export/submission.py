"""The competition's submission: header `id,predicted`, one row a cell, no pixel twice in a picture.

A picture without cells has one row with nothing predicted. The validator lists what is wrong by line number (the
header is line 1), because an upload that is refused does not say why.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sartorius import rle
from sartorius.cells import HEIGHT, WIDTH
from sartorius.errors import InputError
from sartorius.files import atomic_path

HEADER = ("id", "predicted")
Sizes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """One line of a submission: its number in the file, the picture, the run-length text."""

    line: int
    picture: str
    text: str


@dataclass(frozen=True)
class Problem:
    """A broken rule: the line (0 where the file lacks one), the picture, the rule's short name, and what came."""

    line: int
    picture: str
    rule: str
    detail: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.rule}: {self.detail}"


def write_submission(path: str | Path, rows: Mapping[str, Sequence[str]]) -> None:
    """Write the run-length texts of each picture's cells, atomically; a picture without cells gets one empty row."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for picture, texts in rows.items():
            writer.writerows((picture, text) for text in texts or [""])


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a submission in their order, without blank lines.

    Raises InputError when the file cannot be read, its header is not `id,predicted`, or a row has not two columns.
    """
    rows, problems = _read(path)
    if problems:
        raise InputError(f"{path}: {problems[0]}")
    return rows


def _read(path: str | Path) -> tuple[list[Row], list[Problem]]:
    """The rows, and what is wrong with the header or the columns. Raises InputError when nothing can be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a csv with the header {','.join(HEADER)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv file ({error})") from error
    header = tuple(lines[0][1]) if lines else ()
    if header != HEADER:
        found = ",".join(header)[:80] if header else "an empty file"
        return [], [Problem(1, "", "header", f"expected {','.join(HEADER)}, found {found}")]
    problems = [
        Problem(line, row[0], "columns", f"expected 2, id and predicted, found {len(row)}")
        for line, row in lines[1:]
        if len(row) != len(HEADER)
    ]
    return [Row(line, row[0], row[1].strip()) for line, row in lines[1:] if len(row) == len(HEADER)], problems


def read_submission(path: str | Path) -> dict[str, list[str]]:
    """The texts of each picture's cells, [] for a picture without cells, pictures in the order of the file.

    Masks are not checked; `validate_submission` does. Raises InputError as `read_rows` does.
    """
    pictures: dict[str, list[str]] = {}
    for row in read_rows(path):
        pictures.setdefault(row.picture, []).extend([row.text] if row.text else [])
    return pictures


def validate_submission(path: str | Path, sizes: Sizes | None = None, limit: int = 50) -> list[Problem]:
    """Every rule that the file breaks, at most `limit` problems, by line; [] for a file that may be submitted.

    `sizes`: (height, width) of each expected picture; without it any id is accepted and pictures are 520 x 704.
    Rules: header, columns, unknown id, missing id, empty row (beside others), duplicate row, bad mask, overlap.
    Raises InputError only when the file cannot be read at all.
    """
    rows, problems = _read(path)
    if rows or not problems:
        problems += check_rows(rows, sizes, limit)
    return sorted(problems, key=lambda problem: (problem.line == 0, problem.line))[:limit]


def check_rows(rows: Iterable[Row], sizes: Sizes | None = None, limit: int = 50) -> list[Problem]:
    """What `validate_submission` finds, for rows that were read already."""
    by_picture: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_picture[row.picture].append(row)
    problems: list[Problem] = []
    for picture, of_picture in by_picture.items():
        if sizes is not None and picture not in sizes:
            detail = f"{picture!r} is not one of the {len(sizes)} expected pictures"
            problems.append(Problem(of_picture[0].line, picture, "unknown id", detail))
        height, width = (sizes or {}).get(picture, (HEIGHT, WIDTH))
        problems += _check_picture(of_picture, height, width, limit - len(problems))
        if len(problems) >= limit:
            return sorted(problems[:limit], key=lambda problem: problem.line)
    missing = [picture for picture in sizes or () if picture not in by_picture]
    detail = "picture {} has no row; one without cells needs a row with nothing predicted"
    problems += [Problem(0, picture, "missing id", detail.format(picture)) for picture in missing]
    return sorted(problems[:limit], key=lambda problem: (problem.line == 0, problem.line))


def _check_picture(rows: list[Row], height: int, width: int, limit: int) -> list[Problem]:
    """The problems of one picture's rows; a row with a bad text or a copy takes no part in the search for overlaps."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    masks: list[Row] = []
    for row in rows:
        if row.text in seen:
            detail = f"the same as line {seen[row.text]}, picture {row.picture}"
            problems.append(Problem(row.line, row.picture, "duplicate row", detail))
        elif row.text:
            masks.append(row)
        elif len(rows) > 1:
            detail = f"nothing predicted, but picture {row.picture} has other rows"
            problems.append(Problem(row.line, row.picture, "empty row", detail))
        seen.setdefault(row.text, row.line)
    while len(problems) < limit:
        try:
            runs = rle.parse([row.text for row in masks], height, width)
        except rle.RleError as error:
            bad = masks.pop(error.cell)
            problems.append(Problem(bad.line, bad.picture, "bad mask", f"picture {bad.picture}: {error.problem}"))
        else:
            return problems + _overlaps(masks, runs)
    return problems


def _overlaps(rows: list[Row], runs: rle.Runs) -> list[Problem]:
    return [
        Problem(
            rows[j].line,
            rows[j].picture,
            "overlap",
            f"shares {pixels} pixels with line {rows[i].line}, picture {rows[j].picture}; a pixel belongs to one cell",
        )
        for i, j, pixels in zip(*(array.tolist() for array in rle.overlaps(runs)), strict=True)
    ]

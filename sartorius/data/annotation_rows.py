"""Tables of annotation rows, such as train.csv: a row is a cell, an image is all rows of an id."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.errors import InputError, raise_all
from sartorius.structures.image_ids import id_problem

COLUMNS = ("id", "annotation", "width", "height", "cell_type")
_WELL = re.compile(r"^(.+?_[A-P]\d{1,2})(?=[-_.]|$)")  # a 384-well plate has rows A to P and columns 1 to 24


def well_of(sample_id: str) -> str:
    """Return the plate well of a sample id or of an unlabelled image's file name: the text through `_G11`.

    `astros[cereb]_G11-4_Vessel-361_Ph_4` gives `astros[cereb]_G11`. A text without such a part is its own well.
    """
    match = _WELL.match(sample_id)
    return match[1] if match else sample_id


def read_table(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Read a table as `read_text_table` does; raises InputError also where a row has no id or a bad one."""
    table = read_text_table(path, columns)
    first = table.drop_duplicates("id")
    found = zip(first["row"], map(id_problem, first["id"]), strict=True)
    raise_all([f"{path} row {row}: {problem}" for row, problem in found if problem is not None])
    return table


def read_header(path: Path) -> tuple[str, ...]:
    """Read the names of the columns of a csv file; () where there are none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return tuple(name.strip() for name in file.readline().split(","))


def read_text_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read the file as text, with the line number of each row in `row` (the header is line 1); blank rows are left out.

    Raises InputError where it is missing, no csv, empty, or lacks one of `columns`.
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
    return table

"""Tables of cells and of images, as csv and, where pyarrow is installed, as Parquet.

Columns have the names, values and order of axes of `skimage.measure.regionprops_table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import atomic_path, write_csv
from sartorius.structures.arrays import Ints, Scores

if TYPE_CHECKING:
    from pandas import DataFrame

    from sartorius.formats.cells import Cells

DECIMALS = 6  # of numbers in csv files
# of cells.csv. label: the cell's value in the label image, from 1. area in pixels, area_um2 in square micrometres,
# lengths and centroids in pixels; empty where not known
CELL_COLUMNS = (
    "image", "label", "type", "score", "area", "area_um2", "perimeter", "centroid-0", "centroid-1",
    "axis_major_length", "axis_minor_length", "eccentricity", "solidity", "intensity_mean", "touches_border",
)  # fmt: skip
# of images.csv, with a column `cells_<type>` a cell type behind `cells`. pixel_size in micrometres; confluence: share
# of the pixels that any cell covers, 0..1; status: ok, empty (no cells) or bad (not predicted, `problem` says why)
IMAGE_COLUMNS = (
    "image", "height", "width", "pixel_size", "cells", "confluence", "mean_area", "mean_area_um2", "mean_score",
    "status", "problem",
)  # fmt: skip


def cells_table(cells: Cells, pixel_size: float | None = None) -> DataFrame:
    """Measure the cells of an image, a row each with CELL_COLUMNS; pixel_size: in place of that of the image."""
    import pandas as pd

    found, pixel = cells.measures, cells.pixel_size if pixel_size is None else pixel_size
    unknown = np.full(len(cells), np.nan)
    columns: dict[str, Any] = {
        "image": [cells.image_id] * len(cells),
        "label": np.arange(1, len(cells) + 1),
        "type": cells.types,
        "score": cells.scores.astype(np.float64).round(6),
        "area": found.area,
        "area_um2": unknown if pixel is None else found.area * pixel**2,
        "perimeter": found.perimeter,
        "centroid-0": found.centroid[:, 0],
        "centroid-1": found.centroid[:, 1],
        "axis_major_length": found.axis_major,
        "axis_minor_length": found.axis_minor,
        "eccentricity": found.eccentricity,
        "solidity": found.solidity,
        "intensity_mean": unknown if found.intensity is None else found.intensity,
        "touches_border": found.touches_border,
    }
    return pd.DataFrame(columns, columns=list(CELL_COLUMNS))


def image_row(cells: Cells) -> dict[str, Any]:
    """Summarise an image as its row of images.csv."""
    of, names = cells.instances, cells.cell_type_names
    covered = int(of.foreground().sum())
    size = (cells.height, cells.width)
    return row_of(cells.image_id, size, cells.pixel_size, of.areas, covered, cells.scores, of.cell_types, names)


def row_of(
    image_id: str, size: tuple[int, int], pixel_size: float | None, areas: Ints, covered: int, scores: Scores,
    cell_types: Ints, cell_type_names: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Make the row of an image of this size (height, width) from its cells; covered: pixels of any cell."""
    counts = np.bincount(cell_types, minlength=len(cell_type_names)).tolist()
    mean_area = float(areas.mean()) if len(areas) else None
    return {
        "image": image_id,
        "height": size[0],
        "width": size[1],
        "pixel_size": pixel_size,
        "cells": len(areas),
        **{f"cells_{name}": count for name, count in zip(cell_type_names, counts, strict=True)},
        "confluence": covered / (size[0] * size[1]),
        "mean_area": mean_area,
        "mean_area_um2": None if mean_area is None or pixel_size is None else mean_area * pixel_size**2,
        "mean_score": float(scores.mean(dtype=np.float64)) if len(scores) else None,
        "status": "ok" if len(areas) else "empty",
        "problem": None,
    }


def bad_row(image_id: str, problem: str) -> dict[str, Any]:
    """Make the row of images.csv of an image that could not be predicted."""
    return {"image": image_id, "status": "bad", "problem": problem}


def images_table(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """Join rows of images (`image_row`, `bad_row`) to the table of a folder."""
    import pandas as pd

    table = pd.DataFrame(list(rows))
    types = [name for name in table.columns if name not in IMAGE_COLUMNS]
    behind = IMAGE_COLUMNS.index("cells") + 1
    return _typed(table.reindex(columns=[*IMAGE_COLUMNS[:behind], *types, *IMAGE_COLUMNS[behind:]]))


def _typed(table: DataFrame) -> DataFrame:
    """Give the counts of a table of images whole numbers, missing for a bad image, and `problem` text."""
    if "status" not in table.columns:
        return table
    counts = [name for name in table.columns if name in ("height", "width", "cells") or name.startswith("cells_")]
    return table.astype(dict.fromkeys(counts, "Int64")).fillna({"problem": ""})


def write(cells: Cells, path: Path) -> None:
    """Write the table of an image's cells: .csv, or .parquet, which needs pyarrow (InputError)."""
    write_table(cells.table(), path)


def write_table(table: DataFrame, path: Path) -> None:
    """Write a table as .csv or .parquet, atomically; raises InputError for .parquet without pyarrow."""
    if path.suffix.lower() != ".parquet":
        return write_csv(path, table.round(DECIMALS))
    if not parquet_installed():
        raise InputError(f"{path}: Parquet needs pyarrow; `pip install pyarrow`, or write .csv")
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow", index=False)


def read_table(path: str | Path) -> DataFrame:
    """Read cells.csv or images.csv, or their .parquet. Raises InputError where it is missing or no such table."""
    import pandas as pd

    path = Path(path)
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
        else:
            text: Any = dict.fromkeys(("image", "type", "status", "problem"), str)
            table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])  # an image may be called NA
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `predict` and `convert` write it with write=[table]") from None
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{path}: not a readable table ({error}); write it again with `convert`") from error
    columns = IMAGE_COLUMNS if "status" in table.columns else CELL_COLUMNS
    if missing := [name for name in columns if name not in table.columns]:
        raise InputError(f"{path}: without the columns {', '.join(missing)}; write it again with `convert`")
    try:
        return _typed(table)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: counts that are no whole numbers ({error}); write it again with `convert`"
        ) from error


def parquet_installed() -> bool:
    """Whether Parquet files can be written."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None

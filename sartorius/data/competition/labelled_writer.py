"""Labelled images written into a folder in the competition's layout: train.csv, train/<id>.png, dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from sartorius.data.annotation_rows import COLUMNS, read_table
from sartorius.data.competition.about import About
from sartorius.data.images import read_grey
from sartorius.errors import InputError
from sartorius.files import atomic_path, write_csv
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, GreyImage
from sartorius.structures.cell_types import UNLABELLED
from sartorius.structures.image_ids import check_image_id
from sartorius.structures.instances import Instances


@dataclass(frozen=True)
class Labelled:
    """One image to write.

    image: uint8 [H, W].  instances: its cells, whose types count in `About.cell_types`.  cell_type: of an image without
    cells; "" where it is not known.  group: must not lie in two folds; "" for the image alone.  ignored: pixels that
    nobody has labelled, bool [H, W]; None for none.
    """

    image_id: str
    image: GreyImage
    instances: Instances
    cell_type: str = ""
    group: str = ""
    ignored: Bools | None = None


def write_labelled(root: Path, about: About, images: Iterable[Labelled]) -> int:
    """Add images to a folder, or replace those of the same id; rows of all others stay. Returns how many were written.

    The folder is made where it is missing. Images are written first, then train.csv, at once for all; a kill leaves the
    old one. An image that becomes labelled leaves train_semi_supervised/. Raises InputError for bad ids, an id given
    twice, cells without pixels, masks of another size than the image, and a train.csv that cannot be read.
    """
    tables = [read_table(root / "train.csv").drop(columns="row")] if (root / "train.csv").is_file() else []
    written: dict[str, pd.DataFrame] = {}
    for image in images:
        if image.image_id in written:
            raise InputError(f"{root}: two images have the id '{image.image_id}'; rename one")
        rows = rows_of(root, about, image)
        with atomic_path(root / "train" / f"{image.image_id}.png") as path:
            Image.fromarray(image.image).save(path)
        written[image.image_id] = rows
    if written:
        about.write(root)
        tables = [table[~table["id"].isin(list(written))] for table in tables]
        write_csv(root / "train.csv", pd.concat([*tables, *written.values()], ignore_index=True).fillna(""))
        for image_id in written:
            (root / "train_semi_supervised" / f"{image_id}.png").unlink(missing_ok=True)
    return len(written)


def has_other(root: Path, image_id: str, image: Callable[[str], GreyImage]) -> bool:
    """Whether a folder has an image of this id, labelled or not, with other pixels than `image` returns for it."""
    paths = [root / folder / f"{image_id}.png" for folder in ("train", "train_semi_supervised")]
    return any(not np.array_equal(read_grey(path), image(image_id)) for path in paths if path.exists())


def is_written(root: Path, about: About, image: Labelled, table: pd.DataFrame) -> bool:
    """Whether the table of a folder's train.csv has just the rows that `write_labelled` would write of an image."""
    rows = rows_of(root, about, image)
    return rows.equals(table[table["id"] == image.image_id].reindex(columns=rows.columns).reset_index(drop=True))


def rows_of(root: Path, about: About, image: Labelled) -> pd.DataFrame:
    """Make the rows of an image in train.csv, text; raises InputError as `write_labelled` does."""
    check_image_id(image.image_id, root)
    height, width = image.image.shape
    shapes = [(image.instances.height, image.instances.width)]
    shapes += [] if image.ignored is None else [image.ignored.shape]
    if wrong := [shape for shape in shapes if shape != (height, width)]:
        raise InputError(
            f"image {image.image_id}: {width}x{height} pixels, but its labels are {wrong[0][1]}x{wrong[0][0]}; "
            "give the labels of this image"
        )
    if empty := np.flatnonzero(image.instances.areas == 0).tolist():
        raise InputError(f"image {image.image_id}: cell {empty[0] + 1} has no pixels; leave it out")
    rows = [
        (text, about.cell_types[number])
        for text, number in zip(image.instances.to_rles(), image.instances.cell_types.tolist(), strict=True)
    ]
    rows = rows or [("", image.cell_type)]
    if image.ignored is not None and image.ignored.any():
        rows.append((rle.of_mask(image.ignored), UNLABELLED))
    columns = dict.fromkeys(COLUMNS, "") | {"id": image.image_id, "width": str(width), "height": str(height)}
    table = pd.DataFrame(rows, columns=["annotation", "cell_type"], dtype=str).assign(group=image.group)
    return table.assign(**{k: v for k, v in columns.items() if k not in table})[[*COLUMNS, "group"]]

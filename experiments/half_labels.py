"""Half of the labels of a folder: `python experiments/half_labels.py FOLDER OUT [SEED]`.

Writes OUT/ignored and OUT/dense with the images of FOLDER, each labelled in one half: left, right, upper or lower,
drawn by the seed. In both, cells that lie mostly in the other half are gone; in `ignored` the other half is unlabelled,
in `dense` it is background, although there are cells.
"""

from __future__ import annotations

import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.annotation_rows import read_table
from sartorius.data.competition.folder import Competition
from sartorius.files import write_csv
from sartorius.labelling.regions import partly_labelled
from sartorius.structures import rle
from sartorius.structures.arrays import Bools
from sartorius.structures.cell_types import UNLABELLED


def half(height: int, width: int, image_id: str, seed: int) -> Bools:
    """Mark one half of an image, bool [H, W]: left, right, upper or lower, a function of the seed and the id."""
    side = np.random.default_rng((seed, zlib.crc32(image_id.encode()))).integers(4)
    chosen = np.zeros((height, width), bool)
    chosen[: height // 2] = side < 2
    chosen[:, : width // 2] |= side >= 2
    return ~chosen if side % 2 else chosen


def halves(truth: Competition, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the rows of both folders, `ignored` and `dense`; an image that keeps no cell has an empty row."""
    parts = []
    rows = read_table(truth.csv)
    for image_id, table in rows.groupby("id", sort=False):
        record = truth.record(str(image_id))
        part = partly_labelled(truth.runs(record.id), half(record.height, record.width, record.id, seed))
        numbers = np.array(record.rows if len(record) else (), int)
        kept = table[table["row"].isin(numbers[part.kept])]
        kept = kept if len(kept) else table[:1].assign(annotation="")
        region = rle.of_mask(part.ignored)
        parts += [kept, table[:1].assign(annotation=region, cell_type=UNLABELLED)]
    both = pd.concat(parts, ignore_index=True).drop(columns="row")
    return both, both[both["cell_type"] != UNLABELLED]


def main(folder: str, out: str, seed: str = "0") -> None:
    """Write both folders and print how many cells they hold."""
    truth = Competition(folder)
    truth.check()
    for name, rows in zip(("ignored", "dense"), halves(truth, int(seed)), strict=True):
        root = Path(out) / name
        shutil.copytree(truth.root / "train", root / "train", dirs_exist_ok=True)
        write_csv(root / "train.csv", rows)
        made = Competition(root)
        cells = sum(len(made.record(image_id)) for image_id in made.ids)
        unlabelled = [mask.mean() for image_id in made.ids if (mask := made.ignored(image_id)) is not None]
        share = float(np.sum(unlabelled)) / len(made.ids)
        print(f"{root}: {len(made.ids)} images, {cells} cells, {share:.1%} of their area unlabelled")


if __name__ == "__main__":
    main(*sys.argv[1:])

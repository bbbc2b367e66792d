"""Pseudo-labels: predicted cells of unlabelled images, as annotations to train on.

A file has the columns of train.csv and for each cell `score`, and may have `agreement` (both 0 to 1) and `ignore`
(true or false). A sure row is a cell, a likely one is DOUBTFUL (neither cell nor background to any loss), the rest is
background. Cells of one image do not overlap, as in a submission.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.annotated_images import AnnotatedImages, LabelledImage, labelled_image, parse_runs
from sartorius.data.annotation_rows import read_table
from sartorius.data.images import list_images
from sartorius.data.pseudo_labels.settings import COLUMNS, PseudoLabels
from sartorius.errors import InputError, collected, raise_all
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, Floats
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances
from sartorius.structures.rle_readings import shape_hint

CELL, UNSURE, BACKGROUND = "cell", "unsure", "background"  # classes of rows
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


class PseudoLabelled(AnnotatedImages):
    """The images of a pseudo-label file, an `ImageSource`.

    The constructor reads the file and the header of every image; `check` decodes rows, and `leaks.admitted` images.
    Instances are the certain cells in the order of the file, then the doubtful ones (cell type DOUBTFUL).

    Raises InputError where the file is missing or malformed, names images that are not in the folder or of another
    size, an unknown cell type, or numbers out of 0..1; `agreement` is needed where a `min_agreement` is above 0.
    """

    def __init__(self, settings: PseudoLabels, cell_type_names: Sequence[str]) -> None:
        self.settings, self.cell_type_names = settings, tuple(cell_type_names)
        self.folder = Path(str(settings.folder))
        super().__init__(Path(str(settings.file)))
        table = read_table(self.csv, COLUMNS)
        paths = {path.stem: path for path in list_images(self.folder)}
        if missing := sorted(set(table["id"]) - set(paths)):
            raise InputError(
                f"{self.csv}: {len(missing)} of its images are not in {self.folder} ({', '.join(missing[:3])}); "
                "it was made for other images: give their folder with pseudo_labels.folder=FOLDER"
            )
        problems: list[str] = []
        for image_id, rows in table.groupby("id", sort=True):
            name = str(image_id)
            with collected(problems):
                self.images[name] = labelled_image(
                    name, rows, self.csv, paths[name], cell_type_names, table["cell_type"]
                )
        raise_all(problems)
        self._class_of = self._decide(table[table["annotation"].str.strip() != ""])

    def _decide(self, cells: pd.DataFrame) -> dict[int, str]:
        """Classify each row as CELL, UNSURE or BACKGROUND, by its line number in the file."""
        settings = self.settings
        score = self._numbers(cells, "score")
        agreement, ignored = np.ones(len(cells)), np.zeros(len(cells), bool)
        types = {name: cells["cell_type"].to_numpy() == name for name in dict.fromkeys(cells["cell_type"])}

        def thresholds(key: str) -> Floats:
            return sum((rows * settings.threshold(key, name) for name, rows in types.items()), np.zeros(len(cells)))

        least = thresholds("min_agreement")
        if "agreement" in cells:
            agreement = self._numbers(cells, "agreement")
        elif least.any():
            raise InputError(
                f"{self.csv}: no column agreement, which pseudo_labels.min_agreement={settings.min_agreement} asks "
                "for; set it to 0, or make the file with several models"
            )
        if "ignore" in cells:
            ignored = self._flags(cells)
        doubtful = np.minimum(thresholds("doubtful_score"), thresholds("min_score"))  # a cell is never background
        row_class = np.where(score < doubtful, BACKGROUND, UNSURE)
        row_class[(score >= thresholds("min_score")) & (agreement >= least)] = CELL
        row_class[ignored] = UNSURE
        return dict(zip(cells["row"].tolist(), row_class.tolist(), strict=True))

    def _numbers(self, cells: pd.DataFrame, column: str) -> Floats:
        values = pd.to_numeric(cells[column], errors="coerce").to_numpy(np.float64)
        if not (fine := (values >= 0) & (values <= 1)).all():
            self._refuse(cells, column, fine, "a number from 0 to 1")
        return values

    def _flags(self, cells: pd.DataFrame) -> Bools:
        text = cells["ignore"].str.strip().str.lower()
        if not (fine := text.isin(list(_TRUTH)).to_numpy(bool)).all():
            self._refuse(cells, "ignore", fine, "true or false, 1 or 0")
        return text.map(_TRUTH).to_numpy(bool)

    def _refuse(self, cells: pd.DataFrame, column: str, fine: Bools, expected: str) -> None:
        bad = cells[~fine]
        found = zip(bad["row"], bad[column], bad["id"], strict=True)
        raise_all([f"{self.csv} row {row}: {column} '{v}' of image {i}, expected {expected}" for row, v, i in found])

    def cells(self, image_id: str, row_class: str) -> list[int]:
        """Return places among the image's rows of a class (CELL, UNSURE or BACKGROUND), in the order of the file."""
        record = self.record(image_id)
        return [k for k, row in enumerate(record.rows[: len(record)]) if self._class_of[row] == row_class]

    def instances(self, image_id: str) -> Instances:
        """Get the certain cells, then the doubtful ones; raises InputError naming row and image of a bad annotation."""
        record, sure, unsure = self.record(image_id), self.cells(image_id, CELL), self.cells(image_id, UNSURE)
        types = np.full(len(sure) + len(unsure), self.cell_type_names.index(record.cell_type))
        types[len(sure) :] = DOUBTFUL
        return Instances.from_runs(parse_runs(record, self.csv, [*sure, *unsure]), types)

    def check(self, images: Iterable[str]) -> None:
        """Decode all rows of these images; raises InputError for bad annotations and for cells that overlap.

        Warns where the masks fit in another reading, see `rle_readings`.
        """
        records = [self.record(image_id) for image_id in images]
        problems: list[str] = []
        for record in records:
            with collected(problems):
                self._check_overlaps(record)
        raise_all(problems)
        if hint := shape_hint(self.csv, (parse_runs(record, self.csv) for record in records)):
            warnings.warn(hint, stacklevel=2)

    def _check_overlaps(self, record: LabelledImage) -> None:
        pairs = zip(*(array.tolist() for array in rle.overlaps(parse_runs(record, self.csv))), strict=True)
        raise_all(
            [
                f"{self.csv} rows {record.rows[first]} and {record.rows[second]}: two cells of image {record.id} share "
                f"{shared} pixels; pseudo-labels do not overlap: give each pixel to one of them, or remove a row"
                for first, second, shared in pairs
            ]
        )

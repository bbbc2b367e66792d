"""Pseudo-labels: what models found in unlabelled images, as annotations to train on.

A file has the columns of train.csv and for each cell `score`, and may have `agreement` (both 0 to 1) and `ignore`
(true or false). What is sure is a cell, what is likely is DOUBTFUL (neither cell nor background to any loss), the
rest is background. Cells of one image do not overlap: the models that found them gave each pixel away once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from sartorius.data import annotation_rows
from sartorius.data.annotation_rows import LabelledImage, labelled_image, parse_runs, read_table, well_of
from sartorius.data.images import list_images, read_grey
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, Floats, GreyImage
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances

COLUMNS = (*annotation_rows.COLUMNS, "score")
CELL, UNSURE, BACKGROUND = "cell", "unsure", "background"  # what becomes of a row
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}
CutOff = float | Mapping[str, float]  # of all cell types, or by their names


@dataclass(frozen=True)
class PseudoLabels:
    """Which file to train on beside the labelled images, and how far to believe it.

    file: see the module. folder: of the images that it names. min_score: a row is a cell from here on;
    doubtful_score: it is doubtful from here on and background below. min_agreement: with less a cell is doubtful, too.
    Rows with `ignore` are doubtful whatever they score. The three are numbers in 0..1, or a number for each cell type.
    ratio: pseudo-labelled samples of an epoch for each labelled one. weight: of these images in every loss.
    cache_mb: memory for decoded ones. cut_offs: file with a `min_score` by cell type that goes before the one given.

    Raises InputError for no file, for values out of range, and for `cut_offs` that are none.
    """

    file: str | Path | None
    folder: str | Path
    min_score: CutOff
    doubtful_score: CutOff
    min_agreement: CutOff
    ratio: float
    weight: float
    cache_mb: int
    cut_offs: str | Path | None = None

    def __post_init__(self) -> None:
        if self.cut_offs is not None:
            below = self.min_score if isinstance(self.min_score, Mapping) else {}
            object.__setattr__(self, "min_score", {**below, **read_cut_offs(self.cut_offs)})
        if self.file is None:
            raise InputError(
                "pseudo_labels.file is not set; give pseudo_labels.file=FILE, a csv with the columns "
                f"{', '.join(COLUMNS)} and a row for each cell that models found in images of "
                f"{self.folder}; or set pseudo_labels=null"
            )
        for key in ("min_score", "doubtful_score", "min_agreement"):
            cut_off = getattr(self, key)
            for name, value in cut_off.items() if isinstance(cut_off, Mapping) else (("", cut_off),):
                if not (isinstance(value, int | float) and 0 <= value <= 1):
                    raise InputError(f"pseudo_labels.{key}{'.' * bool(name)}{name}={value}: expected 0 to 1")
        for key in ("ratio", "weight"):
            if not (isinstance(getattr(self, key), int | float) and getattr(self, key) > 0):
                raise InputError(
                    f"pseudo_labels.{key}={getattr(self, key)}: expected more than 0; pseudo_labels=null does without"
                )

    def read(self, cell_type_names: Sequence[str]) -> PseudoLabelled:
        """The images of the file as a source; raises InputError for what does not fit, see `PseudoLabelled`."""
        return PseudoLabelled(self, cell_type_names)

    def cut_off(self, key: str, cell_type: str) -> float:
        """The cut-off of a cell type; raises InputError where the mapping of `key` has none for it."""
        cut_off = getattr(self, key)
        if not isinstance(cut_off, Mapping):
            return float(cut_off)
        if cell_type not in cut_off:
            raise InputError(
                f"pseudo_labels.{key} has no value for cell type '{cell_type}', only for {', '.join(cut_off)}; add "
                f"+pseudo_labels.{key}.{cell_type}=0.5, or give one number for all types"
            )
        return float(cut_off[cell_type])


def read_cut_offs(path: str | Path) -> Mapping[str, float]:
    """The `min_score` by cell type of a file that tuning wrote. Raises InputError where there is none."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"pseudo_labels.cut_offs={path}: cannot be read ({' '.join(str(error).split())})") from error
    found = values.get("min_score") if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise InputError(
            f"pseudo_labels.cut_offs={path}: no min_score by cell type in it; "
            "`python -m sartorius.tune pseudo_labels.precision=0.9` writes such a file"
        )
    return found


class PseudoLabelled:
    """The images of a pseudo-label file, as a source of a dataset.

    The constructor reads the file and the header of every image; `check` decodes rows, and `leaks.admitted` images.
    Instances are the certain cells in the order of the file, then the doubtful ones (cell type DOUBTFUL).

    Raises InputError where the file is missing or malformed, names images that are not in the folder or of another
    size, an unknown cell type, or numbers out of 0..1; `agreement` is needed where a `min_agreement` is above 0.
    """

    def __init__(self, settings: PseudoLabels, cell_type_names: Sequence[str]) -> None:
        self.settings, self.cell_type_names = settings, tuple(cell_type_names)
        self.file, self.folder = Path(str(settings.file)), Path(settings.folder)
        table = read_table(self.file, COLUMNS)
        paths = {path.stem: path for path in list_images(self.folder)}
        if missing := sorted(set(table["id"]) - set(paths)):
            raise InputError(
                f"{self.file}: {len(missing)} of its images are not in {self.folder} ({', '.join(missing[:3])}); "
                "it was made for other images: give their folder with pseudo_labels.folder=FOLDER"
            )
        self.images: dict[str, LabelledImage] = {}
        for image_id, rows in table.groupby("id", sort=True):
            name = str(image_id)
            self.images[name] = labelled_image(name, rows, self.file, paths[name], cell_type_names)
        self._fate = self._decide(table[table["annotation"].str.strip() != ""])

    def _decide(self, cells: pd.DataFrame) -> dict[int, str]:
        """What becomes of each row: CELL, UNSURE or BACKGROUND by the line number of the file."""
        settings = self.settings
        score = self._numbers(cells, "score")
        agreement, ignored = np.ones(len(cells)), np.zeros(len(cells), bool)
        types = {name: cells["cell_type"].to_numpy() == name for name in dict.fromkeys(cells["cell_type"])}

        def cut_offs(key: str) -> Floats:
            return sum((own * settings.cut_off(key, name) for name, own in types.items()), np.zeros(len(cells)))

        least = cut_offs("min_agreement")
        if "agreement" in cells:
            agreement = self._numbers(cells, "agreement")
        elif least.any():
            raise InputError(
                f"{self.file}: no column agreement, which pseudo_labels.min_agreement={settings.min_agreement} asks "
                "for; set it to 0, or make the file with several models"
            )
        if "ignore" in cells:
            ignored = self._flags(cells)
        doubtful = np.minimum(cut_offs("doubtful_score"), cut_offs("min_score"))  # a cell is never background
        fate = np.where(score < doubtful, BACKGROUND, UNSURE)
        fate[(score >= cut_offs("min_score")) & (agreement >= least)] = CELL
        fate[ignored] = UNSURE
        return dict(zip(cells["row"].tolist(), fate.tolist(), strict=True))

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
        bad = cells[~fine].iloc[0]
        raise InputError(
            f"{self.file} row {bad['row']}: {column} '{bad[column]}' of image {bad['id']}, expected {expected}"
        )

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, sorted."""
        return tuple(self.images)

    def record(self, image_id: str) -> LabelledImage:
        """What the file says about an image; raises InputError for an id that it does not name."""
        if image_id not in self.images:
            raise InputError(f"{self.file}: no image '{image_id}'; ids look like {', '.join(self.ids[:3])}")
        return self.images[image_id]

    def cells(self, image_id: str, fate: str) -> list[int]:
        """Places among the image's rows that became CELL, UNSURE or BACKGROUND, in the order of the file."""
        record = self.record(image_id)
        return [k for k, row in enumerate(record.rows[: len(record)]) if self._fate[row] == fate]

    def well(self, image_id: str) -> str:
        """The plate well, of the column sample_id or else of the name; the id where neither has one."""
        return self.record(image_id).well or well_of(image_id)

    def image(self, image_id: str) -> GreyImage:
        """The pixels of an image, uint8 [H, W]; raises InputError where the file is damaged."""
        return read_grey(self.record(image_id).path)

    def instances(self, image_id: str) -> Instances:
        """The certain cells, then the doubtful ones; raises InputError naming row and image of a bad annotation."""
        record, sure, unsure = self.record(image_id), self.cells(image_id, CELL), self.cells(image_id, UNSURE)
        types = np.full(len(sure) + len(unsure), self.cell_type_names.index(record.cell_type))
        types[len(sure) :] = DOUBTFUL
        return Instances.from_runs(parse_runs(record, self.file, [*sure, *unsure]), types)

    def cell_type(self, image_id: str) -> str:
        """Name of the image's cell type."""
        return self.record(image_id).cell_type

    def check(self, images: Iterable[str]) -> None:
        """Decode all rows of these images; raises InputError for bad annotations and for cells that overlap."""
        for image_id in images:
            record = self.record(image_id)
            first, second, shared = rle.overlaps(parse_runs(record, self.file))
            if len(first):
                rows = sorted((record.rows[first[0]], record.rows[second[0]]))
                raise InputError(
                    f"{self.file} rows {rows[0]} and {rows[1]}: two cells of image {image_id} share {shared[0]} "
                    "pixels; pseudo-labels do not overlap: give each pixel to one of them, or remove a row"
                )

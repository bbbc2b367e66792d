"""Where the members of an ensemble come from: folders of detections, and submissions of others.

A submission has hard masks, no scores and no cell types: it gets a score, and the types that prevail in what the other
members saw of the image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.formats.submission import Row, read_rows
from sartorius.fusion.pool import LEVEL
from sartorius.postprocess.saved import from_saved
from sartorius.structures import rle
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances

Size = tuple[int, int]  # height, width


class Source(Protocol):
    """Where a member's detections come from. typed: whether they name cell types. mask_size: M of the masks."""

    path: Path
    typed: bool
    mask_size: int

    def image_ids(self) -> list[str]:
        """The ids, sorted."""

    def file(self, image_id: str) -> Path:
        """The file that holds an image."""

    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """One image; raises InputError for bad content."""

    def cuts(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """The probability at which masks are cut, float64 [K] for the cell types."""


class FolderSource:
    """A folder of detections; its masks are cut where its saved post-processing cuts them, at 0.5 without one.

    Raises InputError for a folder that is none of detections, or holds none.
    """

    typed = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.folder = DetectionsFolder(path)
        self.meta = self.folder.meta
        self.mask_size = int(self.meta.get("mask_size", 0))
        self._images = self.folder.image_ids()
        if not self._images:
            raise InputError(f"members: {path} holds no detections; `predict` and `train` write them")

    @property
    def names(self) -> tuple[str, ...] | None:
        """The cell types of meta.json."""
        names = self.meta.get("cell_types")
        return None if names is None else tuple(names)

    def image_ids(self) -> list[str]:
        """The ids in the folder, sorted."""
        return self._images

    def file(self, image_id: str) -> Path:
        """The file of an image."""
        return self.folder.folder / f"{image_id}.npz"

    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """One image, its cell types counted as in `names`.

        Raises InputError for a bad file, and for cell types that are not among `names`.
        """
        found = self.folder.load(image_id)
        own = found.cell_type_names
        if not set(own) <= set(names):
            raise InputError(f"{self.file(image_id)}: cell types {own}, those of the others {names}")
        if own == names:
            return found
        position = np.array([names.index(name) for name in own], np.int64)
        return replace(found, cell_types=position[found.cell_types], cell_type_names=names)

    def cuts(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """The probability at which masks are cut, for each cell type; 0.5 for one that the model does not know."""
        cuts, own = np.full(len(names), LEVEL), self.names or names
        if self.meta.get("postprocess"):
            saved = from_saved(self.meta["postprocess"], None, str(self.path)).thresholds
            cuts[[names.index(name) for name in own]] = saved.for_types(own)["mask"]
        return cuts


class SubmissionSource:
    """A csv in the submission format; cells may overlap.

    score: of every cell, 0..1. mask_size: M of the masks. cell_type: name that cells have until another member knows
    better. Raises InputError for a file that cannot be read or names no image.
    """

    typed = False

    def __init__(self, path: str | Path, *, score: float, mask_size: int, cell_type: str | None) -> None:
        self.path, self.score, self.mask_size, self.cell_type = Path(path), score, mask_size, cell_type
        self._rows: dict[str, list[Row]] = {}
        for row in read_rows(path):
            self._rows.setdefault(row.image_id, []).extend([row] if row.text else [])
        if not self._rows:
            raise InputError(f"members: {path} names no image")

    def image_ids(self) -> list[str]:
        """The ids in the file, sorted."""
        return sorted(self._rows)

    def file(self, image_id: str) -> Path:
        """The csv itself."""
        return self.path

    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """One image of `size` (that of the competition where nobody says). Raises InputError for a bad mask."""
        height, width = size or (HEIGHT, WIDTH)
        rows = self._rows[image_id]
        try:
            runs = rle.parse([row.text for row in rows], height, width)
        except rle.RleError as error:
            raise InputError(f"{self.path}: line {rows[error.cell].line}: image {image_id}: {error.problem}") from error
        types = np.full(runs.count, names.index(self.cell_type) if self.cell_type is not None else 0)
        return Detections.from_instances(
            image_id, Instances.from_runs(runs, types), np.full(runs.count, self.score), self.mask_size, names
        )

    def cuts(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Hard masks are cut half-way."""
        return np.full(len(names), LEVEL)

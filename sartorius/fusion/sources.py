"""Sources of an ensemble's detections: folders of detections, and submission files.

A submission has hard masks, no scores and no cell types: it gets a constant score, and the types that prevail in the
other members' detections of the image.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.formats.submission import Row, read_rows, submission_hint
from sartorius.fusion.pool import MASK_THRESHOLD, counted_as
from sartorius.postprocess import PasteMasks
from sartorius.postprocess.saved import from_saved
from sartorius.postprocess.thresholds import per_type
from sartorius.structures import rle
from sartorius.structures.arrays import Floats
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances

Size = tuple[int, int]  # height, width


class MemberSource(ABC):
    """Source of a member's detections.

    image_ids: sorted. typed: whether the detections have cell types. names: those types, None where they are not known.
    mask_size: M of the masks. postprocess: the saved post-processing, None or empty without one. trained_on: those of
    the images that its model was trained on, id -> place, as far as it is known.
    """

    path: Path
    image_ids: list[str]
    mask_size: int
    typed = False
    names: tuple[str, ...] | None = None
    postprocess: Mapping[str, Any] | None = None
    trained_on: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def file(self, image_id: str) -> Path:
        """Name the file that holds an image."""

    @abstractmethod
    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """Read an image of this size, where it is known, its cell types counted as in `names`.

        Raises InputError for a bad file, and for cell types that are not among `names`.
        """

    def mask_thresholds(self, names: tuple[str, ...]) -> Floats:
        """Return the probability above which pixels of masks count, float64 [K] for the cell types."""
        return np.full(len(names), MASK_THRESHOLD)


class FolderSource(MemberSource):
    """A folder of detections; its mask thresholds are those of its saved post-processing, 0.5 without one.

    Raises InputError for a folder that is none of detections, or holds none.
    """

    typed = True

    def __init__(self, path: str | Path) -> None:
        self.path, self.folder = Path(path), DetectionsFolder(path)
        meta = self.folder.meta
        self.mask_size = int(meta.get("mask_size", 0))
        self.names = tuple(meta["cell_types"]) if meta.get("cell_types") is not None else None
        self.postprocess = meta.get("postprocess")
        self.trained_on = meta.get(provenance.KEY) or {}
        self.image_ids = self.folder.image_ids()
        if not self.image_ids:
            raise InputError(f"members: {path} holds no detections; `predict` and `train` write them")

    def file(self, image_id: str) -> Path:
        """Name the file of an image."""
        return self.folder.file(image_id)

    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """Read an image; see `MemberSource`."""
        return counted_as(self.folder.load(image_id), names, self.file(image_id))

    def mask_thresholds(self, names: tuple[str, ...]) -> Floats:
        """Return the saved mask threshold of each cell type; 0.5 for a type that the model does not know."""
        return saved_thresholds(self.postprocess, self.names or names, names, str(self.path))


def saved_thresholds(
    postprocess: Mapping[str, Any] | None, types: Sequence[str], names: Sequence[str], source: str
) -> Floats:
    """Return the mask threshold of each of `names`, float64 [K], in saved post-processing of a model of `types`.

    0.5 for a type that the model does not know, and without post-processing. Raises InputError as `from_saved`.
    """
    thresholds = np.full(len(names), MASK_THRESHOLD)
    if postprocess:
        step = from_saved(postprocess, None, source).find(PasteMasks)
        values = MASK_THRESHOLD if step is None else step.threshold
        thresholds[[names.index(name) for name in types]] = per_type("mask.threshold", values, types)
    return thresholds


class SubmissionSource(MemberSource):
    """A csv in the submission format; cells may overlap.

    score: of every cell, 0..1. mask_size: M of the masks. cell_type: name that cells have unless another member knows
    their types. Raises InputError for a file that cannot be read or names no image; warns where the masks fit in
    another reading (of images of the competition's size).
    """

    def __init__(self, path: str | Path, *, score: float, mask_size: int, cell_type: str | None) -> None:
        self.path, self.score, self.mask_size, self.cell_type = Path(path), score, mask_size, cell_type
        self._rows: dict[str, list[Row]] = {}
        for row in read_rows(path):
            self._rows.setdefault(row.image_id, []).extend([row] if row.text else [])
        if not self._rows:
            raise InputError(f"members: {path} names no image")
        if hint := submission_hint(
            path, {image_id: [row.text for row in rows] for image_id, rows in self._rows.items()}
        ):
            warnings.warn(f"members: {hint}", stacklevel=2)
        self.image_ids = sorted(self._rows)

    def file(self, image_id: str) -> Path:
        """Name the csv itself."""
        return self.path

    def load(self, image_id: str, size: Size | None, names: tuple[str, ...]) -> Detections:
        """Read an image of `size` (None: the competition's size). Raises InputError for a bad mask."""
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

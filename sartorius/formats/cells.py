"""The noun Cells: the cells of one image as people take them away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.errors import InputError
from sartorius.formats import tables
from sartorius.structures.arrays import AnyInts, GreyImage, Scores
from sartorius.structures.instances import Instances

if TYPE_CHECKING:
    from pandas import DataFrame

_WRITERS = {".csv": tables.write, ".parquet": tables.write}  # by suffix


@dataclass(frozen=True)
class Cells:
    """The N cells of one image; N may be 0.

    instances: layered, overlaps are kept. scores: float32 [N] in 0..1, NaN where not known. cell_type_names: of the
    types in `instances`. pixel_size: micrometres; None: not known. grey: the image, uint8 [H, W], where it is at hand:
    for the mean grey and the overlay.
    """

    image_id: str
    instances: Instances
    scores: Scores
    cell_type_names: tuple[str, ...]
    pixel_size: float | None = None
    grey: GreyImage | None = None

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.instances),):
            raise ValueError(
                f"image {self.image_id}: {len(self.instances)} cells but scores of shape {self.scores.shape}"
            )
        if self.grey is not None and self.grey.shape != (self.height, self.width):
            raise ValueError(
                f"image {self.image_id}: cells of {self.width}x{self.height} pixels, image {self.grey.shape}"
            )

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def height(self) -> int:
        """Rows of the image, pixels."""
        return self.instances.height

    @property
    def width(self) -> int:
        """Columns of the image, pixels."""
        return self.instances.width

    @property
    def types(self) -> list[str]:
        """The name of each cell's type."""
        return [self.cell_type_names[k] for k in self.instances.cell_types.tolist()]

    @property
    def labels(self) -> AnyInts:
        """The label image, cell k as k + 1: [H, W] where no cells overlap, else layers [L, H, W]."""
        layers = self.instances.layers
        return np.asarray(layers[0] if len(layers) == 1 else layers)

    def table(self, pixel_size: float | None = None) -> DataFrame:
        """Measure the cells, a row each: see `tables.CELL_COLUMNS`.

        pixel_size: micrometres of a pixel, in place of that of the image.
        """
        return tables.cells_table(self, pixel_size)

    def save(self, path: str | Path) -> Path:
        """Write the file that the suffix names, atomically; returns its path. Raises InputError for another suffix."""
        path = Path(path)
        write = _WRITERS.get(path.suffix.lower())
        if write is None:
            raise InputError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}")
        write(self, path)
        return path

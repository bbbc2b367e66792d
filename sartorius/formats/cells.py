"""The noun Cells: the cells of one image as people take them away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sartorius.errors import InputError
from sartorius.formats import coco, geojson, labels, outlines, overlays, rois, tables
from sartorius.formats.measures import Measures, measure
from sartorius.formats.polygons import Polygon, trace
from sartorius.structures.arrays import AnyInts, GreyImage, Scores
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances

if TYPE_CHECKING:
    from pandas import DataFrame

    from sartorius.postprocess.finalise import Finalised
    from sartorius.structures.detections import Detections

T = TypeVar("T")

_WRITERS = {  # by suffix
    ".tif": labels.write,
    ".tiff": labels.write,
    ".txt": outlines.write,
    ".zip": rois.write,
    ".geojson": geojson.write,
    ".json": coco.write,
    ".csv": tables.write,
    ".parquet": tables.write,
    ".png": overlays.write,
}
_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".tif": labels.read,
    ".tiff": labels.read,
    ".geojson": geojson.read,
    ".json": coco.read,
}
_SIZED_READERS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {
    ".txt": outlines.read,
    ".zip": rois.read,
    ".geojson": geojson.read,
}


@dataclass(frozen=True)
class Cells:
    """The N cells of one image, each with pixels; N may be 0.

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
        if self.instances.cell_types.max(initial=-1) >= len(self.cell_type_names):
            raise ValueError(
                f"image {self.image_id}: a cell of type {self.instances.cell_types.max()} has no type name"
            )
        if (self.instances.areas == 0).any():
            raise ValueError(f"image {self.image_id}: cell {int(np.argmin(self.instances.areas))} has no pixels")
        if self.grey is not None and self.grey.shape != (self.height, self.width):
            raise ValueError(
                f"image {self.image_id}: cells of {self.width}x{self.height} pixels, image {self.grey.shape}"
            )

    @classmethod
    def of(cls, finalised: Finalised, detections: Detections, grey: GreyImage | None = None) -> Cells:
        """Make the cells that post-processing made of detections; grey: their image, uint8 [H, W]."""
        names, pixel_size = detections.cell_type_names, detections.pixel_size
        return cls(finalised.image_id, finalised.instances, finalised.scores, names, pixel_size, grey)

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

    @cached_property
    def measures(self) -> Measures:
        """The measurements of the cells, see `measures.measure`."""
        return measure(self.instances, self.grey)

    @cached_property
    def polygons(self) -> list[list[Polygon]]:
        """The outlines of the cells, see `polygons.trace`."""
        return trace(self.instances)

    def table(self, pixel_size: float | None = None) -> DataFrame:
        """Measure the cells, a row each: see `tables.CELL_COLUMNS`.

        pixel_size: micrometres of a pixel, in place of that of the image.
        """
        return tables.cells_table(self, pixel_size)

    def save(self, path: str | Path) -> Path:
        """Write the file that the suffix names, atomically; returns its path. Raises InputError for another suffix."""
        path = Path(path)
        _of_suffix(_WRITERS, path)(self, path)
        return path

    @classmethod
    def load(cls, path: str | Path, height: int | None = None, width: int | None = None) -> Cells:
        """Read the cells of a .tif, .txt, .zip, .geojson or .json (COCO) file.

        height, width: of the image, which .txt, .zip and the .geojson of other programs do not hold. Scores are NaN and
        the type is "cell" where the file has none. Raises InputError for a file that cannot be read, and without a size
        that is needed.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if height is not None and width is not None and path.suffix.lower() in _SIZED_READERS:
            read = _SIZED_READERS[path.suffix.lower()](path, height, width)
        elif path.suffix.lower() in (".txt", ".zip"):
            raise InputError(f"{path}: does not tell the size of its image; give height and width")
        else:
            read = _of_suffix(_READERS, path)(path)
        unknown = np.full(len(read["instances"]), np.nan, np.float32)
        return cls(**{"scores": unknown, "cell_type_names": (UNTYPED,), **read})


def _of_suffix(table: Mapping[str, T], path: Path) -> T:
    if path.suffix.lower() not in table:
        raise InputError(f"{path}: expected a name that ends in {', '.join(table)}")
    return table[path.suffix.lower()]

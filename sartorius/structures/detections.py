"""Soft detections of an image, and the folder they are written to.

Boxes with scores, cell types and small probability masks in box coordinates, before any threshold. Stages exchange
them through the disk, so that thresholds are tuned and models are joined without running a network twice.

The pixel convention, everywhere: boxes are half-open pixel edges (x1, y1, x2, y2), x2 = last column + 1; pixel
centres lie at +0.5; a mask of M x M cells divides its box evenly, as RoIAlign with `aligned=True` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.files import atomic_path, write_json
from sartorius.structures.arrays import Floats32, Ints, LabelMap, SoftMasks
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detection_checks import as_dtypes, check_meta, check_size, check_values, most_bytes
from sartorius.structures.growing import GrowingArray
from sartorius.structures.image_ids import check_image_id
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_arrays, read_json

FORMAT_VERSION = 2
_ARRAYS = ("boxes", "scores", "cell_types", "masks")
_OPTIONAL = ("agreement", "pixel_size")


@dataclass(frozen=True)
class Detections:
    """N detections of one image; N may be 0.

    image_id: its id. height, width: its size in pixels. boxes: float32 [N, 4]. scores: float32 [N] in 0..1.
    cell_types: int64 [N], index into `cell_type_names`. masks: float16 [N, M, M], probabilities in 0..1.
    agreement: float32 [N] in 0..1, how far members of an ensemble agree (see `fusion.methods`); None of one model.
    pixel_size: micrometres of a pixel of the image, above 0; None where it is not known.
    """

    image_id: str
    height: int
    width: int
    boxes: Floats32
    scores: Floats32
    cell_types: Ints
    masks: SoftMasks
    cell_type_names: tuple[str, ...] = CELL_TYPES
    agreement: Floats32 | None = None
    pixel_size: float | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        shapes = (self.boxes.shape, self.scores.shape, self.cell_types.shape, self.masks.shape[:1], self.masks.ndim)
        if shapes != ((n, 4), (n,), (n,), (n,), 3) or self.masks.shape[1] != self.masks.shape[2]:
            raise ValueError(
                f"image {self.image_id}: boxes [N, 4], scores [N], cell_types [N] and masks [N, M, M] expected, got "
                f"{self.boxes.shape}, {self.scores.shape}, {self.cell_types.shape}, {self.masks.shape}"
            )
        if self.agreement is not None and self.agreement.shape != (n,):
            raise ValueError(f"image {self.image_id}: agreement [{n}] expected, got {self.agreement.shape}")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def mask_size(self) -> int:
        """M, the side of the probability masks."""
        return self.masks.shape[1]

    @classmethod
    def empty(
        cls, image_id: str, height: int, width: int, mask_size: int = 28, cell_type_names: tuple[str, ...] = CELL_TYPES
    ) -> Detections:
        """Return an image without detections."""
        none, masks = np.zeros(0, np.float32), np.zeros((0, mask_size, mask_size), np.float16)
        return cls(image_id, height, width, none.reshape(0, 4), none, none.astype(np.int64), masks, cell_type_names)

    @classmethod
    def from_instances(
        cls,
        image_id: str,
        instances: Instances,
        scores: ArrayLike,
        mask_size: int = 28,
        cell_type_names: tuple[str, ...] = CELL_TYPES,
    ) -> Detections:
        """Simulate a perfect model: each cell in its box, its mask sampled as training targets are.

        Raises ValueError for a cell without pixels (it has no box).
        """
        import torch

        from sartorius.structures.mask_sampling import gather_mask_targets

        if (instances.areas == 0).any():
            raise ValueError(f"image {image_id}: cell {int(np.argmin(instances.areas))} has no pixels")
        layers, layer_of = torch.from_numpy(instances.layers.astype(np.int32)), torch.from_numpy(instances.layer_of)
        numbers, boxes = torch.arange(1, len(instances) + 1), torch.from_numpy(instances.boxes)
        masks = gather_mask_targets(layers, layer_of, numbers, boxes, mask_size).numpy().astype(np.float16)
        arrays = (instances.boxes, np.asarray(scores, np.float32), instances.cell_types, masks)
        return cls(image_id, instances.height, instances.width, *arrays, cell_type_names)

    @classmethod
    def from_regions(
        cls,
        image_id: str,
        regions: LabelMap,
        probability: Floats32,
        scores: ArrayLike,
        cell_types: ArrayLike,
        mask_size: int = 28,
        cell_type_names: tuple[str, ...] = CELL_TYPES,
    ) -> Detections:
        """From the regions of a dense network: uint16 [H, W], k the k-th of N cells; probability float32 [H, W].

        A cell has the box of its region; its mask is the probability inside the region and 0 outside. Raises ValueError
        where a cell has no region (it has no box) or a region no score.
        """
        from sartorius.structures.mask_sampling import sample_regions

        extents, count = ndimage.find_objects(regions), len(np.asarray(scores))
        if None in extents or len(extents) != count:
            raise ValueError(f"image {image_id}: {count} scores but regions {np.unique(regions[regions > 0]).tolist()}")
        boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in extents], np.int64).reshape(-1, 4)
        masks = sample_regions(regions, probability, boxes, mask_size).astype(np.float16)
        arrays = (boxes.astype(np.float32), np.asarray(scores, np.float32), np.asarray(cell_types, np.int64), masks)
        return cls(image_id, regions.shape[0], regions.shape[1], *arrays, cell_type_names)

    def select(self, index: ArrayLike) -> Detections:
        """Select the detections of a boolean mask [N] or of indices, in that order."""
        chosen = np.asarray(index)
        if chosen.dtype != bool:
            chosen = chosen.astype(np.int64)
        agreement = None if self.agreement is None else self.agreement[chosen]
        return replace(self, agreement=agreement, **{name: vars(self)[name][chosen] for name in _ARRAYS})

    @classmethod
    def concatenate(cls, parts: Iterable[Detections]) -> Detections:
        """Join sets (one or more) of an image, of one M unless empty, without agreement; a known pixel size is kept."""
        masks = GrowingArray()
        joined = [replace(part, masks=masks.take(part.masks)) for part in parts]
        arrays: dict[str, Any] = {name: np.concatenate([vars(part)[name] for part in joined]) for name in _ARRAYS}
        pixel_size = next((part.pixel_size for part in joined if part.pixel_size is not None), None)
        return replace(joined[0], pixel_size=pixel_size, agreement=None, **{**arrays, "masks": masks.finish()})

    @property
    def prevailing_type(self) -> int:
        """The cell type with the largest sum of scores, of equal ones the first; 0 without detections."""
        return int(np.argmax(np.bincount(self.cell_types, weights=self.scores, minlength=1)))

    def sorted(self) -> Detections:
        """Sort by falling score; equal scores keep their order."""
        return self.select(np.argsort(-self.scores, kind="stable"))

    def save(self, folder: str | Path) -> Path:
        """Write `<folder>/<image>.npz` (no pickle) atomically; returns its path. Raises as `check_values` does."""
        path = Path(folder) / f"{check_image_id(self.image_id, folder)}.npz"
        check_values(self, f"image {self.image_id}")
        names = (*_ARRAYS, "cell_type_names", *(name for name in _OPTIONAL if vars(self)[name] is not None))
        arrays, size = {name: vars(self)[name] for name in names}, (self.height, self.width)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, version=FORMAT_VERSION, image_id=self.image_id, size=size, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Detections:
        """Read the output of `save`; raises InputError for a damaged or newer file and for values out of range."""
        path = Path(path)
        try:
            about = read_arrays(path, 10**6, ("version", "image_id", "size", "cell_type_names", "pixel_size"))
            if int(about["version"]) != FORMAT_VERSION:
                raise InputError(f"{path}: format version {about['version']}, this program reads {FORMAT_VERSION}")
            names = tuple(about["cell_type_names"].tolist())
            size = check_size(about["size"].tolist(), path)
            arrays: dict[str, Any] = as_dtypes(read_arrays(path, most_bytes(*size), (*_ARRAYS, "agreement")))
            image_id = check_image_id(str(about["image_id"]), path)
            pixel_size = float(about["pixel_size"]) if "pixel_size" in about else None
            detections = cls(image_id, *size, cell_type_names=names, pixel_size=pixel_size, **arrays)
        except InputError:
            raise
        except Exception as error:  # zipfile, numpy and the file system each raise their own classes
            raise InputError(f"{path}: not a readable detections file ({error}); predict this image again") from error
        check_values(detections, str(path))
        return detections


class DetectionsFolder:
    """A folder of detections, in a command's folder or given itself: `<id>.npz` of each image, and meta.json."""

    def __init__(self, folder: str | Path) -> None:
        given, inner = Path(str(folder)), Path(str(folder), "detections")
        is_around = (inner / "meta.json").is_file() and not (given / "meta.json").is_file()
        self.folder = inner if is_around else given
        self._read: Mapping[str, Any] | None = None  # meta.json, once an image was loaded

    def write_meta(self, **meta: Any) -> None:
        """Write meta.json: `cell_types`, `mask_size` and other keys about the origin of the detections."""
        write_json(self.folder / "meta.json", {"format_version": FORMAT_VERSION, **meta})
        self._read = None

    @property
    def meta(self) -> Mapping[str, Any]:
        """The content of meta.json. Raises InputError where the folder holds no detections."""
        path = self.folder / "meta.json"
        if not path.is_file():
            raise InputError(f"{self.folder}: no meta.json in it, so not a folder of detections; `predict` writes one")
        meta = read_json(path, "predict again")
        check_meta(meta, FORMAT_VERSION, path)
        return meta

    def check_empty(self) -> None:
        """Raise InputError where detections are in the folder already: old and new ones would be read as one set."""
        if self.image_ids():
            raise InputError(f"{self.folder}: holds detections already; delete them or give another output=")

    def file(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self.folder / f"{image_id}.npz"

    def write(self, detections: Detections) -> Path:
        """Write one image."""
        return detections.save(self.folder)

    def image_ids(self) -> list[str]:
        """Return the ids in the folder, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.npz") if not path.name.startswith("."))

    def load(self, image_id: str) -> Detections:
        """Load one image. Raises InputError where it is missing, damaged, renamed or of other types than meta.json."""
        detections = Detections.load(self.file(image_id))
        if detections.image_id != image_id:
            raise InputError(f"{self.file(image_id)} holds image {detections.image_id}: was it renamed?")
        if self._read is None:  # once: it may hold a filter, and a list of unreadable files
            self._read = self.meta
        if len(detections) and detections.mask_size != (size := self._read.get("mask_size", detections.mask_size)):
            raise InputError(f"{self.file(image_id)}: masks of {detections.mask_size} bins, in meta.json {size}")
        expected = tuple(self._read.get("cell_types", detections.cell_type_names))
        if detections.cell_type_names != expected:
            raise InputError(f"{self.file(image_id)}: cell types {detections.cell_type_names}, in meta.json {expected}")
        return detections

    def __iter__(self) -> Iterator[Detections]:
        """Load all images in the order of their ids, one at a time in memory."""
        return (self.load(image_id) for image_id in self.image_ids())

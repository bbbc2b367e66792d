"""The readers of label files, by suffix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from sartorius.data.annotated_images import parse_ignored, parse_runs, record_of
from sartorius.data.annotation_rows import COLUMNS, read_table
from sartorius.data.images import SUFFIXES
from sartorius.data.livecell.coco import CocoImage, read_coco_types
from sartorius.data.livecell.coco_cells import cell_runs
from sartorius.errors import InputError
from sartorius.formats import geojson, outlines, rois
from sartorius.labelling.sources import masks
from sartorius.labelling.sources.chains import NOTE, are_chains, fill_chains
from sartorius.labelling.sources.entries import FoundLabels, ImageShape, LabelEntry, image_labels
from sartorius.structures.arrays import Points
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances
from sartorius.structures.rle_readings import shape_hint

_SIZED: Mapping[str, Callable[[Path, int, int], dict[str, Any]]] = {
    ".zip": rois.read, ".roi": rois.read, ".geojson": geojson.read, ".txt": outlines.read
}  # fmt: skip
IMAGES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")
KNOWN = (*IMAGES, ".npy", *_SIZED, ".json", ".csv")


def open_entries(path: Path, binary: str, affixes: tuple[str, str] = ("", "")) -> Iterator[LabelEntry]:
    """Open a label file: its entries, of which a COCO json and a csv have one an image.

    binary: of label images with one value, see `masks.BINARY`. affixes: around the name of a file of one image. Raises
    InputError for an unknown suffix, and a json or csv that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _of_csv(path)
    elif suffix == ".json":
        yield from _of_coco(path, affixes)
    elif suffix in IMAGES:
        yield LabelEntry(path, (path,), partial(masks.read_image, path, binary), affixes)
    elif suffix == ".npy":
        yield LabelEntry(path, (path,), partial(masks.read_numpy, path, binary), affixes)
    elif suffix in _SIZED:
        yield LabelEntry(path, (path,), partial(_read_sized, path), affixes)
    else:
        raise InputError(f"{path}: not a label file; expected a name that ends in {', '.join(KNOWN)}")


def _read_sized(path: Path, shape: ImageShape) -> FoundLabels:
    """Read a file of outlines, which tells no size or may tell another one."""
    _check_single(path, shape)
    if (chains := _chains(path)) is not None:
        rings, types = chains
        return image_labels(fill_chains(rings, shape.height, shape.width), types, notes=[NOTE])
    found = _SIZED[path.suffix.lower()](path, shape.height, shape.width)
    names = found.get("cell_type_names", (UNTYPED,))
    return image_labels(found["instances"], [names[k] for k in found["instances"].cell_types.tolist()])


def _chains(path: Path) -> tuple[list[Points], list[str]] | None:
    """Read the outlines of a file from pixel to pixel, one a cell, and types; None of other files."""
    if path.suffix.lower() == ".geojson":
        return None
    if path.suffix.lower() == ".txt":
        rings = outlines.read_rings(path)
        types = [UNTYPED] * len(rings)
    else:
        areas = rois.read_rois(path)
        rings, types = [ring for roi in areas for ring in roi.rings], [roi.cell_type or UNTYPED for roi in areas]
    return (rings, types) if len(rings) == len(types) and are_chains(rings) else None


def _check_single(path: Path, shape: ImageShape) -> None:
    if shape.planes > 1:
        raise InputError(f"{path}: labels of one image, for a file of {shape.planes}; give pages=first, max or mean")


def _of_coco(path: Path, affixes: tuple[str, str]) -> Iterator[LabelEntry]:
    images, names = read_coco_types(path)
    for image in images:
        name = PurePath(image.file_name.replace("\\", "/"))
        own = (path,) if len(images) == 1 else ()  # its image may have got another name since
        yield LabelEntry(path, (name, *own), partial(_read_coco, path, image, names), affixes)


def _read_coco(path: Path, image: CocoImage, names: Mapping[Any, str], shape: ImageShape) -> FoundLabels:
    shape.check(f"{path}: image {image.file_name}", image.height, image.width)
    _check_single(path, shape)
    types = [names.get(cell.category, UNTYPED if cell.category is None else str(cell.category)) for cell in image.cells]
    crowds = replace(image, cells=image.crowds)
    ignored = Instances.from_runs(cell_runs(path, crowds), [0] * len(crowds)).foreground() if image.crowds else None
    return image_labels(Instances.from_runs(cell_runs(path, image), [0] * len(image)), types, ignored=ignored)


def _of_csv(path: Path) -> Iterator[LabelEntry]:
    table = read_table(path, ("id", "annotation"))
    for image_id, rows in table.groupby("id", sort=True):
        name = PurePath(str(image_id))
        yield LabelEntry(path, (name,), partial(_read_rows, path, str(image_id), rows))


def _read_rows(path: Path, image_id: str, rows: pd.DataFrame, shape: ImageShape) -> FoundLabels:
    """Read the rows of an image; columns that are not there are those of the image, and of cells without a type."""
    _check_single(path, shape)
    known = {"width": str(shape.width), "height": str(shape.height), "cell_type": UNTYPED}
    rows = rows.assign(**{name: known[name] for name in COLUMNS if name not in rows})
    record = record_of(image_id, rows, path, path, mixed=True)
    shape.check(f"{path} row {record.rows[0]}", record.height, record.width)
    runs = parse_runs(record, path)
    if hint := shape_hint(f"{path}: image {image_id}", [runs]):
        raise InputError(hint)
    read = image_labels(Instances.from_runs(runs, [0] * runs.count), record.types, ignored=parse_ignored(record, path))
    return replace(read, cell_type=record.cell_type, group=record.well or "")


def stem_of(name: PurePath) -> str:
    """Return a name without the suffix of an image, or of a label file."""
    stem = name.stem if name.suffix.lower() in (*SUFFIXES, *KNOWN) else name.name
    return stem.removesuffix(".ome")

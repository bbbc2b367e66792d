"""Reading COCO annotation files: images, and the polygons and run-length masks of each one's cells.

A published file holds a million polygons. Each becomes an array of numbers while the file is parsed (a quarter of the
memory), annotations are grouped by image once, and each image's are decoded on demand
(`coco_cells`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sartorius.errors import InputError, collected, raise_all
from sartorius.structures.arrays import Floats
from sartorius.structures.reading import read_json

_REMEDY = "correct or remove it"


class Annotation(NamedTuple):
    """One cell: its id, the id of its image, its mask and the id of its category.

    Ids are numbers or text, anything else as in the file. crowd: None where it is neither 0 nor 1. shape: polygons
    float64 [2 P] (x, y, x, y, ...; pixel edges), or an RLE as in the file; None where it is neither.
    """

    id: Any
    image_id: Any
    crowd: bool | None
    shape: Any
    category: Any = None


@dataclass(frozen=True)
class CocoImage:
    """One image of the file.

    cells: its annotations in the order of the file, without `crowds`, its regions of crowds (iscrowd=1).
    original: `original_filename`, "" where the file has none.
    """

    id: Any
    file_name: str
    height: int
    width: int
    original: str
    cells: tuple[Annotation, ...]
    crowds: tuple[Annotation, ...]

    def __len__(self) -> int:
        return len(self.cells)


def read_coco(path: str | Path) -> list[CocoImage]:
    """Read the images of a COCO file in its order; see `read_coco_types`."""
    return read_coco_types(path)[0]


def read_coco_types(path: str | Path) -> tuple[list[CocoImage], dict[Any, str]]:
    """Read the images of a COCO file in its order, with their annotations, which may be a list, or a dict by id.

    Also returns the names of its categories by id. Ids are compared as whole numbers where they are any, so that 7, 7.0
    and "7" are one id.

    Raises InputError for a file that is missing, is not JSON or not COCO, for an id that occurs twice among images or
    annotations, and for annotations of images that the file does not list.
    """
    content = _parse(Path(path))
    listed, annotations = (_section(path, content, name) for name in ("images", "annotations"))
    cells: dict[Any, list[Annotation]] = {}
    problems: list[str] = []
    for number, image in enumerate(listed):
        with collected(problems):
            cells[_new_id(path, f"images[{number}]", image, cells)] = []
    raise_all(problems)
    _share_out(path, annotations, cells)
    images = []
    for image in listed:
        with collected(problems):
            images.append(_image(path, image, cells[_whole(image["id"])]))
    raise_all(problems)
    named = [
        entry for entry in content.get("categories") or () if isinstance(entry, dict) and {"id", "name"} <= {*entry}
    ]
    return images, {_whole(entry["id"]): str(entry["name"]) for entry in named if isinstance(entry["id"], int | str)}


def _whole(value: Any) -> Any:
    """Convert a number without fraction, or its decimal text, to int; return anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and re.fullmatch("0|[1-9][0-9]{0,17}", value) else value


def _new_id(path: str | Path, where: str, image: Any, known: Container[Any]) -> Any:
    if not isinstance(image, dict) or not {"id", "file_name", "height", "width"} <= set(image):
        raise InputError(f"{path}: {where} lacks one of id, file_name, height, width: not a COCO file")
    own_id = _whole(image["id"])
    if isinstance(own_id, bool) or not isinstance(own_id, int | str):
        raise InputError(f"{path}: {where} has the id {image['id']}, expected a whole number or text")
    if own_id in known:
        raise InputError(f"{path}: two images have the id {own_id}, the second is {image['file_name']}")
    return own_id


def _parse(path: Path) -> Any:
    try:
        return read_json(path, "copy or download it again", _compact)
    except FileNotFoundError:
        raise InputError(f"{path}: no such annotation file") from None


def _compact(node: dict[str, Any]) -> Any:
    """Convert an annotation to a tuple, polygons to arrays, without unused keys; leave any other object."""
    if "segmentation" not in node:
        return node
    shape, crowd = node["segmentation"], node.get("iscrowd")
    crowd = _whole(crowd) if isinstance(crowd, str | float) else crowd
    return Annotation(
        _whole(node.get("id")),
        _whole(node.get("image_id")),
        bool(crowd) if crowd in (None, 0, 1) else None,
        shape if isinstance(shape, dict) else _polygons(shape),
        _whole(node.get("category_id")),
    )


def _polygons(shape: Any) -> list[Floats] | None:
    """Convert polygons to flat arrays; points may also be pairs, and a single polygon may stand without its list."""
    try:
        parts = [np.array(part) for part in shape]
        if parts and all(part.shape in ((), (2,)) for part in parts):
            parts = [np.array(shape)]
        parts = [part.reshape(-1) if part.shape[1:] == (2,) else part for part in parts]
        if any(part.dtype.kind not in "if" for part in parts):
            return None
        return [part.astype(np.float64, copy=False) for part in parts]
    except (TypeError, ValueError, OverflowError):
        return None  # refused by `check_cells`, which knows the image


def _section(path: str | Path, content: Any, name: str) -> list[Any]:
    entries = content.get(name) if isinstance(content, dict) else None
    if name == "annotations" and isinstance(entries, dict):
        entries = [
            a._replace(id=key) if isinstance(a, Annotation) and a.id is None else a for key, a in entries.items()
        ]
    if not isinstance(entries, list):
        raise InputError(f"{path}: no list '{name}' in it: not a COCO annotation file")
    return entries


def _share_out(path: str | Path, annotations: Sequence[Any], cells: dict[Any, list[Annotation]]) -> None:
    """Append each annotation to the list of its image."""
    ids: set[Any] = set()
    problems = []
    for number, annotation in enumerate(annotations):
        if (problem := _problem(annotation, ids, cells)) is None:
            ids.add(annotation.id)
            cells[annotation.image_id].append(annotation)
        else:
            problems.append(f"{path}: annotations[{number}] {problem}; {_REMEDY}")
    raise_all(problems)


def _problem(annotation: Any, ids: Container[Any], images: Container[Any]) -> str | None:
    """Tell what is wrong with an annotation, None for a good one."""
    if not isinstance(annotation, Annotation):
        return "has no segmentation"
    for name, value in (("id", annotation.id), ("image_id", annotation.image_id)):
        if isinstance(value, bool) or not isinstance(value, int | str):
            return f"has the {name} {value}, expected a whole number or text"
    if annotation.crowd is None:
        return "has an iscrowd that is neither 0 nor 1"
    if annotation.id in ids:
        return f"has the id {annotation.id}, as an annotation before it"
    if annotation.image_id not in images:
        return f"(id {annotation.id}) belongs to image {annotation.image_id}, which 'images' does not list"
    return None


def _image(path: str | Path, image: dict[str, Any], cells: Sequence[Annotation]) -> CocoImage:
    name, height, width = str(image["file_name"]), _whole(image["height"]), _whole(image["width"])
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise InputError(
            f"{path}: image {name} has height {image['height']} and width {image['width']}, expected numbers of pixels"
        )
    kept, crowds = (tuple(cell for cell in cells if bool(cell.crowd) == crowd) for crowd in (False, True))
    original = str(image.get("original_filename") or "")
    return CocoImage(_whole(image["id"]), name, height, width, original, kept, crowds)

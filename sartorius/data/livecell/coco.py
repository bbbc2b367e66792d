"""Reading COCO annotation files: images, and the polygons and run-length masks of each one's cells.

A published file holds a million polygons. Each becomes an array of numbers while the file is parsed (a quarter of the
memory), annotations are grouped by image once, and each image's are decoded on demand
(`coco_cells`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sartorius.errors import InputError

_REMEDY = "correct or remove it"


class Annotation(NamedTuple):
    """One cell: its id, the id of its image, and its mask.

    shape: polygons float64 [2 P] (x, y, x, y, ...; pixel edges), or an RLE as in the file; None where it is neither.
    """

    id: Any
    image_id: Any
    crowd: bool
    shape: Any


@dataclass(frozen=True)
class CocoImage:
    """One image of the file.

    cells: its annotations in the order of the file, without regions of crowds (iscrowd=1), which are `crowds` many.
    original: `original_filename`, "" where the file has none.
    """

    id: Any
    file_name: str
    height: int
    width: int
    original: str
    cells: tuple[Annotation, ...]
    crowds: int

    def __len__(self) -> int:
        return len(self.cells)


def read_coco(path: str | Path) -> list[CocoImage]:
    """Read the images of a COCO file in its order, with their annotations; those may be a list, or a dict by id.

    Raises InputError for a file that is missing, is not JSON or not COCO, for an id that occurs twice among images or
    annotations, and for an annotation of an image that the file does not list.
    """
    content = _parse(Path(path))
    listed, annotations = (_section(path, content, name) for name in ("images", "annotations"))
    cells: dict[Any, list[Annotation]] = {}
    for number, image in enumerate(listed):
        if not isinstance(image, dict) or not {"id", "file_name", "height", "width"} <= set(image):
            raise InputError(f"{path}: images[{number}] lacks one of id, file_name, height, width: not a COCO file")
        if not isinstance(image["id"], int | str):
            raise InputError(f"{path}: images[{number}] has the id {image['id']}, expected a number or text")
        if image["id"] in cells:
            raise InputError(f"{path}: two images have the id {image['id']}, the second is {image['file_name']}")
        cells[image["id"]] = []
    _share_out(path, annotations, cells)
    return [_image(path, image, cells[image["id"]]) for image in listed]


def _parse(path: Path) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_hook=_compact)
    except FileNotFoundError:
        raise InputError(f"{path}: no such annotation file") from None
    except (ValueError, RecursionError) as error:  # of json, and of text that is not UTF-8
        raise InputError(f"{path}: not a JSON file ({error}); copy or download it again") from error


def _compact(node: dict[str, Any]) -> Any:
    """Convert an annotation to a tuple, polygons to arrays, without unused keys; leave any other object."""
    if "segmentation" not in node:
        return node
    shape = node["segmentation"]
    if not isinstance(shape, dict):
        try:
            shape = [np.array(polygon, np.float64) for polygon in shape]
        except (TypeError, ValueError, OverflowError):
            shape = None  # refused by `check_cells`, which knows the image
    own_id, image_id = (
        value if isinstance(value, int | str) else None for value in (node.get("id"), node.get("image_id"))
    )
    return Annotation(own_id, image_id, bool(node.get("iscrowd")), shape)


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
    ids = set()
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, Annotation):
            raise InputError(f"{path}: annotations[{number}] has no segmentation; {_REMEDY}")
        if annotation.id in ids:
            raise InputError(f"{path}: two annotations have the id {annotation.id}; {_REMEDY}")
        ids.add(annotation.id)
        if annotation.image_id not in cells:
            raise InputError(
                f"{path}: annotation {annotation.id} belongs to image {annotation.image_id}, which 'images' does not "
                f"list; {_REMEDY}"
            )
        cells[annotation.image_id].append(annotation)


def _image(path: str | Path, image: dict[str, Any], cells: Sequence[Annotation]) -> CocoImage:
    name, height, width = str(image["file_name"]), image["height"], image["width"]
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise InputError(f"{path}: image {name} has height {height} and width {width}, expected numbers of pixels")
    kept = tuple(cell for cell in cells if not cell.crowd)
    original = str(image.get("original_filename") or "")
    return CocoImage(image["id"], name, height, width, original, kept, len(cells) - len(kept))

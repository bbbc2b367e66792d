"""COCO json: images, categories, and annotations with compressed run lengths and scores, as pycocotools reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures import coco_rle, rle
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_json

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells

Part = Mapping[str, Any]  # what an image adds to a file: image, types (their names) and annotations, without ids


def part_of(cells: Cells) -> Part:
    """Describe the cells of an image. Categories are counted from 1, in the order of its types."""
    instances = cells.instances
    columns = rle.from_layers(instances.layers.transpose(0, 2, 1), len(cells))  # COCO's runs go down the columns
    boxes, areas, types = instances.boxes, instances.areas.tolist(), instances.cell_types.tolist()
    scores = [None if np.isnan(score) else round(score, 6) for score in cells.scores.tolist()]
    sizes = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).astype(np.int64).tolist()
    annotations = [
        {
            "category_id": types[k] + 1,
            "bbox": sizes[k],
            "area": areas[k],
            "iscrowd": 0,
            "score": scores[k],
            "segmentation": {"size": [cells.height, cells.width], "counts": code["counts"].decode("ascii")},  # type: ignore[attr-defined]
        }
        for k, code in enumerate(coco_rle.encode(columns))
    ]
    image = {
        "file_name": cells.image_id, "height": cells.height, "width": cells.width, "pixel_size": cells.pixel_size
    }  # fmt: skip
    return {"image": image, "types": list(cells.cell_type_names), "annotations": annotations}


def write(cells: Cells, path: Path) -> None:
    """Write the file of a single image."""
    part = part_of(cells)
    write_parts(path, lambda: [part])


def write_parts(path: Path, parts: Callable[[], Iterable[Part]]) -> None:
    """Write the file of several images, with the types of them all; parts: called twice, so that one is in memory."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        category_of: dict[str, int] = {}
        file.write('{"images":[')
        for number, part in enumerate(parts(), start=1):
            for name in part["types"]:
                category_of.setdefault(name, len(category_of) + 1)
            file.write(("," if number > 1 else "") + "\n" + json.dumps({"id": number, **part["image"]}))
        categories = [{"id": k, "name": name} for name, k in category_of.items()]
        file.write(f'\n],"categories":{json.dumps(categories)},"annotations":[')
        for number, annotation in enumerate(_annotations(parts(), category_of), start=1):
            file.write(("," if number > 1 else "") + "\n" + json.dumps({"id": number, **annotation}))
        file.write("\n]}\n")


def read_all(path: Path) -> Iterator[dict[str, Any]]:
    """Read the images of a file that this program wrote, each as arguments of Cells.

    Raises InputError for a file that is missing or of another kind (`data.livecell.coco` reads annotations of others).
    """
    content = read_json(path, "write it again with `convert`")
    try:
        names = tuple(category["name"] for category in content["categories"])
        by_image: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            of_image, height, width = by_image[image["id"]], image["height"], image["width"]
            runs = rle.transposed(coco_rle.decode([one["segmentation"] for one in of_image], width, height))
            scores = [np.nan if one["score"] is None else one["score"] for one in of_image]
            yield {
                "image_id": image["file_name"],
                "instances": Instances.from_runs(runs, [one["category_id"] - 1 for one in of_image]),
                "scores": np.array(scores, np.float32),
                "cell_type_names": names,
                "pixel_size": image["pixel_size"],
            }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a file of cells that this program wrote ({error!r})") from error


def read(path: Path) -> dict[str, Any]:
    """Read a file of one image; raises InputError for another number of images."""
    images = list(read_all(path))
    if len(images) != 1:
        raise InputError(f"{path}: {len(images)} images, expected one")
    return images[0]


def _annotations(parts: Iterable[Part], category_of: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(parts, start=1):
        for annotation in part["annotations"]:
            name = part["types"][annotation["category_id"] - 1]
            yield {"image_id": number, **annotation, "category_id": category_of[name]}

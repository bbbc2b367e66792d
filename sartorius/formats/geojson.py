"""GeoJSON as QuPath exports and imports its objects: a FeatureCollection, a feature a cell, pixel edges as coordinates.

Each feature is a detection with its type as classification and measurements by QuPath's names; a cell in several pieces
is a MultiPolygon, holes are inner rings. The image's size, which QuPath does not need, stands in the member `image`.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import write_text
from sartorius.formats.polygons import Polygon, fill, flat
from sartorius.structures.arrays import Points
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_json

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells

_SCORE = "Detection probability"
_GOLDEN = (5**0.5 - 1) / 2


def write(cells: Cells, path: Path) -> None:
    """Write the cells, a line each."""
    measures = _measurements(cells)
    types = [
        {"name": name, "color": [round(255 * part) for part in colorsys.hsv_to_rgb(k * _GOLDEN % 1, 0.8, 0.9)]}
        for k, name in enumerate(cells.cell_type_names)
    ]
    numbers = cells.instances.cell_types.tolist()
    features = [
        json.dumps(
            {
                "type": "Feature",
                "geometry": _geometry(polygons),
                "properties": {
                    "objectType": "detection",
                    "name": str(k + 1),
                    "classification": types[numbers[k]],
                    "measurements": {name: values[k] for name, values in measures},
                },
            },
            separators=(",", ":"),
        )
        for k, polygons in enumerate(cells.polygons)
    ]
    image = {"id": cells.image_id, "height": cells.height, "width": cells.width, "pixel_size": cells.pixel_size}
    head = f'{{"type":"FeatureCollection","image":{json.dumps(image)},"features":[\n'
    write_text(path, head + ",\n".join(features) + "\n]}\n")


def read(path: Path, height: int | None = None, width: int | None = None) -> dict[str, Any]:
    """Read polygons, also of QuPath, as arguments of Cells; objects without a class are of type "cell".

    height, width: of the image, which files of other programs do not hold. Raises InputError for a file that is missing
    or of another kind, one that holds other geometries and one that says another size, or none where none is given.
    """
    content = read_json(path, "export it again")
    about = content.get("image", {}) if isinstance(content, Mapping) else {}
    features = content.get("features") if isinstance(content, Mapping) else content
    size = (about.get("height"), about.get("width"))
    if None not in (*size, height, width) and size != (height, width):
        raise InputError(f"{path}: of an image of {size[1]}x{size[0]} pixels, not {width}x{height}")
    height, width = height or size[0], width or size[1]
    if not isinstance(features, list):
        raise InputError(f"{path}: expected a FeatureCollection or a list of features")
    if height is None or width is None:
        raise InputError(f"{path}: does not tell the size of its image; give height and width")
    polygons, scores, types = [], [], []
    for number, feature in enumerate(features):
        try:
            polygons.append(_polygons(feature["geometry"]))
            properties = feature.get("properties") or {}
            types.append(str((properties.get("classification") or {}).get("name", UNTYPED)))
            scores.append(float(_by_name(properties.get("measurements") or {}).get(_SCORE, "nan")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: features[{number}]: no cell can be read from it ({error!r})") from error
    names = tuple(dict.fromkeys(types))
    runs = fill(*flat(polygons), len(polygons), height, width)
    return {
        "image_id": about.get("id", path.stem),
        "instances": Instances.from_runs(runs, [names.index(name) for name in types]),
        "scores": np.array(scores, np.float32),
        "cell_type_names": names,
        "pixel_size": about.get("pixel_size"),
    }


def _measurements(cells: Cells) -> list[tuple[str, list[float]]]:
    """List the measurements that are known of all cells; names and units as QuPath's shape features have them."""
    found, pixel = cells.measures, cells.pixel_size
    unit, scale = ("px", 1.0) if pixel is None else ("µm", pixel)
    measures = {
        _SCORE: cells.scores.astype(np.float64),
        f"Area {unit}^2": found.area * scale**2,
        f"Perimeter {unit}": found.perimeter * scale,
        f"Major axis {unit}": found.axis_major * scale,
        f"Minor axis {unit}": found.axis_minor * scale,
        "Eccentricity": found.eccentricity,
        "Solidity": found.solidity,
        **({} if found.intensity is None else {"Mean grey": found.intensity}),
    }
    return [(name, values.round(4).tolist()) for name, values in measures.items() if not np.isnan(values).any()]


def _geometry(polygons: list[Polygon]) -> dict[str, Any]:
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    one = len(closed) == 1
    return {"type": "Polygon" if one else "MultiPolygon", "coordinates": closed[0] if one else closed}


def _polygons(geometry: Mapping[str, Any]) -> list[list[Points]]:
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"expected a Polygon or a MultiPolygon, got {kind}")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    return [[np.array(ring, np.float64).reshape(-1, 2)[:-1] for ring in polygon] for polygon in polygons]


def _by_name(measurements: Any) -> dict[str, Any]:
    """Read measurements: an object, or the list of name and value of older versions of QuPath."""
    if isinstance(measurements, list):
        return {entry["name"]: entry["value"] for entry in measurements}
    return dict(measurements)

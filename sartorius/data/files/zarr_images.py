"""OME-Zarr images (NGFF 0.1 to 0.5) and plain Zarr arrays; read with `zarr`, of which only the needed chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.data.channels import check_channel
from sartorius.data.files import axes, pixel_sizes
from sartorius.data.tiff import MAX_CHUNK, zarr_array
from sartorius.errors import InputError
from sartorius.structures.reading import read_json

_OF_VERSIONS_WITHOUT_AXES = "tczyx"
_OF_TYPES = {"time": "t", "channel": "c"}  # of NGFF, whose axes have any names


def is_image(folder: Path) -> bool:
    """Whether a folder is an image: an OME-Zarr one, an array, or one whose metadata are damaged."""
    try:
        is_array = (folder / ".zarray").is_file() or _json(folder / "zarr.json").get("node_type") == "array"
        return is_array or bool(_ome(folder))
    except InputError:
        return True


class ZarrStack:
    """An image in a folder; see `stacks.Stack`. Its finest resolution is read.

    Raises InputError where `zarr` is not installed, and for an array that is no image.
    """

    def __init__(self, folder: Path) -> None:
        names, units, scales, place = list[str](), list[str | None](), list[list[float]](), folder
        if ome := _ome(folder):
            data = ome["datasets"][0]
            place = folder / str(data["path"])
            (names, units), scales = _axes(ome), [*_scales(data), *_scales(ome)]
        array = zarr_array(str(place), str(folder))
        names = names or ["p"] * (array.ndim - 2) + ["y", "x"]
        if len(names) != array.ndim or names[-2:] != ["y", "x"] or array.dtype.kind not in "uifb":
            raise InputError(
                f"{folder}: an array of {array.dtype} with axes {', '.join(names)}, expected numbers whose last two "
                "axes are y and x"
            )
        self.name, self._array = str(folder), array
        self.height, self.width = array.shape[-2:]
        self._dims = [
            (name if name in "tzc" else "p", length) for name, length in zip(names[:-2], array.shape[:-2], strict=True)
        ]
        self.axes = axes.lengths(self._dims)
        self.pixel_size = None
        if scales and all(len(scale) == len(names) for scale in scales):
            x, y = (
                pixel_sizes.in_micrometres(math.prod(scale[k] for scale in scales), units[k], self.name)
                for k in (-1, -2)
            )
            self.pixel_size = pixel_sizes.square(x, y, self.name)

    def read(self, index: Mapping[str, int], channel: int | None) -> NDArray[Any]:
        """Read a plane [H, W]; see `stacks.Stack`."""
        return self.region(index, channel, slice(None), slice(None))

    def rows_at_once(self, index: Mapping[str, int], channel: int | None) -> int:
        """Return the rows of a chunk; see `stacks.Stack`."""
        chunk = self._array.chunks[-2:]
        if chunk[0] * chunk[1] > MAX_CHUNK:
            raise InputError(
                f"{self.name}: chunks of {chunk} px, expected {MAX_CHUNK:,} px at most; save it in smaller"
            )
        return int(chunk[0])

    def region(self, index: Mapping[str, int], channel: int | None, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part of a plane [h, w]; see `stacks.Stack`."""
        check_channel(self.name, channel, 1)
        place: Any = (*axes.places(self._dims, index), rows, columns)
        return np.asarray(self._array[place])


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path, "copy it again") if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _ome(folder: Path) -> dict[str, Any]:
    """Return the first entry of `multiscales` in the attributes of a group; {} where it has none."""
    attributes = _json(folder / ".zattrs") or _json(folder / "zarr.json").get("attributes") or {}
    found = (attributes.get("ome") or attributes).get("multiscales")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}


def _axes(ome: Mapping[str, Any]) -> tuple[list[str], list[str | None]]:
    """Return the name of each axis, `t` and `c` of time and channels, and its unit."""
    told = ome.get("axes") or list(_OF_VERSIONS_WITHOUT_AXES)
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in told]
    names = [_OF_TYPES.get(str(axis.get("type"))) or str(axis["name"]).lower() for axis in axes]
    return names, [axis.get("unit") for axis in axes]


def _scales(told: Mapping[str, Any]) -> list[list[float]]:
    """Return the sizes of a pixel along all axes that a data set tells, or an image in multiples of those."""
    transforms = told.get("coordinateTransformations") or ()
    return [[float(size) for size in entry["scale"]] for entry in transforms if entry.get("type") == "scale"]

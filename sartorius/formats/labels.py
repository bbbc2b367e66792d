"""Label images: a compressed TIFF, 0 for background and k for cell k, one page a layer where cells overlap.

The pixel size stands in the resolution tags, per centimetre, where Fiji, QuPath and Bio-Formats read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.arrays import Ints
from sartorius.structures.instances import MAX_CELLS, Instances, colour
from sartorius.structures.rle import Runs

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells
    from sartorius.formats.large_cells import LargeCells

_MICROMETRES = 10_000  # of a centimetre
_TILE = 512  # side in pixels, of large label images


def write(cells: Cells, path: Path) -> None:
    """Write uint16 pages [H, W], uint32 where there are more than 65,535 cells."""
    import tifffile

    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, cells.labels, **_tags(cells.pixel_size))


def write_large(cells: LargeCells, path: Path) -> None:
    """Write the same pages as a BigTIFF of compressed tiles; memory: a row of tiles."""
    import tifffile

    runs, layer_of = cells.runs, colour(cells.runs)
    layers, dtype = int(layer_of.max(initial=0)) + 1, np.uint16 if len(cells) <= MAX_CELLS else np.uint32
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary, _tiles(runs, layer_of, layers, dtype), shape=(layers, runs.height, runs.width), dtype=dtype,
            tile=(_TILE, _TILE), bigtiff=True, **_tags(cells.pixel_size),
        )  # fmt: skip


def _tags(pixel_size: float | None) -> dict[str, Any]:
    tags = {"compression": "zlib", "photometric": "minisblack", "metadata": None, "software": False}
    if pixel_size is None:
        return tags
    return {**tags, "resolution": (_MICROMETRES / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}


def _tiles(runs: Runs, layer_of: Ints, layers: int, dtype: Any) -> Iterator[NDArray[Any]]:
    """Draw the tiles of one layer after the other, row by row; those at the ends are filled up with background."""
    width = -(-runs.width // _TILE) * _TILE
    for layer in range(layers):
        order = np.flatnonzero(layer_of[runs.cell] == layer)
        order = order[np.argsort(runs.start[order], kind="stable")]
        start, length, cell = runs.start[order], runs.length[order], runs.cell[order]
        for top in range(0, runs.height, _TILE):
            begin, end = np.searchsorted(start, (top * runs.width, (top + _TILE) * runs.width))
            row, column = np.divmod(start[begin:end], runs.width)
            placed = (row - top) * width + column
            pixel, k = Runs(placed, length[begin:end], np.arange(end - begin), end - begin, _TILE, width).pixels()
            strip = np.zeros(_TILE * width, dtype)
            strip[pixel] = cell[begin:end][k] + 1
            for left in range(0, width, _TILE):
                yield strip.reshape(_TILE, width)[:, left : left + _TILE]


def read(path: Path) -> dict[str, Any]:
    """Read a label image, of this program or another, as arguments of Cells; its cells have no scores and no types.

    Values without pixels are left out. Raises InputError for a file that is missing or holds no whole numbers.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            layers = file.asarray()
            tags = file.pages.first.tags
            unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
            above, below = tags["XResolution"].value if "XResolution" in tags else (0, 1)
    except (OSError, ValueError, KeyError) as error:  # TiffFileError is a ValueError
        raise InputError(f"{path}: not a readable label image ({error})") from error
    layers = layers[None] if layers.ndim == 2 else layers
    if layers.ndim != 3 or layers.dtype.kind not in "ui" or layers.min(initial=0) < 0:
        raise InputError(f"{path}: expected pages of labels, got {layers.dtype} of shape {layers.shape}")
    labels = np.concatenate([np.zeros(1, layers.dtype), *map(np.unique, layers)])
    labels = np.append(labels[:1], labels[labels > 0])
    count = len(labels) - 1
    labels.sort()
    if count > MAX_CELLS or (labels[1:] == labels[:-1]).any():
        raise InputError(
            f"{path}: expected at most {MAX_CELLS} cells, each on one page, got {count} on {len(layers)} pages"
        )
    return {
        "image_id": path.stem,
        "instances": Instances(np.searchsorted(labels, layers).astype(np.uint16), np.zeros(count, np.int64)),
        "pixel_size": _MICROMETRES * below / above if unit == tifffile.RESUNIT.CENTIMETER and above else None,
    }

"""Label images: a compressed TIFF, 0 for background and k for cell k, one page a layer where cells overlap.

The pixel size stands in the resolution tags, per centimetre, where Fiji, QuPath and Bio-Formats read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sartorius.data.image_files import explained, is_tiff, open_file
from sartorius.data.tiff import open_tiff
from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.arrays import AnyInts, Ints
from sartorius.structures.instances import MAX_CELLS, Instances, colour
from sartorius.structures.rle import Runs

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells
    from sartorius.formats.large_cells import LargeCells

_MICROMETRES = 10_000  # of a centimetre
_TILE = 512  # side in pixels, of large label images
_MOST = 2**29  # pixels of all pages
_LOSSY = "{}: labels saved as JPEG, which changes their values; save them as TIFF or PNG"
_GREY = "save one number a cell, in one channel"


def check_size(pages: int, height: int, width: int) -> None:
    """Raise ValueError for more pixels than are read at once."""
    if pages * height * width > _MOST:
        raise ValueError(f"{pages} pages of {width}x{height} pixels, more than {_MOST} in all")


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

    Raises InputError as `read_pages` and `of_pages` do.
    """
    pages, pixel_size = read_pages(path)
    return {"image_id": path.stem, "instances": of_pages(pages, path)[0], "pixel_size": pixel_size}


def read_pages(path: Path, check: Callable[[int, int, int], None] = check_size) -> tuple[AnyInts, float | None]:
    """Read the pages of a label image, TIFF or PNG: whole numbers of any width [P, H, W], and the pixel size.

    Floats that are whole numbers count, the numbers of a palette are the labels. check: is given P, H and W before they
    are decoded. Raises InputError for a file that is missing, JPEG, coloured or holds no whole numbers from 0.
    """
    remedy = "save one number a cell as TIFF or PNG"
    with open_file(path) as file, explained(path, "not a readable label image", remedy):
        pages, pixel_size = (
            _tiff_pages(path, file, check) if is_tiff(file) else (_pillow_pages(path, file, check), None)
        )
    return whole_numbers(pages, path), pixel_size


def whole_numbers(pages: NDArray[Any], path: Path) -> AnyInts:
    """Return labels as integers; raises InputError for others than whole numbers from 0."""
    if pages.dtype.kind == "b":
        return pages.astype(np.uint8)
    if pages.dtype.kind == "f" and (np.isfinite(pages) & (pages == np.rint(pages)) & (np.abs(pages) < 2**31)).all():
        pages = pages.astype(np.int64)
    if pages.dtype.kind not in "ui" or pages.min(initial=0) < 0:
        numbers = f" from {pages.min(initial=0):g} to {pages.max(initial=0):g}" if pages.dtype.kind in "fui" else ""
        raise InputError(
            f"{path}: expected labels, whole numbers from 0, got {pages.dtype}{numbers}; save one number a cell"
        )
    return pages


def of_pages(pages: AnyInts, path: Path) -> tuple[Instances, AnyInts]:
    """Make the cells of label pages [L, H, W], the layers, in the order of their labels; also returns those, [N].

    Raises InputError for a label on two pages, and for more cells than fit.
    """
    labels = np.concatenate([np.zeros(1, pages.dtype), *map(np.unique, pages)])
    labels = np.append(labels[:1], labels[labels > 0])
    count = len(labels) - 1
    labels.sort()
    if (twice := labels[1:][labels[1:] == labels[:-1]]).size:
        raise InputError(
            f"{path}: expected each label on one page, {twice[0]} is on several of its {len(pages)} pages; pages are "
            "layers of one image, save labels of a stack as those of the image that is made of it, or one page a plane"
        )
    if count > MAX_CELLS:
        raise InputError(f"{path}: expected at most {MAX_CELLS} cells, got {count} on {len(pages)} pages")
    layers = np.searchsorted(labels, pages).astype(np.uint16)
    return Instances(layers, np.zeros(count, np.int64)), labels[1:]


def _tiff_pages(
    path: Path, file: BinaryIO, check: Callable[[int, int, int], None]
) -> tuple[NDArray[Any], float | None]:
    import tifffile

    tiff = open_tiff(file)
    series = [part for k, part in enumerate(tiff.series) if k == 0 or not part.keyframe.is_reduced]
    page, axes = series[0].keyframe, series[0].axes
    if len(series) > 1:
        raise InputError(f"{path}: {len(series)} images of different sizes or kinds; expected pages of labels")
    if page.compression in (6, 7, 34892):
        raise InputError(_LOSSY.format(path))
    if not axes.endswith(("YX", "YXS")):
        raise InputError(f"{path}: coloured labels; {_GREY}")
    shape = series[0].shape[:-1] if axes.endswith("S") else series[0].shape
    height, width, count = shape[-2], shape[-1], math.prod(shape[:-2])
    check(count, height, width)
    unit, (above, below) = page.tags.valueof(296), page.tags.valueof(282, (0, 1))
    size = _MICROMETRES * below / above if unit == tifffile.RESUNIT.CENTIMETER and above else None
    pixels = series[0].asarray(maxworkers=1).reshape(count, height, width, -1)
    return _one_channel(path, pixels, 3 if axes.endswith("S") else 1), size


def _one_channel(path: Path, pixels: NDArray[Any], colours: int) -> NDArray[Any]:
    """Take the first of equal channels, [..., C]; those behind `colours` are none, as alpha."""
    if not (pixels[..., :colours] == pixels[..., :1]).all():
        raise InputError(f"{path}: coloured labels; {_GREY}")
    return pixels[..., 0]


def _pillow_pages(path: Path, file: BinaryIO, check: Callable[[int, int, int], None]) -> NDArray[Any]:
    with Image.open(file) as image:
        if image.format in ("JPEG", "MPO", "WEBP"):
            raise InputError(_LOSSY.format(path))
        check(1, image.height, image.width)
        pixels: NDArray[Any] = np.array(image)
    if pixels.ndim == 3:
        pixels = _one_channel(path, pixels, 1 if image.mode == "LA" else 3)
    return pixels[None]

"""The cells of a COCO image as runs.

Polygons are rasterised by faster_coco_eval's port of pycocotools' code, so masks are exactly COCO's. Their column-major
runs become row-major ones over the pixels of the cells; no mask is ever decoded at the size of its image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.data.livecell.coco import Annotation, CocoImage
from sartorius.errors import InputError, raise_all
from sartorius.structures import coco_rle, rle
from sartorius.structures.arrays import Bools, Floats
from sartorius.structures.rle import Runs

OUTSIDE = 1.0  # pixels by which a polygon may leave its image; it is clipped there
_COMPRESSED = re.compile(r"[0-o]*[0-O]")  # 6 bits a character; the last one ends a number


def check_cells(path: str | Path, image: CocoImage) -> None:
    """Raise InputError for all bad annotations of `image`; no polygon is rasterised.

    A polygon has at least 3 points, an even count of coordinates and lies in the image up to `OUTSIDE`; an RLE has
    the image's size and fills it. The message names `path`.
    """
    found: list[tuple[Annotation, str]] = []
    polygons: list[tuple[Annotation, Floats]] = []
    for cell in image.cells:
        parts = [] if isinstance(cell.shape, dict) else cell.shape or []
        problem = _rle_problem(cell.shape, image) if isinstance(cell.shape, dict) else _shape_problem(parts)
        if problem is None:
            polygons += [(cell, part) for part in parts]
        else:
            found.append((cell, problem))
    found += _outside(image, polygons)
    raise_all([str(_bad(path, image, cell, problem)) for cell, problem in found])
    _rle_runs(path, image)


def _bad(path: str | Path, image: CocoImage, cell: Annotation, problem: str) -> InputError:
    return InputError(f"{path}: annotation {cell.id} of image {image.file_name}: {problem}; correct or remove it")


def _shape_problem(parts: Sequence[Floats]) -> str | None:
    if not parts:
        return "neither polygons (lists of x, y, x, y, ...) nor an RLE"
    for part in parts:
        if part.ndim != 1 or part.size % 2:
            return f"a polygon of {part.size} coordinates, expected x, y, x, y, ..."
        if part.size < 6:
            return f"a polygon of {part.size // 2} points, expected at least 3"
    return None


def _rle_problem(shape: dict[str, Any], image: CocoImage) -> str | None:
    counts, size = shape.get("counts"), shape.get("size")
    if size != [image.height, image.width]:
        return f"an RLE of size {size}, expected [{image.height}, {image.width}] (rows, columns)"
    if isinstance(counts, str):
        return None if _COMPRESSED.fullmatch(counts) else "the counts of its RLE are not COCO's compressed text"
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        return "an RLE without counts: a text, or a list of numbers of pixels"
    if sum(counts) != image.height * image.width:
        return f"the counts of its RLE cover {sum(counts)} pixels, expected {image.height * image.width}"
    return None


def _outside(image: CocoImage, polygons: Sequence[tuple[Annotation, Floats]]) -> list[tuple[Annotation, str]]:
    """Name the first point of each polygon that leaves the image by more than `OUTSIDE`."""
    if not polygons:
        return []
    points = np.concatenate([part for _, part in polygons]).reshape(-1, 2)
    inside = ((points >= -OUTSIDE) & (points <= (image.width + OUTSIDE, image.height + OUTSIDE))).all(axis=1)
    bad = np.flatnonzero(~inside)  # NaN is outside too
    owner = np.searchsorted(np.cumsum([part.size // 2 for _, part in polygons]), bad, side="right")
    owners, first = np.unique(owner, return_index=True)
    size = f"{image.width}x{image.height} pixels by more than {OUTSIDE:g}"
    return [
        (polygons[k][0], f"the point ({x:g}, {y:g}) lies outside the image of {size}")
        for k, (x, y) in zip(owners.tolist(), points[bad[first]].tolist(), strict=True)
    ]


def count_clipped(image: CocoImage) -> int:
    """Count the cells with a polygon that leaves the image (by at most `OUTSIDE` after `check_cells`)."""
    corner = np.array([image.width, image.height])
    shapes = [cell.shape for cell in image.cells if isinstance(cell.shape, list)]
    points = [np.concatenate(shape).reshape(-1, 2) for shape in shapes]
    return sum(bool(((p < 0) | (p > corner)).any()) for p in points)


def _rle_runs(path: str | Path, image: CocoImage, masks: Sequence[dict[str, Any]] | None = None) -> Runs:
    """Return column-major runs of `masks`, one a cell; without them, of the cells that are RLEs in the file."""
    cells = image.cells
    if masks is None:
        cells = tuple(cell for cell in cells if isinstance(cell.shape, dict))
        masks = [_compressed(cell.shape) for cell in cells]
    try:
        return coco_rle.decode(masks, height=image.width, width=image.height)
    except rle.RleError as error:
        raise _bad(path, image, cells[error.cell], f"its RLE: {error.problem}") from error


def _compressed(shape: dict[str, Any]) -> dict[str, Any]:
    """Convert the counts of an RLE to COCO's text."""
    if isinstance(shape["counts"], str):
        return shape
    from faster_coco_eval.core import mask as coco_mask

    compressed: dict[str, Any] = coco_mask.frPyObjects(shape, *shape["size"])
    return compressed


def cell_runs(path: str | Path, image: CocoImage) -> Runs:
    """Rasterise the image's cells to row-major runs, in their order; a cell may have no pixels (a sliver).

    Polygons are clipped at the image's edge. Raises InputError as `check_cells` does.
    """
    from faster_coco_eval.core import mask as coco_mask

    check_cells(path, image)
    shapes = [cell.shape if isinstance(cell.shape, list) else [cell.shape] for cell in image.cells]
    polygons = [part for shape in shapes for part in shape if isinstance(part, np.ndarray)]
    drawn = iter(coco_mask.frPyObjects(polygons, image.height, image.width) if polygons else ())
    masks = []
    for shape in shapes:
        parts = [next(drawn) if isinstance(part, np.ndarray) else _compressed(part) for part in shape]
        masks.append(parts[0] if len(parts) == 1 else coco_mask.merge(parts))
    return rle.transposed(_rle_runs(path, image, masks))


def uncompressed(runs: Runs, k: int) -> list[int]:
    """Return COCO's uncompressed counts of cell k: of background and of the cell in turn, over the runs as they are."""
    chosen: Bools = runs.cell == k
    start, length = runs.start[chosen], runs.length[chosen]
    edges = np.column_stack((start, start + length)).ravel()
    counts: list[int] = np.diff(edges, prepend=0, append=runs.height * runs.width).tolist()
    return counts[:-1] if counts[-1] == 0 else counts

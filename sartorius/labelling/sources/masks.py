"""Label images: TIFF, PNG, plain .npy and Cellpose's _seg.npy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sartorius.data.cleaning import EIGHT
from sartorius.data.competition.mask_faults import far_apart
from sartorius.errors import InputError
from sartorius.formats import labels
from sartorius.labelling.sources.chains import within
from sartorius.labelling.sources.entries import FoundLabels, ImageShape, image_labels
from sartorius.structures.arrays import AnyInts
from sartorius.structures.instances import Instances
from sartorius.structures.safe_pickle import read_npy

BINARY = ("refuse", "components", "cell")
_LEAST = 2  # labels that it takes to tell a map of other things from one of cells
_TINY = 4  # pixels
_CRUMB = 0.2  # share of a label's largest piece; smaller ones tell nothing


def read_image(path: Path, binary: str, shape: ImageShape) -> FoundLabels:
    """Read a TIFF or PNG: pages are the layers of an image, or the planes of a stack."""
    pages, _ = labels.read_pages(path, partial(shape.check_pages, path))
    return _of_pages(path, pages, binary, shape)


def read_numpy(path: Path, binary: str, shape: ImageShape) -> FoundLabels:
    """Read an array of labels, or the `masks` of Cellpose's dict; of old ones without, their outlines are filled."""
    content = read_npy(path)
    if isinstance(content, list):
        (content,) = content if len(content) == 1 else [content]
        if not isinstance(content, dict) or not {"masks", "outlines"} & {*content}:
            raise InputError(f"{path}: no `masks` of Cellpose in it; save labels as TIFF or PNG")
        masks = content.get("masks")
        content = masks if isinstance(masks, np.ndarray) else _filled(path, content.get("outlines"), shape)
    if not isinstance(content, np.ndarray) or content.ndim not in (2, 3):
        raise InputError(f"{path}: expected labels [H, W] or pages of them")
    pages: NDArray[Any] = content if content.ndim == 3 else content[None]
    shape.check_pages(path, *pages.shape)
    if pages.dtype.kind == "i" and pages.min(initial=0) == -1:  # of old Cellpose: background is -1
        pages = pages + 1
    return _of_pages(path, labels.whole_numbers(pages, path), binary, shape)


def _of_pages(path: Path, pages: AnyInts, binary: str, shape: ImageShape) -> FoundLabels:
    if shape.planes > 1:
        pages = pages[shape.plane : shape.plane + 1]
    if pages.size and pages.all() and binary != "cell":
        raise InputError(
            f"{path}: every pixel has a number, none is 0; which one is the background? Give that the number 0"
        )
    instances, values = labels.of_pages(pages, path)
    if len(values) == 1 and binary != "cell":
        pieces, count = ndimage.label(instances.layers.any(axis=0), EIGHT)
        if count > 1 and binary == "refuse":
            raise InputError(
                f"{path}: one value, {values[0]}, in {count} pieces, a mask of all cells; give one value a cell, or "
                "binary=components, where each piece is a cell, or binary=cell, where all are one"
            )
        return image_labels(Instances.from_label_map(pieces, np.zeros(count, np.int64)))
    _check_scattered(path, instances)
    return image_labels(instances, numbers=values.tolist())


def _check_scattered(path: Path, instances: Instances) -> None:
    """Raise InputError where most labels are no cells: in many pieces, in some far apart, or of a few pixels."""
    from skimage.measure import label

    if len(instances) < _LEAST:
        return
    scattered = np.zeros(len(instances), bool)
    for layer in instances.layers:
        pieces = label(layer, connectivity=2)
        area = np.bincount(pieces.ravel())
        owner = np.zeros(len(area), np.int64)
        owner[pieces.ravel()] = layer.ravel()
        largest = np.zeros(len(instances) + 1, np.int64)
        np.maximum.at(largest, owner[1:], area[1:])
        boxes = ndimage.find_objects(pieces)
        large = np.flatnonzero(area[1:] >= _CRUMB * largest[owner[1:]])
        for k in np.flatnonzero(np.bincount(owner[large + 1], minlength=1) > 1).tolist():
            scattered[k - 1] = far_apart([boxes[piece] for piece in large[owner[large + 1] == k].tolist()])
        scattered |= (largest[1:] > 0) & ((largest[1:] < instances.areas / 2) | (instances.areas < _TINY))
    if scattered.sum() * 2 > len(instances):
        raise InputError(
            f"{path}: {int(scattered.sum())} of {len(instances)} values lie in scattered pixels or in pieces far "
            "apart, so they are no cells: a map of types, or labels saved as JPEG, resized with smoothing or shown in "
            "colours; give one value a cell, saved without loss"
        )


def _filled(path: Path, outlines: Any, shape: ImageShape) -> AnyInts:
    """Fill outlines of old Cellpose as its editor does: the last first, pixels belong to the first that covers them.

    An outline is a list of strokes of points (plane, row, column, -), pixels of the cell.
    """
    if isinstance(outlines, np.ndarray):  # of a label map: its pixels at the edge of cells
        raise InputError(f"{path}: outlines without `masks`; open it in Cellpose and save it again")
    filled = np.zeros((shape.height, shape.width), np.int32)
    for k, outline in enumerate(reversed(outlines)):
        for points in _strokes(path, outline):
            top, left, mask = within(points, shape.height, shape.width)
            part = filled[top : top + mask.shape[0], left : left + mask.shape[1]]
            part[mask & (part == 0)] = k + 1
    return filled


def _strokes(path: Path, outline: Any) -> Sequence[NDArray[np.int32]]:
    try:
        points = [np.concatenate([np.asarray(part).ravel() for part in stroke]).reshape(-1, 4) for stroke in outline]
        return [np.ascontiguousarray(stroke[:, [2, 1]], np.int32) for stroke in points]
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: outlines that are no lists of points; save labels as TIFF or PNG") from error

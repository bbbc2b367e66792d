"""Checks of the values of detections, as they are written and read: an image of its own and files from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.structures.arrays import Bools, SoftMasks

if TYPE_CHECKING:
    from sartorius.structures.detections import Detections

MOST_PIXELS = 2**32  # of an image
MOST_IN_ONE_PIECE = 2**28  # of one that is not processed by blocks
ROUNDING = 1e-5  # of means of probabilities
OUTSIDE = 1.0  # pixels by which a box may leave the image: other programs count from the middle of pixels
_FLOATS = dict.fromkeys(("boxes", "scores", "agreement"), np.float32)
_DTYPES: dict[str, Any] = {**_FLOATS, "cell_types": np.int64, "masks": np.float16}
_ONE = np.float16(1).view(np.uint16)


def check_meta(meta: Any, version: int, path: object) -> None:
    """Raise InputError, naming the `path` of meta.json, unless it is of this format version and has the right types."""
    if not isinstance(meta, dict) or meta.get("format_version") != version:
        raise InputError(f"{path}: format_version {version} expected; predict again with this program")
    names, settings = meta.get("cell_types") or [], [meta.get(key) for key in ("postprocess", "filter")]
    listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    size = meta.get("mask_size", 1)
    if not listed or type(size) is not int or size < 1 or any(not isinstance(entry, dict | None) for entry in settings):
        raise InputError(
            f"{path}: expected cell_types as a list of names, mask_size as a number, postprocess and filter as "
            "settings by name; predict again"
        )


def check_size(size: Any, source: object) -> tuple[int, int]:
    """Return (height, width); raises InputError, naming `source`, unless an image can have this size in pixels."""
    height, width = (int(length) if float(length).is_integer() else 0 for length in size)
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise InputError(f"{source}: an image of {size} pixels; expected 1 and more, at most {MOST_PIXELS:,} in all")
    return height, width


def most_bytes(height: int, width: int) -> int:
    """Return the bytes that detections of such an image may take: at 28 x 28 bins, a mask for every 25 pixels.

    And some 40,000 for the smallest image. Of large ones 2 GiB or, if that is more, a mask for every 200 pixels.
    """
    return min(2**26 + 64 * height * width, max(2**31, 8 * height * width))


def as_dtypes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Convert numbers to the types of `Detections`; raises ValueError for text and other content."""
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{name} of type {array.dtype}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite then, and refused by `check_values`
        return {name: array.astype(_DTYPES[name], copy=False) for name, array in arrays.items()}


def check_values(detections: Detections, source: str) -> None:
    """Raise InputError, naming `source` and the detection, for a value that no stage can work with.

    Scores, masks and agreement are in 0..1, boxes ordered and in the image, cell types those that there are.
    """
    boxes, size = detections.boxes, np.array([detections.width, detections.height] * 2, np.float32)
    types, agreement = detections.cell_types, detections.agreement
    if detections.pixel_size is not None and not 0 < detections.pixel_size < np.inf:
        raise InputError(
            f"{source}: pixel size: expected micrometres above 0, got {detections.pixel_size:g}; predict this image "
            "again"
        )
    checks = (
        ("score", "a number from 0 to 1", detections.scores, _outside(detections.scores)),
        ("agreement", "a number from 0 to 1", agreement, None if agreement is None else _outside(agreement)),
        ("mask", "probabilities from 0 to 1", None, _bad_masks(detections.masks)),
        (
            "box", f"x1 <= x2 and y1 <= y2 within {size[1]:g} x {size[0]:g} pixels (height x width)", boxes,
            ~((boxes[:, :2] <= boxes[:, 2:]).all(1) & ((boxes >= -OUTSIDE) & (boxes <= size + OUTSIDE)).all(1)),
        ),
        (
            "cell type", f"a whole number from 0 to {len(detections.cell_type_names) - 1}", types,
            (types < 0) | (types >= len(detections.cell_type_names)),
        ),
    )  # fmt: skip
    for name, expected, values, bad in checks:
        if bad is not None and bad.any():
            k = int(np.argmax(bad))
            came = "others" if values is None else np.asarray(values[k]).tolist()
            raise InputError(
                f"{source}: {name} of detection {k + 1} of {len(detections)}: expected {expected}, got {came}; predict "
                "this image again"
            )


def _outside(values: NDArray[Any]) -> Bools:
    return np.asarray(~((values >= 0) & (values <= 1 + ROUNDING)))


def _bad_masks(masks: SoftMasks) -> Bools | None:
    """Tell which masks [N, M, M] have values outside 0..1, bool [N]; None where none has."""
    # as whole numbers the bits of halves are in their order from 0 to 1; above it come NaN and negative numbers
    if masks.dtype == np.float16 and masks.view(np.uint16).max(initial=0) <= _ONE:
        return None
    return np.asarray(_outside(masks).any((1, 2)))

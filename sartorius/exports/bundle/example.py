"""The example of a bundle: an image, and the cells that the model found in it when it was written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.metrics.functional import Intersections
from sartorius.networks import bundles
from sartorius.structures.arrays import AnyInts, GreyImage

# Other processors round otherwise, which moves the edge of a cell, and one in a hundred over a threshold.
LEAST_IOU = 0.9  # of a cell found with the one expected, to count as the same
LEAST_SHARE = 0.95  # of the cells of both sides that must be the same
MOST_PIXELS = 2**22  # few bytes unpack to more, and finding cells in them takes minutes and gigabytes


@dataclass(frozen=True)
class ExpectedCells:
    """An image uint8 [H, W] with its expected cells: a label map [H, W] and the name of each one's type."""

    image: GreyImage
    labels: AnyInts
    cell_types: list[str]

    def compare(self, cells: Cells, source: str) -> str:
        """Describe how far cells found in the image are the expected ones; raises InputError where they are others."""
        same_types = cells.types == self.cell_types
        if same_types and np.array_equal(cells.labels, self.labels):
            return f"{len(cells)} cells, each pixel as expected"
        shared = Intersections.of(cells.labels, self.labels)
        types = np.array(cells.types, object)[shared.i] == np.array(self.cell_types, object)[shared.j]
        same = int(((shared.iou >= LEAST_IOU) & types).sum())
        most = max(len(cells), len(self.cell_types))
        told = f"{same} of {len(self.cell_types)} expected cells found, among {len(cells)} (IoU of {LEAST_IOU} or more)"
        if same < LEAST_SHARE * most:
            raise InputError(
                f"{source}: its example gives other cells here: {told}; the file was changed, or this program reads it "
                "otherwise than the one that wrote it: do not use it"
            )
        return told


def read_example(path: Path) -> ExpectedCells:
    """Read the example of a bundle; raises InputError for a damaged one and images of other kinds."""
    if not bundles.read_members(path, str(path))[0]["example"]:
        raise InputError(
            f"{path}: holds no example, a crop segmenter finds no cells by itself; check both stages in one"
        )
    manifest, (image, labels) = bundles.read_members(path, str(path), bundles.EXAMPLE, bundles.EXAMPLE_CELLS)
    types: Any = manifest["example"].get("cell_types")
    pixels, cells = (_decode(content, path) for content in (image, labels))
    fits = pixels.dtype == np.uint8 and pixels.shape == cells.shape and isinstance(types, list)
    if not fits or int(cells.max(initial=0)) != len(types):
        raise InputError(f"{path}: its example is damaged: image, cells and their types do not fit; fetch it again")
    return ExpectedCells(pixels.astype(np.uint8), cells.astype(np.uint16), [str(name) for name in types])


def _decode(content: bytes, path: Path) -> AnyInts:
    """Decode a grey PNG [H, W]."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS or image.mode not in ("L", "I;16", "I"):
                raise ValueError(f"{image.width} x {image.height} pixels, {image.mode}")
            return np.asarray(image)
    except Exception as error:  # Pillow raises its own, and struct's and zlib's
        raise InputError(f"{path}: an image of its example cannot be read ({error}); fetch it again") from error

"""Parts of images that stay on the disk: read where they are needed, the last ones kept."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.data import levels
from sartorius.data.files.stacks import Index, Stack, open_stacks
from sartorius.data.image_files import explained
from sartorius.structures.arrays import GreyImage

_KEPT = 2**27  # bytes of the bands that are kept
_LEAST = 256  # rows of a band


@dataclass(frozen=True)
class FileImage:
    """An image of a file: a plane of one of its stacks, or several joined.

    height, width: pixels. pixel_size: micrometres, None where not known. planes: their places in stack `stack`.
    """

    path: Path
    stack: int
    planes: tuple[Index, ...]
    height: int
    width: int
    pixel_size: float | None

    @contextmanager
    def opened(self) -> Iterator[Stack]:
        """Open the stack; raises InputError where the file cannot be read, here or within the context."""
        with open_stacks(self.path) as stacks, explained(self.path, "cut off or damaged", "copy or download it again"):
            yield stacks[self.stack]


def joined(planes: Iterator[NDArray[Any]], how: str) -> NDArray[Any]:
    """Join at least one plane of one shape by `max` or `mean`, in the planes' type; one plane stays as it is."""
    first = next(planes)
    if how != "mean":
        return functools.reduce(np.maximum, planes, first)
    total, count = first.astype(np.float64), 1
    for plane in planes:
        total, count = total + plane, count + 1
    return (np.rint(total / count) if first.dtype.kind in "iu" else total / count).astype(first.dtype)


class RegionReader:
    """Parts of an image as grey levels, by calling it with rows and columns: uint8 [h, w].

    image: a large one. channel, how: see `source.FileImages`, `how` its pages. mapping: of the grey levels. Bands of
    whole rows are decoded and the last of them kept, since windows share rows with others. Raises InputError where the
    file cannot be read, and as `Stack.rows_at_once`.
    """

    def __init__(self, image: FileImage, channel: int | None, how: str, mapping: levels.Mapping | None = None) -> None:
        self.image, self.channel, self.how, self.mapping = image, channel, how, mapping
        with image.opened() as stack:
            self._rows = max(1, stack.rows_at_once(image.planes[0], channel))
        self._bands: OrderedDict[int, GreyImage] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_bands": OrderedDict()}

    def raw(self) -> Iterator[NDArray[Any]]:
        """Read the numbers of all rows as the file has them, in parts [h, W] or [h, W, 3] one below the other."""
        measured = levels.rows_at_once(self.image.width)
        rows = measured * -(-self._rows // measured)  # whole parts of the measurement: it is that of the whole image
        for top in range(0, self.image.height, rows):
            yield self._read(slice(top, min(top + rows, self.image.height)))

    def _read(self, rows: slice) -> NDArray[Any]:
        with self.image.opened() as stack:
            parts = (stack.region(plane, self.channel, rows, slice(None)) for plane in self.image.planes)
            return joined(parts, self.how)

    def __call__(self, rows: slice, columns: slice) -> GreyImage:
        """Read a part; it is decoded where its bands are not at hand."""
        top, bottom, _ = rows.indices(self.image.height)
        size = self._rows * -(-_LEAST // self._rows)
        parts = []
        for number in range(top // size, -(-bottom // size)):
            start = number * size
            parts.append(self._band(number, size)[max(top - start, 0) : bottom - start, columns])
        return np.concatenate(parts)

    def _band(self, number: int, size: int) -> GreyImage:
        """Return rows number * size and the following, uint8 [h, W]."""
        assert self.mapping is not None
        if number not in self._bands:
            kept = max(1, _KEPT // (size * self.image.width))
            while len(self._bands) >= kept:
                self._bands.popitem(last=False)
            start = number * size
            self._bands[number] = self.mapping(self._read(slice(start, min(start + size, self.image.height))))
        self._bands.move_to_end(number)
        return self._bands[number]

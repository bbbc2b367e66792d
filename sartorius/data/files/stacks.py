"""Image files of one plane or of many: time, focus, channels and pages, read one plane at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from sartorius.data.files import axes, other_formats, pixel_sizes, zarr_images
from sartorius.data.image_files import (
    NO_IMAGE,
    PillowImage,
    check_pixels,
    explained,
    is_tiff,
    open_file,
    upright,
    upright_size,
)
from sartorius.data.tiff import TiffImage, axes_and_planes, open_tiff
from sartorius.errors import InputError

_AXES = {"T": "t", "Z": "z", "C": "c"}  # of tifffile; others are pages
Index = Mapping[str, int]  # place on each axis of a stack


class Stack(Protocol):
    """Planes of one size: axes t (time), z (focus), c (channels) and p (pages), those that are longer than 1.

    axes: their lengths. height, width: pixels of a plane, upright. pixel_size: micrometres, None where not known.
    """

    axes: dict[str, int]
    height: int
    width: int
    pixel_size: float | None

    def read(self, index: Index, channel: int | None) -> NDArray[Any]:
        """Read a plane: numbers [H, W], the lowest black, or [H, W, 3] of colours.

        index: of each axis. channel: of colours and other samples of a pixel, counted from 0. Raises InputError where
        that is not there, and as `image_files.decode` does.
        """

    def rows_at_once(self, index: Index, channel: int | None) -> int:
        """Return how many rows of a plane are best read at once; 0 where all of them are decoded for any part.

        Raises InputError where a part would not be what it is in the whole, or take the memory of the whole.
        """

    def region(self, index: Index, channel: int | None, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part of a plane, [h, w] or [h, w, 3]; see `read`."""


@contextmanager
def open_stacks(path: Path) -> Iterator[Sequence[Stack]]:
    """Open a file, or an OME-Zarr folder: its stacks, several where it holds several images.

    Raises InputError where it cannot be read, and for what has no certain meaning in grey or RGB.
    """
    with explained(path, *NO_IMAGE):
        if path.is_dir():
            stacks: Sequence[Stack] = [zarr_images.ZarrStack(path)]
        elif other_formats.is_other(path):
            stacks = other_formats.open_other(path)
        else:
            stacks = ()
    if stacks:
        yield stacks
        return
    with open_file(path) as file:
        with explained(path, *NO_IMAGE):
            stacks = _tiff_stacks(file) if is_tiff(file) else [_SingleImage(PillowImage(file))]
        yield stacks


class _SingleImage:
    """An image of a format that has one a file."""

    def __init__(self, image: PillowImage) -> None:
        self.image, self.axes = image, dict[str, int]()
        self.height, self.width = upright_size(image)
        check_pixels(self.height, self.width)
        self.pixel_size = pixel_sizes.of_dots(image.dots)

    def read(self, index: Index, channel: int | None) -> NDArray[Any]:
        return upright(self.image.pixels(channel), self.image.orientation)

    def rows_at_once(self, index: Index, channel: int | None) -> int:
        return 0

    def region(self, index: Index, channel: int | None, rows: slice, columns: slice) -> NDArray[Any]:
        return self.read(index, channel)[rows, columns]


def _tiff_stacks(file: BinaryIO) -> Sequence[Stack]:
    """Open the series of a TIFF: OME's images, or pages of one size and kind. Smaller copies are left out."""
    tiff = open_tiff(file)
    series = [part for k, part in enumerate(tiff.series) if k == 0 or not part.keyframe.is_reduced]
    return [_TiffStack(file.name, tiff, part, number) for number, part in enumerate(series)]


class _TiffStack:
    """A series of planes in a TIFF; each is read as a page of its own, with the tags of its page."""

    def __init__(self, name: str, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, number: int) -> None:
        self.name, self._series, page = name, series, series.keyframe
        image = TiffImage(name, page)
        self.height, self.width = upright_size(image)
        self.pixel_size = pixel_sizes.of_tiff(tiff, number)
        if page.imagedepth > 1:
            raise InputError(f"{name}: {page.imagedepth} planes in one page; save them as pages")
        of_pixel = "YX" + "S" * (page.samplesperpixel > 1)
        named, self._of_page = axes_and_planes(series)
        self._dims = [
            (_AXES.get(axis, "p"), length)
            for axis, length in zip(named, series.shape, strict=True)
            if axis not in of_pixel
        ]
        self.axes = axes.lengths(self._dims)
        self._shape = tuple(length for _, length in self._dims)
        count = math.prod(self._shape)
        self._pages, rest = divmod(count, self._of_page)
        if rest or (len(series.pages) != self._pages and (len(series.pages) > 1 or series.dataoffset is None)):
            raise InputError(f"{name}: {len(series.pages)} pages of {count} planes; save one plane a page")

    def read(self, index: Index, channel: int | None) -> NDArray[Any]:
        image, sample = self._image(index, channel)
        return upright(image.pixels(sample), image.orientation)

    def rows_at_once(self, index: Index, channel: int | None) -> int:
        image, sample = self._image(index, channel)
        image.check_parts(sample)
        return 1 if image.page.is_memmappable else int(image.page.chunks[0])

    def region(self, index: Index, channel: int | None, rows: slice, columns: slice) -> NDArray[Any]:
        image, sample = self._image(index, channel)
        return image.pixels(sample, rows, columns)

    def _image(self, index: Index, channel: int | None) -> tuple[TiffImage, int | None]:
        """Return the page that a plane is in, and which of its samples are read: the channel, or the plane itself."""
        place = int(np.ravel_multi_index(axes.places(self._dims, index), self._shape)) if self._shape else 0
        if self._of_page == 1:
            return TiffImage(self.name, *self._page(place)), channel
        if channel:
            raise InputError(f"{self.name}: no channel {channel}, it has 1; give channel=0")
        place, sample = divmod(place, self._of_page)
        return TiffImage(self.name, *self._page(place)), sample

    def _page(self, place: int) -> tuple[tifffile.TiffPage, NDArray[Any] | None]:
        """Return a page of the series or, where all stand behind one page, that and the numbers of the page."""
        series = self._series
        if len(series.pages) == self._pages:
            if (page := series.pages[place]) is None:
                raise InputError(f"{self.name}: page {place + 1} of {self._pages} is missing; copy all files again")
            return page.aspage(), None
        page = series.keyframe
        dtype = np.dtype(series.dtype).newbyteorder(page.parent.byteorder)
        shape = (self._pages, *page.shape)
        return page, np.memmap(self.name, dtype, "r", series.dataoffset or 0, shape)[place]

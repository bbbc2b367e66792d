"""TIFF images, read with tifffile: each tag that changes the meaning of a pixel is applied, or the image is refused.

The tags are those of TIFF 6.0 (Adobe, 1992): sections 3 to 8 (photometric, palette, orientation), 18 (extra samples)
and 19 (sample format).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sartorius.data.channels import check_channel
from sartorius.errors import InputError

if TYPE_CHECKING:  # a program of an ONNX package goes without
    import tifffile

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, TIFF and BigTIFF

_WHITE, _BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
_PUBLIC = 350  # codes of tags below are those of TIFF 6.0 and its supplements
_JPEG = 7  # Compression; tifffile makes RGB of it
MAX_CHUNK = 2**24  # pixels of a large image that are decoded at once
_APART = 2  # PlanarConfiguration
_MULTIPLIED, _ALPHA = 1, 2  # ExtraSamples
_SAMPLES = {"u": "{}-bit", "b": "{}-bit", "i": "signed {}-bit", "f": "{}-bit float"}  # by NumPy's kind


def zarr_array(store: Any, name: str) -> Any:
    """Open an array of a file or folder, `name`; raises InputError where `zarr` is not installed."""
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"{name}: needs the package zarr; pip install 'sartorius[zarr]'") from error
    return zarr.open_array(store, mode="r")


def open_tiff(file: BinaryIO) -> tifffile.TiffFile:
    """Open a TIFF, without the other files of its set; raises ValueError for a damaged directory of its first page."""
    import tifffile

    tiff = tifffile.TiffFile(file, _multifile=False)
    _check_directory(tiff)
    return tiff


def only_image(file: BinaryIO) -> TiffImage:
    """Open a TIFF of one image; raises InputError for several pages, and as `TiffImage` does."""
    tiff = open_tiff(file)
    if (count := _count(tiff)) > 1:
        raise InputError(f"{file.name}: {count} pages; expected one image a file: save the pages apart")
    return TiffImage(file.name, tiff.pages.first)


class TiffImage:
    """An image of an open file: a page, or `stored` numbers behind it, [H, W], [H, W, channels] or [channels, H, W].

    height, width: pixels, as stored.  orientation: 1 (the image is stored upright) to 8.  sample, colour: see
    `image_files.Header`; 2 and 4 bits are scaled to 8.

    Raises InputError for what has no certain meaning in grey or RGB. A damaged file raises any exception.
    """

    def __init__(self, name: str, page: tifffile.TiffPage, stored: NDArray[Any] | None = None) -> None:
        self.name, self.page, self.stored = name, page, stored
        if page.dtype is None or page.dtype.kind not in _SAMPLES or not isinstance(page.bitspersample, int):
            form = f"{page.bitspersample} bits in SampleFormat {page.sampleformat}"
            raise self._refused(f"pixels of {form}; save them as integers or floats")
        orientation = int(page.tags.valueof(274, 1))
        self.orientation = orientation if 1 <= orientation <= 8 else 1
        self.height, self.width = page.imagelength, page.imagewidth
        self.sample = _SAMPLES[page.dtype.kind].format(8 if page.bitspersample in (2, 4) else page.bitspersample)
        kind = self._kind(page.dtype.kind)
        self.channels = 3 if kind == "RGB" else 1
        self.others = page.samplesperpixel - self.channels
        self.colour = f"{kind}+{self.others}" if self.others else kind

    def _kind(self, number: str) -> str:
        page = self.page
        rgb = page.compression == _JPEG and page.planarconfig == 1 and not page.extrasamples
        if page.photometric in (_WHITE, _BLACK):
            return "grey"
        if page.photometric == _RGB or (page.photometric == _YCBCR and rgb):
            return "RGB"
        if page.photometric == _PALETTE and page.samplesperpixel == 1 and number in "ub":
            return "palette"
        import tifffile

        raise self._refused(f"colours of {tifffile.PHOTOMETRIC(page.photometric).name}; save it as grey or RGB")

    def _refused(self, problem: str) -> InputError:
        return InputError(f"{self.name}: {problem}")

    def pixels(
        self, channel: int | None = None, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[Any]:
        """Decode as stored: numbers [H, W], the lowest black, or [H, W, 3] of colours, uint8 from a palette.

        channel: decode only this one, colours and others counted from 0. rows, columns: of a part, of which only the
        tiles or strips are decoded that it lies in. Raises InputError where there is no such channel.
        """
        page = self.page
        pixels = self._stored() if rows == columns == slice(None) else self._stored_part(rows, columns)
        if channel is not None:
            check_channel(self.name, channel, self.channels + self.others)
            pixels = pixels[..., channel]
        else:
            for k in range(self.others):
                self._check_other(k, pixels[..., self.channels + k])
            pixels = pixels[..., 0] if self.channels == 1 else pixels[..., :3]
        if self.colour == "palette":
            return _palette(np.asarray(page.tags.valueof(320)))[pixels.astype(np.intp)]
        return _from_black(pixels, page.bitspersample, page.photometric == _WHITE)

    def _stored(self) -> NDArray[Any]:
        """Read the numbers as they are stored, [H, W, channels]."""
        page = self.page
        if self.stored is not None:
            if page.planarconfig == _APART and page.samplesperpixel > 1:
                return np.moveaxis(self.stored, 0, -1)
            return self.stored.reshape(self.height, self.width, -1)
        ends = (start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False))
        if page.compression != 1 and max(ends, default=0) > page.parent.filehandle.size:
            raise ValueError("the file ends within the pixels")  # some codecs invent the rest
        planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [channels apart, H, W, channels together]
        return np.moveaxis(planes[..., 0], 0, -1) if len(planes) > 1 else planes[0]

    def _stored_part(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read the numbers of a part as they are stored, [h, w, channels]."""
        page = self.page
        if self.stored is None and page.is_memmappable:
            dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
            self.stored = np.memmap(self.name, dtype, "r", page.dataoffsets[0], page.shape)
        if self.stored is not None:
            return self._stored()[rows, columns]  # a view of the file
        planes = zarr_array(page.aszarr(), self.name)
        if page.samplesperpixel == 1:
            return np.asarray(planes[rows, columns])[..., None]
        if page.planarconfig == _APART:
            return np.moveaxis(np.asarray(planes[:, rows, columns]), 0, -1)
        return np.asarray(planes[rows, columns])

    def check_parts(self, channel: int | None) -> None:
        """Raise InputError unless parts of the image are read like the whole, and in memory for them alone."""
        page = self.page
        if self.orientation != 1:
            raise self._refused("too large to be turned upright; save it upright")
        if self.others and channel is None:
            raise self._refused(f"{self.channels + self.others} channels; give channel=, the one to predict on")
        at_once = page.chunks[0] * page.chunks[1]
        if self.stored is None and not page.is_memmappable and at_once > MAX_CHUNK:
            raise self._refused(
                f"its pixels are decoded {at_once:,} at once, expected {MAX_CHUNK:,} at most; save it in tiles"
            )
        ends = (start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > page.parent.filehandle.size:
            raise ValueError("the file ends within the pixels")

    def _check_other(self, k: int, channel: NDArray[Any]) -> None:
        """Refuse a channel that may belong to the image: only alpha and one of a single value may be left out."""
        meaning = self.page.extrasamples[k] if k < len(self.page.extrasamples) else 0
        flat, opaque = (channel == channel.flat[0]).all(), _white(channel.dtype, self.page.bitspersample)
        if meaning == _MULTIPLIED and not (flat and channel.flat[0] == opaque):
            raise self._refused("colours that are multiplied by alpha; save it without alpha")
        if meaning not in (_MULTIPLIED, _ALPHA) and not flat:
            number = self.channels + k + 1
            raise self._refused(
                f"channel {number} is neither colour nor alpha; save one channel a file, or give channel="
            )


def _check_directory(tiff: tifffile.TiffFile) -> None:
    """Raise ValueError for a tag of the first page, or a second page, that tifffile could not read: it does without."""
    page, form, file = tiff.pages.first, tiff.tiff, tiff.filehandle
    file.seek(page.offset)
    (number,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    for _ in range(number):
        (code,) = struct.unpack(form.byteorder + "H", file.read(form.tagsize)[:2])
        if code < _PUBLIC and code not in page.tags:
            raise ValueError(f"tag {code} cannot be read")
    (place,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if place and len(tiff.pages) == 1:
        raise ValueError(f"the second page should begin at byte {place}")


def axes_and_planes(series: tifffile.TiffPageSeries) -> tuple[str, int]:
    """Return the axes of a series, S that of the samples of a pixel, and the planes that a page of it holds.

    Planes are stored as samples by programs that take 3 or 4 of them for colours, although their axis has a name
    (tifffile, LSM). Samples beside each other that are called channels are those of a pixel.
    """
    page, named = series.keyframe, series.axes
    if page.samplesperpixel > 1 and page.planarconfig != _APART and named.endswith("C"):
        named = named[:-1] + "S"
    return named, 1 if "S" in named else page.samplesperpixel


def _count(tiff: tifffile.TiffFile) -> int:
    """Count the images of a file: pages, or the planes that these formats keep in the first page or behind it."""
    page = tiff.pages.first
    if len(tiff.pages) == 1 and page.dtype is not None and (tiff.is_imagej or tiff.is_shaped or tiff.is_stk):
        series = tiff.series[0]
        return int(series.size // page.size) * axes_and_planes(series)[1]
    return max(len(tiff.pages), page.imagedepth)


def _white(dtype: np.dtype[Any], bits: int) -> float:
    return 1.0 if dtype.kind == "f" else 2 ** (bits - (dtype.kind == "i")) - 1


def _from_black(pixels: NDArray[Any], bits: int, from_white: bool) -> NDArray[Any]:
    """Make the lowest value black, and uint8 of 1, 2 and 4 bits."""
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if from_white and pixels.dtype.kind == "u":
        pixels = np.asarray(2**bits - 1).astype(pixels.dtype) - pixels
    elif from_white:
        pixels = ~pixels if pixels.dtype.kind == "i" else -pixels
    return pixels * np.uint8(255 // (2**bits - 1)) if bits in (1, 2, 4) else pixels


def _palette(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a ColorMap, reds then greens then blues of 16 bits (of 8 in old files), to uint8 [N, 3]."""
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8).reshape(3, -1).T

"""Opening image files: TIFF with tifffile, everything else with Pillow; size and pixels are of the upright image.

The contents tell the format of a file, not its suffix. A header is read without the pixels.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sartorius.data.channels import check_channel
from sartorius.data.tiff import MAGIC, TiffImage, only_image
from sartorius.errors import InputError

if TYPE_CHECKING:  # a program of an ONNX package goes without
    from PIL import Image

MAX_PIXELS = 178_956_970  # from here on Pillow suspects a file that is made to fill the memory

_STORAGE = {  # by Pillow's mode
    "L": ("8-bit", "grey"), "LA": ("8-bit", "grey+1"), "RGB": ("8-bit", "RGB"), "RGBA": ("8-bit", "RGB+1"),
    "P": ("8-bit", "palette"), "1": ("1-bit", "grey"), "I": ("signed 32-bit", "grey"), "F": ("32-bit float", "grey"),
}  # fmt: skip


class Header(NamedTuple):
    """Height and width in pixels of the upright image, and its storage.

    sample: the form of a number, "1-bit", "8-bit", "16-bit", "signed 8-bit", "32-bit float", ...  colour: "grey",
    "RGB", "palette", ...; "grey+1" has one channel more, such as alpha.
    """

    height: int
    width: int
    sample: str
    colour: str

    @property
    def is_plain(self) -> bool:
        """Whether it is 8-bit grey, as the competition's images are."""
        return (self.sample, self.colour) == ("8-bit", "grey")


def read_header(path: str | Path) -> Header:
    """Read the size of an image and how it is stored.

    Raises InputError where the file is missing, is no image, has several pages, or pixels without a certain meaning.
    """
    with _opened(path) as image:
        return _header(image)


def decode(path: str | Path) -> tuple[Header, NDArray[Any]]:
    """Decode an image: header, and numbers [H, W] of a grey one (the lowest is black) or [H, W, 3] of any other.

    Channels beyond grey or RGB are left out. Raises InputError as `read_header`, and where the file is cut off or
    damaged or such a channel may be part of the image.
    """
    with _opened(path) as image, explained(path, "cut off or damaged", "copy or download it again"):
        return _header(image), upright(image.pixels(), image.orientation)


@contextmanager
def explained(path: str | Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise InputError in place of the errors of a decoder, of which there are many kinds; a full memory is left."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's, tifffile's, those of the codecs
        raise InputError(f"{path}: {problem} ({' '.join(str(error).split())}); {remedy}") from error


def open_file(path: str | Path) -> BinaryIO:
    """Open a file of any content; raises InputError where it is missing or cannot be read."""
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image; restore the file or remove its rows") from error
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error.strerror}); copy it again") from error


def is_tiff(file: BinaryIO) -> bool:
    """Whether an open file is a TIFF, by its first bytes."""
    magic = file.read(4)
    file.seek(0)
    return magic in MAGIC


NO_IMAGE = ("not a readable image", "copy it again, or save it as PNG")  # problem and remedy


@contextmanager
def _opened(path: str | Path) -> Iterator[TiffImage | PillowImage]:
    with open_file(path) as file:
        with explained(path, *NO_IMAGE):
            image = only_image(file) if is_tiff(file) else PillowImage(file)
            check_pixels(image.height, image.width)
        yield image


def check_pixels(height: int, width: int) -> None:
    """Raise ValueError for an image that is too large to be decoded whole."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels, more than {MAX_PIXELS}")


@contextmanager
def within_memory(path: str | Path) -> Iterator[None]:
    """Raise InputError where the memory is not enough for an image."""
    try:
        yield
    except MemoryError as error:
        raise InputError(f"{path}: too large for the memory ({error}); cut the image into parts") from error


def _header(image: TiffImage | PillowImage) -> Header:
    return Header(*upright_size(image), image.sample, image.colour)


def upright_size(image: TiffImage | PillowImage) -> tuple[int, int]:
    """Return height and width of an image once it is upright."""
    return (image.width, image.height) if image.orientation > 4 else (image.height, image.width)


class PillowImage:
    """An open image of any format but TIFF; its attributes are those of a `TiffImage`.

    dots: its resolution, pixels an inch (x, y); None where it has none.
    """

    def __init__(self, file: BinaryIO) -> None:
        from PIL import Image, UnidentifiedImageError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half as many pixels as the error
            try:
                self._image = image = Image.open(file)
            except UnidentifiedImageError:
                raise ValueError("of no format that is known") from None  # Pillow's error shows the open file
        self.name, self.height, self.width = file.name, image.height, image.width
        if (pages := getattr(image, "n_frames", 1)) > 1:  # only formats of several pages have it
            raise InputError(f"{self.name}: {pages} pages; expected one image a file: save the pages apart")
        self.sample, self.colour = _STORAGE.get(image.mode, ("8-bit", image.mode))
        # the storage in the file, such as `RGB;16B`; of several channels Pillow drops the low bytes
        if image.mode.startswith("I;16"):
            self.sample, self.colour = "16-bit", "grey"
        elif any(";16" in str(tile[3]) for tile in image.tile):
            self.sample = "16-bit"
        self.dots: tuple[float, float] | None = image.info.get("dpi")
        self.orientation = _orientation(image, file.name)  # last: it may decode the pixels

    def pixels(self, channel: int | None = None) -> NDArray[Any]:
        """Decode as stored: numbers [H, W] of a grey image, uint8 [H, W, 3] of any other.

        channel: decode only this one, counted from 0. Raises InputError where there is no such one.
        """
        check_channel(self.name, channel, len(self._image.getbands()))
        if self.sample == "16-bit" and self.colour != "grey":
            return self._deep(channel)
        if channel is not None and self.colour not in ("grey", "palette"):
            return np.array(self._image.getchannel(channel))
        exact = self.colour == "grey" and self.sample != "1-bit"
        return np.array(self._image if exact else self._image.convert("L" if self.colour == "grey" else "RGB"))

    def _deep(self, channel: int | None) -> NDArray[Any]:
        """Decode a PNG of 16 bits in each of several channels, of which Pillow keeps eight."""
        import imagecodecs

        if self._image.format != "PNG":
            raise InputError(f"{self.name}: 16 bits in each of several channels; save it as PNG or TIFF")
        pixels: NDArray[Any] = imagecodecs.png_decode(Path(self.name).read_bytes())
        return pixels[..., 0 if self.colour == "grey+1" else slice(3)] if channel is None else pixels[..., channel]


def _orientation(image: Image.Image, path: str) -> int:
    """Read EXIF's orientation, 1 (as it is) to 8."""
    from PIL import ExifTags, Image

    # PngImageFile's own method decodes the pixels to reach what may stand behind them
    exif = image.getexif() if image.format != "PNG" or _has_late_text(path) else Image.Image.getexif(image)
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _has_late_text(path: str) -> bool:
    """Whether a PNG has EXIF or XMP data, or compressed text, behind its pixels."""
    position, late = 8, False
    with open(path, "rb", buffering=0) as file:
        file.seek(position)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if late and kind in (b"eXIf", b"iTXt", b"zTXt"):
                return True
            late |= kind == b"IDAT"
            position += length + 12
            file.seek(position)
    return False


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn pixels [H, W, ...] as EXIF's and TIFF's orientation says; 5 to 8 exchange rows and columns."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels[::-1] if orientation in (3, 4, 7, 8) else pixels)

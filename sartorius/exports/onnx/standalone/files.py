"""Images and label images as files: .npy and PNG by NumPy alone, others where Pillow or tifffile are installed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sartorius.data.channels import check_channel, choose_channel
from sartorius.data.image_files import NO_IMAGE, PillowImage, explained, is_tiff, upright
from sartorius.data.tiff import TiffImage, axes_and_planes, open_tiff
from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.arrays import LabelMap

SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a PNG's colour types: grey, RGB, both with alpha
_MOST_BYTES = 2**32  # of an image's pixels
_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")  # of a PNG that may tell an orientation, as its chunk eXIf does


def read_image(path: Path, channel: int | None = None) -> NDArray[Any]:
    """Read a file as `predict` does: numbers [H, W], the lowest black, or [H, W, 3] of colours, upright.

    channel: of several, counted from 0. None leaves out alpha. Raises InputError where that cannot be.
    """
    with explained(path, *NO_IMAGE):
        try:
            return _read(path, channel)
        except ImportError as error:
            name = {"PIL": "pillow"}.get(str(error.name), error.name)
            raise InputError(
                f"{path}: needs {name} (pip install {name}), or save it upright as 8 or 16-bit PNG"
            ) from error


def _read(path: Path, channel: int | None) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        return choose_channel(np.load(path, allow_pickle=False), channel, str(path))
    with open(str(path), "rb") as file:
        if is_tiff(file):
            return _read_tiff(file, channel)
        head = file.read(26)
        file.seek(0)
        if head.startswith(_PNG) and head[24:25] in b"\x08\x10" and head[25] in _CHANNELS:
            pixels, orientation = _read_png(file.read())
            check_channel(str(path), channel, count := pixels.shape[-1])
            chosen = pixels[..., channel if channel is not None else 0 if count < 3 else slice(3)]
            return upright(chosen, orientation or PillowImage(file).orientation)
        image = PillowImage(file)
        return upright(image.pixels(channel), image.orientation)


def _read_tiff(file: BinaryIO, channel: int | None) -> NDArray[Any]:
    """Read the only image of a TIFF, its channels as samples of a pixel or as planes; smaller copies are left out."""
    first, *others = (part for k, part in enumerate(open_tiff(file).series) if not k or not part.keyframe.is_reduced)
    page, image = first.keyframe, TiffImage(file.name, first.keyframe)
    named, of_page = axes_and_planes(first)
    of_pixel = "YX" + "S" * (page.samplesperpixel > 1)
    planes = {axis: n for axis, n in zip(named, first.shape, strict=True) if axis not in of_pixel and n > 1}
    if others or planes.keys() - {"C"}:
        found = " x ".join(f"{n} {axis}" for axis, n in planes.items()) or len(others) + 1
        raise InputError(f"{file.name}: {found} planes; expected one image a file: save the planes apart")
    count = planes.get("C", 1)
    if first.size * of_page != count * page.size or len(first.pages) not in (1, count // of_page):
        raise InputError(f"{file.name}: {len(first.pages)} pages of {count} planes; save one plane a page")
    if not planes:
        return upright(image.pixels(channel), image.orientation)
    if channel is None:
        raise InputError(f"{file.name}: {count} channels; give channel=0 to {count - 1}")
    check_channel(file.name, channel, count)
    if None in list(first.pages):
        raise InputError(f"{file.name}: a plane is missing; copy all files again")
    place, sample = divmod(channel, of_page)
    stored = first.asarray().reshape(-1, *page.shape)[place]
    return upright(TiffImage(file.name, page, stored).pixels(sample if of_page > 1 else None), image.orientation)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of each part of a PNG."""
    at = len(_PNG)
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at : at + 8])
        data, end = content[at + 8 : at + 8 + length], content[at + 8 + length : at + 12 + length]
        if len(end) < 4 or zlib.crc32(name + data) != struct.unpack(">I", end)[0]:
            raise ValueError("cut off or damaged")
        yield name, data
        at += 12 + length


def _read_png(content: bytes) -> tuple[NDArray[Any], int]:
    """Decode a PNG of 8 or 16 bits without a palette, uint8 or uint16 [H, W, C].

    Returns its orientation too, 1 (as it is); 0 where parts that are not read may tell another.
    """
    parts = list(_chunks(content))
    width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", parts[0][1])
    if interlaced:
        raise ValueError("an interlaced PNG; save it without")
    channels = _CHANNELS[colour]
    step, size = channels * bits // 8, width * channels * bits // 8
    if not 0 < height * (size + 1) <= _MOST_BYTES:
        raise ValueError(f"{width} x {height} pixels")
    data = zlib.decompressobj().decompress(
        b"".join(part for name, part in parts if name == b"IDAT"), height * (size + 1)
    )
    lines = np.frombuffer(data, np.uint8).reshape(height, size + 1)
    pixels, above = np.zeros((height, size), np.uint8), np.zeros(size, np.uint8)
    for row, line in enumerate(lines):
        above = pixels[row] = _unfiltered(line[0], line[1:], above, step)
    values = pixels.view(">u2").astype(np.uint16) if bits == 16 else pixels
    turned = any(name == b"eXIf" or part.startswith(_TEXTS) for name, part in parts)
    return values.reshape(height, width, channels), 0 if turned else 1


def _unfiltered(kind: int, line: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Undo a PNG's filter of a line, uint8 [bytes]; step: bytes of a pixel."""
    if kind == 0:
        return line
    if kind == 1:
        return np.asarray(np.add.accumulate(line.reshape(-1, step), axis=0, dtype=np.uint8).ravel())
    if kind == 2:
        return line + above
    if kind not in (3, 4):
        raise ValueError(f"filter {kind}")
    result, up, left, corner = line.tolist(), above.tolist(), 0, 0
    for k, value in enumerate(result):
        b = up[k]
        if k >= step:
            left, corner = result[k - step], up[k - step]
        if kind == 3:
            guess = (left + b) // 2
        else:
            p, q, r = abs(b - corner), abs(left - corner), abs(left + b - 2 * corner)
            guess = left if p <= q and p <= r else b if q <= r else corner
        result[k] = (value + guess) & 255
    return np.array(result, np.uint8)


def write_labels(path: Path, labels: LabelMap) -> None:
    """Write a label image uint16 [H, W] as .npy, .png (16 bits) or .tif, under a temporary name first."""
    if path.suffix == ".tif":
        try:
            import tifffile
        except ImportError as error:
            raise InputError("--format tif needs tifffile; pip install tifffile, or give --format png") from error
        with atomic_path(path) as temporary:
            tifffile.imwrite(temporary, labels, compression="zlib")
    elif path.suffix == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, labels)
    else:
        with atomic_path(path) as temporary:
            temporary.write_bytes(_png(labels))


def _png(labels: LabelMap) -> bytes:
    """Encode uint16 [H, W] as a grey PNG of 16 bits."""
    height, width = labels.shape
    lines = np.zeros((height, 1 + 2 * width), np.uint8)
    lines[:, 1:] = labels.astype(">u2").view(np.uint8).reshape(height, 2 * width)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return _PNG + b"".join(packed)

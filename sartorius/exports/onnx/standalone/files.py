"""Images and label images as files: .npy and PNG by NumPy alone, others where Pillow or tifffile are installed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.arrays import LabelMap

SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a PNG's colour types: grey, RGB, both with alpha
_MOST_BYTES = 2**32  # of an image's pixels


def read_image(path: Path) -> NDArray[Any]:
    """Read numbers [H, W] or, of colours, [H, W, 3]; alpha is left out. Raises InputError where that cannot be."""
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".npy":
            pixels = np.load(path, allow_pickle=False)
        elif content.startswith(_PNG) and content[24:25] in b"\x08\x10" and content[25] in _CHANNELS:
            pixels = _read_png(content)
        elif path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            pixels = tifffile.imread(path)
        else:
            from PIL import Image

            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)
    except ImportError as error:
        name = {"PIL": "pillow"}.get(str(error.name), error.name)
        raise InputError(f"{path}: needs {name} (pip install {name}), or save it as 8 or 16-bit PNG") from error
    except (OSError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


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


def _read_png(content: bytes) -> NDArray[Any]:
    """Decode a PNG of 8 or 16 bits without a palette, uint8 or uint16 [H, W, C]."""
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
    if bits == 16:
        return pixels.view(">u2").astype(np.uint16).reshape(height, width, channels)
    return pixels.reshape(height, width, channels)


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

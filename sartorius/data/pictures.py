"""Reading grey pictures: their size without decoding, their pixels, and folders of them.

The competition's pictures are 8-bit grey PNGs, and anything else in its layout is a mistake worth stopping for. A
person's own folder may hold grey pictures saved as RGB; those are read when the channels agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sartorius.errors import InputError
from sartorius.instances import Instances

GreyImage = NDArray[np.uint8]

SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
# What Pillow raises for files that are no picture, are cut off or are absurdly large.
_PIL_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_REMEDY_GREY = "expected 8-bit grey; convert it (scale the values to 0..255, one channel)"


def read_header(path: str | Path) -> tuple[int, int, str]:
    """(height, width, Pillow mode) from the file's header alone, no decoding.

    Raises InputError where the file is missing or is no picture.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width, image.mode
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such picture; restore the file or remove its rows") from error
    except _PIL_ERRORS as error:
        raise InputError(f"{path}: not a readable picture ({error}); copy or download it again") from error


def read_grey(path: str | Path, accept_rgb: bool = False) -> GreyImage:
    """The pixels of a picture, uint8 [H, W], 0 to 255.

    `accept_rgb`: also take RGB(A) and palette pictures whose three channels are equal (alpha is ignored).
    Raises InputError where the file is missing, cut off, 16-bit, or coloured.
    """
    _, _, mode = read_header(path)
    if mode != "L" and not (accept_rgb and mode in ("RGB", "RGBA", "LA", "P", "1")):
        raise InputError(f"{path}: a picture of mode '{mode}'; {_REMEDY_GREY}")
    try:
        with Image.open(path) as image:
            pixels = np.array(image if mode == "L" else image.convert("RGB"))
    except _PIL_ERRORS as error:
        raise InputError(f"{path}: cut off or damaged ({error}); copy or download it again") from error
    if pixels.ndim == 2:
        return pixels
    if not (pixels == pixels[..., :1]).all():
        raise InputError(
            f"{path}: a coloured picture; {_REMEDY_GREY}, for instance `convert in.png -colorspace gray out.png`"
        )
    return np.ascontiguousarray(pixels[..., 0])


def list_pictures(folder: str | Path) -> list[Path]:
    """The picture files of a folder (not of its subfolders), sorted by name; hidden files are left out.

    Raises InputError where the folder is missing or two files share a name without suffix (the picture's id).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of pictures")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise InputError(
                f"{folder}: {seen[path.stem].name} and {path.name} have the same id '{path.stem}'; rename one"
            )
        seen[path.stem] = path
    return paths


class Source(Protocol):
    """Where a dataset takes pictures and cells from: a competition folder, a cleaned one, a folder of pictures."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, sorted; a picture's index is its place here."""

    def image(self, picture: str) -> GreyImage:
        """uint8 [H, W]."""

    def instances(self, picture: str) -> Instances:
        """The cells, at the size of the picture."""

    def cell_type(self, picture: str) -> str:
        """Name of the picture's cell type, "" where it is not known."""


class PictureFolder:
    """Pictures without truth, as a source of a dataset: each one's `instances` are empty.

    `paths` default to the pictures of `folder`; ids are file names without suffix, sorted. Raises InputError where
    there is no picture, or (from `image`) where one cannot be read.
    """

    def __init__(self, folder: str | Path, paths: Sequence[Path] | None = None) -> None:
        self.folder = Path(folder)
        chosen = list_pictures(folder) if paths is None else paths
        self.paths = {path.stem: path for path in sorted(chosen, key=lambda path: path.stem)}
        if not self.paths:
            raise InputError(f"{folder}: no pictures in it; expected files ending in {', '.join(SUFFIXES)}")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the pictures, sorted."""
        return tuple(self.paths)

    def image(self, picture: str) -> GreyImage:
        """The pixels of a picture, uint8 [H, W]; see `read_grey` for RGB ones."""
        return read_grey(self.paths[picture], accept_rgb=True)

    def instances(self, picture: str) -> Instances:
        """No cells, at the size of the picture."""
        height, width, _ = read_header(self.paths[picture])
        return Instances.empty(height, width)

    def cell_type(self, picture: str) -> str:
        """Not known: ""."""
        return ""

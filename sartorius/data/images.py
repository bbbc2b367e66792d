"""Images of the competition's kind, 8-bit grey in a folder of their own; anything else in its layout is refused.

Images of any other kind are read by `data.files`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np

from sartorius.data.image_files import decode, within_memory
from sartorius.errors import InputError
from sartorius.structures.arrays import Bools, GreyImage
from sartorius.structures.image_ids import check_image_id
from sartorius.structures.instances import Instances

_GREY_IN_COLOUR = ("grey", "grey+1", "RGB", "RGB+1", "palette")  # colours that grey images come in
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


def read_grey(path: str | Path, accept_rgb: bool = False) -> GreyImage:
    """Read the pixels of an 8-bit grey image, uint8 [H, W], 0 to 255, as they are.

    accept_rgb: also take RGB(A), palette and 1-bit images whose three channels are equal (alpha is ignored). Raises
    InputError as `image_files.decode`, for other images and for one too large for the memory.
    """
    with within_memory(path):
        header, pixels = decode(path)
    remedy = "expected 8-bit grey; convert it (scale the values to 0..255, one channel)"
    in_colour = header.sample in ("1-bit", "8-bit") and header.colour in _GREY_IN_COLOUR
    if not header.is_plain and not (accept_rgb and in_colour):
        raise InputError(f"{path}: an image of kind {header.sample} {header.colour}; {remedy}")
    if pixels.ndim == 2:
        return pixels
    if not (pixels == pixels[..., :1]).all():
        raise InputError(f"{path}: a coloured image; {remedy}, for instance `convert in.png -colorspace gray out.png`")
    return np.ascontiguousarray(pixels[..., 0])


def list_images(folder: str | Path) -> list[Path]:
    """List the image files of a folder, sorted by name; hidden files are left out, and sub-folders with a warning.

    Raises InputError where the folder is missing, all images are in its sub-folders, a name without suffix (the image's
    id) is a bad id, or two files share one.
    """
    folder = Path(str(folder))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    with os.scandir(folder) as entries:
        visible = sorted((folder / entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    paths = [path for path, is_folder in visible if not is_folder and path.suffix.lower() in SUFFIXES]
    if nested := [path.name for path, is_folder in visible if is_folder and _holds_images(path)]:
        names = ", ".join(nested[:3]) + (f" and {len(nested) - 3} more" if len(nested) > 3 else "")
        remedy = "give one of them, or move the images up"
        if not paths:
            raise InputError(f"{folder}: no images in it, only in its sub-folders ({names}); {remedy}")
        warnings.warn(f"{folder}: the images of its sub-folders ({names}) are left out; {remedy}", stacklevel=2)
    by_id: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_id:
            raise InputError(
                f"{folder}: {by_id[path.stem].name} and {path.name} have the same id '{path.stem}'; rename one"
            )
        by_id[check_image_id(path.stem, folder)] = path
    return paths


def _holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file() for p in folder.rglob("*"))


class ImageSource(Protocol):
    """Images and cells for a dataset: a competition folder, a cleaned one, a folder of images."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, sorted; an image's index is its place here."""

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels, uint8 [H, W]."""

    def instances(self, image_id: str) -> Instances:
        """Return the cells, at the size of the image."""

    def ignored(self, image_id: str) -> Bools | None:
        """Return the pixels that nobody has labelled, bool [H, W]; None where all are labelled."""

    def cell_type(self, image_id: str) -> str:
        """Return the name of the image's cell type, "" where it is not known."""

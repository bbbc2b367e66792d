"""Reading the pixels of grey images, and folders of them.

The competition's images are 8-bit grey PNGs; anything else in its layout is refused. Other folders may hold grey images
saved as RGB, which are read when the channels agree. Coloured images and those of more than 8 bits are converted only
on demand (`levels`), since a model depends on the grey levels it was trained on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sartorius.data.image_files import decode, read_header
from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage
from sartorius.structures.image_ids import check_image_id
from sartorius.structures.instances import Instances

SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
_REMEDY_GREY = "expected 8-bit grey; convert it (scale the values to 0..255, one channel)"
_REMEDY_LEVELS = ", or have it converted: data.levels=standardise"
_GREY_IN_COLOUR = ("grey", "grey+1", "RGB", "RGB+1", "palette")  # colours that grey images come in

LEVELS = ("exact", "range", "standardise")
# Mean and standard deviation of the competition's images, and `mean` and `std` in conf/model.
GREY_MEAN, GREY_STD = 128.0, 11.58
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green, blue: ITU-R BT.601


def read_grey(path: str | Path, accept_rgb: bool = False, levels: str = "exact") -> GreyImage:
    """Read the pixels of an image, uint8 [H, W], 0 to 255.

    accept_rgb: also take RGB(A), palette and 1-bit images whose three channels are equal (alpha is ignored).
    levels: `exact` leaves grey levels as they are. The others also take images of any number type, and coloured
    ones by their luminance: `standardise` shifts and scales each image to mean 128 and standard deviation 11.58,
    which models trained on the competition expect; `range` scales its lowest..highest value to 0..255, for models
    trained on such images. Both round, and clip to 0..255; an image of one value becomes 128.

    Raises InputError as `image_files.decode`, where the image holds NaN or infinity or is too large for the memory, and
    with `exact` where it is not 8-bit or is coloured.
    """
    checks.one_of("data", LEVELS, levels=levels)
    try:
        header, pixels = decode(path)
        if levels != "exact":
            return _to_levels(path, pixels, levels)
    except MemoryError as error:
        raise InputError(f"{path}: too large for the memory ({error}); cut the image into parts") from error
    remedy = _REMEDY_GREY + (_REMEDY_LEVELS if accept_rgb else "")
    in_colour = header.sample in ("1-bit", "8-bit") and header.colour in _GREY_IN_COLOUR
    if not header.is_plain and not (accept_rgb and in_colour):
        raise InputError(f"{path}: an image of kind {header.sample} {header.colour}; {remedy}")
    if pixels.ndim == 2:
        return pixels
    if not (pixels == pixels[..., :1]).all():
        raise InputError(f"{path}: a coloured image; {remedy}, for instance `convert in.png -colorspace gray out.png`")
    return np.ascontiguousarray(pixels[..., 0])


def _to_levels(path: str | Path, pixels: NDArray[Any], levels: str) -> GreyImage:
    values = pixels.astype(np.float64) if pixels.ndim == 2 else pixels @ _LUMINANCE
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {int((~np.isfinite(values)).sum())} pixels are NaN or infinite; mend the image")
    low, spread = float(values.min()), float(np.ptp(values))
    if spread == 0:
        return np.full(values.shape, round(GREY_MEAN), np.uint8)
    if levels == "range":
        values = (values - low) * (255 / spread)
    else:
        values = (values - values.mean()) * (GREY_STD / values.std()) + GREY_MEAN
    return np.asarray(np.rint(values).clip(0, 255).astype(np.uint8))


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

    def cell_type(self, image_id: str) -> str:
        """Return the name of the image's cell type, "" where it is not known."""


class ImageFolder:
    """Images without truth, an `ImageSource` with empty `instances`.

    `paths` default to the images of `folder`; ids are file names without suffix, sorted. `levels`: see `read_grey`.
    Raises InputError where there is no image, or (from `image`) where one cannot be read.
    """

    def __init__(self, folder: str | Path, paths: Sequence[Path] | None = None, levels: str = "exact") -> None:
        self.folder, self.levels = Path(folder), levels
        chosen = list_images(folder) if paths is None else paths
        self.paths = {check_image_id(path.stem, path): path for path in sorted(chosen, key=lambda path: path.stem)}
        if not self.paths:
            raise InputError(f"{folder}: no images in it; expected files ending in {', '.join(SUFFIXES)}")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, sorted."""
        return tuple(self.paths)

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]; see `read_grey` for RGB ones."""
        return read_grey(self.paths[image_id], accept_rgb=True, levels=self.levels)

    def instances(self, image_id: str) -> Instances:
        """Return no cells, at the size of the image."""
        return Instances.empty(*read_header(self.paths[image_id])[:2])

    def cell_type(self, image_id: str) -> str:
        """Return "": not known."""
        return ""

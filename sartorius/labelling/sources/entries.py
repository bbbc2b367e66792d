"""What all label files come down to: entries, each the labels of one image, whichever file it stands in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from sartorius.errors import InputError
from sartorius.formats.labels import check_size
from sartorius.structures.arrays import Bools
from sartorius.structures.cell_types import UNLABELLED, UNTYPED
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

_REGIONS = (UNLABELLED, "Ignore*")  # types of what is no cell but a region nobody has labelled; the second is QuPath's
_LABELLED = "Region*"  # QuPath's type of a region of interest: what somebody has labelled


@dataclass(frozen=True)
class ImageShape:
    """Height and width in pixels of an image that labels are read for, and which of how many planes of a file it is."""

    height: int
    width: int
    plane: int = 0
    planes: int = 1

    def check(self, source: object, height: int, width: int) -> None:
        """Raise InputError where labels are of another size, telling how it differs."""
        if (height, width) == (self.height, self.width):
            return
        down, across = height / self.height, width / self.width
        hint = ""
        if (width, height) == (self.height, self.width):
            hint = "; rows and columns are exchanged: transpose them"
        elif max(abs(height - self.height), abs(width - self.width)) == 1:
            hint = "; a pixel more or less: they may be shifted, cut or pad them where they were made"
        elif abs(down / across - 1) < 0.02:
            hint = f"; {down:.4g} times as large: save them at the size of the image, without smoothing"
        raise InputError(f"{source}: labels of {width}x{height} pixels, an image of {self.width}x{self.height}{hint}")

    def check_pages(self, source: object, pages: int, height: int, width: int) -> None:
        """Raise InputError where pages of labels do not fit: a layer each, or a plane of the image each."""
        self.check(source, height, width)
        check_size(pages, height, width)
        if self.planes > 1 and pages != self.planes:
            raise InputError(
                f"{source}: {pages} pages of labels, an image of {self.planes} planes; save a page a plane"
            )


@dataclass(frozen=True)
class FoundLabels:
    """The cells of one image as its file has them, in its order.

    runs: of N cells, each with pixels. types: the name of each one's type. numbers: what the file calls each, such as
    its value in a label image. ignored: pixels that nobody has labelled, bool [H, W]; None for none. labelled: those
    that somebody has, None where the file tells none. cell_type: of an image without cells, group: of the image; ""
    where the file tells none. notes: of which doubtful kinds of images it is.
    """

    runs: Runs
    types: tuple[str, ...]
    numbers: tuple[str, ...]
    ignored: Bools | None = None
    labelled: Bools | None = None
    cell_type: str = ""
    group: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelEntry:
    """The labels of one image.

    file: to be read. names: what its image may be called, with folders where they are known; the file's own name where
    it is of one image. affixes: text around that name, to be taken away. read: for an image of a shape.
    """

    file: Path
    names: tuple[PurePath, ...]
    read: Callable[[ImageShape], FoundLabels]
    affixes: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        return str(self.file) if self.file in self.names else f"{self.names[0]} in {self.file}"


def image_labels(
    instances: Instances,
    types: Sequence[str] | None = None,
    numbers: Sequence[object] | None = None,
    ignored: Bools | None = None,
    notes: Sequence[str] = (),
) -> FoundLabels:
    """Make the labels of cells, with their types (default UNTYPED) and numbers (default from 1).

    Cells without pixels are left out and noted; those of the type `unlabelled`, or QuPath's `Ignore*` and `Region*`,
    are regions.
    """
    types = [UNTYPED] * len(instances) if types is None else types
    numbers = range(1, len(instances) + 1) if numbers is None else numbers
    region = np.array([name in _REGIONS for name in types], bool)
    if region.any():
        pixels = instances.select(region).foreground()
        ignored = pixels if ignored is None else ignored | pixels
    own = np.array([name == _LABELLED for name in types], bool)
    labelled = instances.select(own).foreground() if own.any() else None
    kept = (instances.areas > 0) & ~region & ~own
    notes = list(notes)
    if (empty := instances.areas == 0).any():
        if empty.all():
            raise InputError("none of its cells has a pixel in the image; they are of another image, or another scale")
        notes.append("images with cells that have no pixel in them, which are left out")
    chosen = np.flatnonzero(kept).tolist()
    return FoundLabels(
        (instances if kept.all() else instances.select(kept)).to_runs(),
        tuple(types[k] for k in chosen),
        tuple(str(numbers[k]) for k in chosen),
        ignored,
        labelled,
        notes=tuple(notes),
    )

"""LIVECell as a source of images and cells: its folder, its three published splits and their overlap.

LIVECell (Edlund et al., Nature Methods 18, 2021) is 704x520 phase-contrast TIFFs of 8 cell lines with COCO annotations.
Its layout is read as published:

    images/livecell_train_val_images/, images/livecell_test_images/      <image>.tif, or <line>/<image>.tif
    livecell_coco_{train,val,test}.json                                  or annotations/LIVECell/livecell_coco_*.json

An image is named <line>_Phase_<well>_<location>_<time>_<crop>: crops 1 to 4 of one photograph are one field of view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from sartorius.data.images import read_grey
from sartorius.data.livecell.coco import CocoImage, read_coco
from sartorius.data.livecell.coco_cells import cell_runs, check_cells
from sartorius.errors import InputError, collected, raise_all
from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage
from sartorius.structures.image_ids import check_image_id
from sartorius.structures.instances import Instances

CELL_LINES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SkBr3", "SKOV3")
FOLDERS = {
    "train": "livecell_train_val_images",
    "val": "livecell_train_val_images",
    "test": "livecell_test_images",
}
SPLITS = tuple(FOLDERS)
REPEATED = ("error", "most_cells")
_FIELD = re.compile(r"^(.+_\d+d\d+h\d+m)_\d+$")
_HOW_TO_GET = (
    "get the data as https://github.com/sartorius-research/LIVECell says (images.zip, livecell_coco_*.json), give "
    "another folder with data.root=..., or write a synthetic one with `python -m sartorius.prepare "
    "source=synthetic_livecell`"
)


def field_of(image_id: str) -> str:
    """Return the field of view of an image: its name without the last `_N`; another kind of name is its own field.

    `A172_Phase_C7_1_00d00h00m_2` gives `A172_Phase_C7_1_00d00h00m`: the same place of a well at the same time.
    """
    match = _FIELD.match(image_id)
    return match[1] if match else image_id


@dataclass(frozen=True)
class LiveCellImage:
    """One image of a split; `id` is the file's name without suffix, `len()` its number of cells."""

    id: str
    line: str
    coco: CocoImage

    def __len__(self) -> int:
        return len(self.coco)


class LiveCellSplit:
    """The images of one split, as an `ImageSource`; images are decoded on demand.

    file: the COCO file. folder: holds the TIFFs, at any depth. cell_type_names: lines that class indices count in.
    repeated: treatment of a file name under several image ids. `error` refuses it; `most_cells` takes the one with
    the most annotations (the first of equals) and lists the name in `repeated_names`.

    Raises InputError as `read_coco` does, and for images of an unknown line or a bad id.
    """

    def __init__(
        self,
        file: str | Path,
        folder: str | Path,
        cell_type_names: Sequence[str] = CELL_LINES,
        repeated: str = "error",
    ) -> None:
        checks.one_of("data", REPEATED, repeated=repeated)
        self.file, self.folder, self.cell_type_names = Path(file), Path(folder), tuple(cell_type_names)
        images: dict[str, LiveCellImage] = {}
        problems: list[str] = []
        self.repeated_names: list[str] = []
        for coco in read_coco(self.file):
            with collected(problems):
                check_image_id(image_id := PurePosixPath(coco.file_name).stem, f"{self.file}: image {coco.id}")
                image = LiveCellImage(image_id, self._line(coco), coco)
                if (other := images.get(image.id)) is not None:
                    self._note_repeated(other, image, repeated)
                if other is None or len(image) > len(other):
                    images[image.id] = image
        raise_all(problems or ([] if images else [f"{self.file}: lists no images"]))
        self.images = {image_id: images[image_id] for image_id in sorted(images)}

    def _line(self, coco: CocoImage) -> str:
        known = {name.casefold(): name for name in self.cell_type_names}
        for name in (coco.file_name, coco.original):
            if (line := known.get(PurePosixPath(name).name.split("_")[0].casefold())) is not None:
                return line
        raise InputError(
            f"{self.file}: image {coco.file_name} is of no known cell line; its name starts with one of "
            f"{', '.join(self.cell_type_names)} and `_`"
        )

    def _note_repeated(self, first: LiveCellImage, other: LiveCellImage, repeated: str) -> None:
        if repeated == "error":
            raise InputError(
                f"{self.file}: image {other.coco.file_name} is listed twice, with ids {first.coco.id} ({len(first)} "
                f"cells) and {other.coco.id} ({len(other)}); remove one, or take the one with more cells: "
                "data.repeated=most_cells"
            )
        self.repeated_names.append(first.id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, sorted."""
        return tuple(self.images)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """File name -> path, of all files below the folder."""
        paths: dict[str, Path] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in (".tif", ".tiff", ".png") and not path.is_dir():
                paths.setdefault(path.name, path)
        return paths

    def record(self, image_id: str) -> LiveCellImage:
        """Return the entry of an image; raises InputError for an id that the file does not list."""
        if image_id not in self.images:
            raise InputError(f"{self.file}: no image '{image_id}'; ids look like {', '.join(self.ids[:3])}")
        return self.images[image_id]

    def path(self, image_id: str) -> Path:
        """Return the path of an image; raises InputError where it is missing."""
        name = PurePosixPath(self.record(image_id).coco.file_name).name
        if name not in self._paths:
            raise InputError(f"{self.folder}: no {name} in it, which {self.file} lists; unpack images.zip there again")
        return self._paths[name]

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]; RGB is taken where its channels are equal."""
        return read_grey(self.path(image_id), accept_rgb=True)

    def instances(self, image_id: str) -> Instances:
        """Rasterise the image's cells in the order of the file, without those that cover no pixel."""
        record = self.record(image_id)
        cells = Instances.from_runs(
            cell_runs(self.file, record.coco), np.full(len(record), self.cell_type_names.index(record.line))
        )
        return cells if (cells.areas > 0).all() else cells.select(cells.areas > 0)

    def ignored(self, image_id: str) -> None:
        """Return None: all pixels are labelled."""

    def cell_type(self, image_id: str) -> str:
        """Return the image's cell line."""
        return self.record(image_id).line

    def check(self, images: Iterable[str] | None = None) -> None:
        """Decode these images (default: all) and check their annotations, without rasterising any.

        Raises InputError for those whose TIFF is missing, damaged or of another size, and as `check_cells` does.
        """
        problems: list[str] = []
        for image_id in self.ids if images is None else images:
            with collected(problems):
                coco, path = self.record(image_id).coco, self.path(image_id)
                height, width = self.image(image_id).shape
                if (height, width) != (coco.height, coco.width):
                    raise InputError(
                        f"{path}: {width}x{height} pixels, but {self.file} says {coco.width}x{coco.height}; put the "
                        "original image back or correct the file"
                    )
                check_cells(self.file, coco)
        raise_all(problems)


class LiveCell:
    """A LIVECell folder; a split is read on first use (a million cells: 12 s, 1.3 GB, 2.1 at the peak).

    annotation_files: split -> COCO file, where it does not lie in one of the published places.
    cell_type_names, repeated: see `LiveCellSplit`.

    Raises InputError where there is no folder of images.
    """

    def __init__(
        self,
        root: str | Path,
        annotation_files: Mapping[str, str | Path] | None = None,
        cell_type_names: Sequence[str] = CELL_LINES,
        repeated: str = "error",
    ) -> None:
        self.root, self.cell_type_names, self.repeated = Path(str(root)), tuple(cell_type_names), repeated
        self.annotation_files = dict(annotation_files or {})
        if unknown := sorted(set(self.annotation_files) - set(SPLITS)):
            raise InputError(f"data.annotation_files names split {unknown[0]}; expected some of {', '.join(SPLITS)}")
        if not self.root.is_dir():
            raise InputError(f"{self.root}: not found; {_HOW_TO_GET}")
        self._read: dict[str, LiveCellSplit] = {}

    def file(self, split: str) -> Path | None:
        """Return the annotation file of a split, None where there is none."""
        if split in self.annotation_files:
            return Path(self.annotation_files[split])
        name = f"livecell_coco_{split}.json"
        places = (self.root / name, self.root / "annotations" / name, self.root / "annotations" / "LIVECell" / name)
        return next((path for path in places if path.is_file()), None)

    def split(self, name: str) -> LiveCellSplit:
        """Read train, val or test; raises InputError for a missing file or folder, and as `LiveCellSplit` does."""
        if name not in self._read:
            places = (self.root / "images" / FOLDERS[name], self.root / FOLDERS[name])
            folder = next((path for path in places if path.is_dir()), None)
            if (file := self.file(name)) is None:
                raise InputError(f"{self.root}: no livecell_coco_{name}.json in it; {_HOW_TO_GET}")
            if folder is None:
                raise InputError(f"{places[0]}: no such folder of images; {_HOW_TO_GET}")
            self._read[name] = LiveCellSplit(file, folder, self.cell_type_names, self.repeated)
        return self._read[name]

"""LIVECell as a source of pictures and cells: its folder, its three published splits, what they share.

LIVECell (Edlund et al., Nature Methods 18, 2021) is 704x520 phase-contrast TIFFs of 8 cell lines with COCO annotations.
Its layout is read as published:

    images/livecell_train_val_images/, images/livecell_test_images/      <picture>.tif, or <line>/<picture>.tif
    livecell_coco_{train,val,test}.json                                  or annotations/LIVECell/livecell_coco_*.json

A picture is named <line>_Phase_<well>_<location>_<time>_<crop>: crops 1 to 4 of one photograph are one field of view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from sartorius.data.annotation_rows import well_of
from sartorius.data.coco import CocoPicture, read_coco
from sartorius.data.coco_cells import cell_runs, check_cells
from sartorius.data.pictures import GreyImage, read_grey
from sartorius.errors import InputError
from sartorius.instances import Instances

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


def field_of(picture: str) -> str:
    """The field of view of a picture: its name without the last `_N`; another kind of name is its own field.

    `A172_Phase_C7_1_00d00h00m_2` gives `A172_Phase_C7_1_00d00h00m`: the same place of a well at the same time.
    """
    found = _FIELD.match(picture)
    return found[1] if found else picture


@dataclass(frozen=True)
class LiveCellPicture:
    """One picture of a split; `id` is the file's name without suffix, `len()` its number of cells."""

    id: str
    line: str
    coco: CocoPicture

    def __len__(self) -> int:
        return len(self.coco)


class LiveCellSplit:
    """The pictures of one split, as a source of a dataset; nothing is decoded before it is asked for.

    file: the COCO file. folder: holds the TIFFs, at any depth. cell_type_names: lines that class indices count in.
    repeated: what happens to a file name under several picture ids. `error` refuses it; `most_cells` takes the one with
    the most annotations (the first of equals) and lists the name in `repeated_names`.

    Raises InputError as `read_coco` does, and for a picture of an unknown line.
    """

    def __init__(
        self,
        file: str | Path,
        folder: str | Path,
        cell_type_names: Sequence[str] = CELL_LINES,
        repeated: str = "error",
    ) -> None:
        if repeated not in REPEATED:
            raise InputError(f"data.repeated={repeated}: expected one of {', '.join(REPEATED)}")
        self.file, self.folder, self.cell_type_names = Path(file), Path(folder), tuple(cell_type_names)
        self.repeated_names: list[str] = []
        found: dict[str, LiveCellPicture] = {}
        for coco in read_coco(self.file):
            picture = LiveCellPicture(PurePosixPath(coco.file_name).stem, self._line(coco), coco)
            if (other := found.get(picture.id)) is not None:
                self._note_repeated(other, picture, repeated)
            if other is None or len(picture) > len(other):
                found[picture.id] = picture
        if not found:
            raise InputError(f"{self.file}: lists no pictures")
        self.pictures = {picture: found[picture] for picture in sorted(found)}

    def _line(self, coco: CocoPicture) -> str:
        known = {name.casefold(): name for name in self.cell_type_names}
        for name in (coco.file_name, coco.original):
            if (line := known.get(PurePosixPath(name).name.split("_")[0].casefold())) is not None:
                return line
        raise InputError(
            f"{self.file}: picture {coco.file_name} is of no known cell line; its name starts with one of "
            f"{', '.join(self.cell_type_names)} and `_`"
        )

    def _note_repeated(self, one: LiveCellPicture, other: LiveCellPicture, repeated: str) -> None:
        if repeated == "error":
            raise InputError(
                f"{self.file}: picture {other.coco.file_name} is listed twice, with ids {one.coco.id} ({len(one)} "
                f"cells) and {other.coco.id} ({len(other)}); remove one, or take the one with more cells: "
                "data.repeated=most_cells"
            )
        self.repeated_names.append(one.id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the pictures, sorted."""
        return tuple(self.pictures)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """File name -> path, of all files below the folder."""
        paths: dict[str, Path] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in (".tif", ".tiff", ".png"):
                paths.setdefault(path.name, path)
        return paths

    def record(self, picture: str) -> LiveCellPicture:
        """What the file says about a picture; raises InputError for an id that it does not list."""
        if picture not in self.pictures:
            raise InputError(f"{self.file}: no picture '{picture}'; ids look like {', '.join(self.ids[:3])}")
        return self.pictures[picture]

    def path(self, picture: str) -> Path:
        """Where a picture lies; raises InputError where it does not."""
        name = PurePosixPath(self.record(picture).coco.file_name).name
        if name not in self._paths:
            raise InputError(f"{self.folder}: no {name} in it, which {self.file} lists; unpack images.zip there again")
        return self._paths[name]

    def image(self, picture: str) -> GreyImage:
        """The pixels of a picture, uint8 [H, W]; RGB is taken where its channels are equal."""
        return read_grey(self.path(picture), accept_rgb=True)

    def instances(self, picture: str) -> Instances:
        """The picture's cells in the order of the file, without those that cover no pixel."""
        record = self.record(picture)
        cells = Instances.from_runs(
            cell_runs(self.file, record.coco), np.full(len(record), self.cell_type_names.index(record.line))
        )
        return cells if (cells.areas > 0).all() else cells.select(cells.areas > 0)

    def cell_type(self, picture: str) -> str:
        """The picture's cell line."""
        return self.record(picture).line

    def check(self, pictures: Iterable[str] | None = None) -> None:
        """Decode these pictures (default: all) and look through their annotations, without rasterising any.

        Raises InputError for the first whose TIFF is missing, damaged or of another size than the annotations say, and
        as `check_cells` does.
        """
        for picture in self.ids if pictures is None else pictures:
            coco, path = self.record(picture).coco, self.path(picture)
            height, width = self.image(picture).shape
            if (height, width) != (coco.height, coco.width):
                raise InputError(
                    f"{path}: {width}x{height} pixels, but {self.file} says {coco.width}x{coco.height}; put the "
                    "original picture back or correct the file"
                )
            check_cells(self.file, coco)


class LiveCell:
    """A LIVECell folder; a split is read when it is first asked for (a million cells: 12 s, 1.3 GB, 2.1 at the peak).

    annotation_files: split -> COCO file, where it does not lie in one of the published places.
    cell_type_names, repeated: see `LiveCellSplit`.

    Raises InputError where there is no folder of pictures.
    """

    def __init__(
        self,
        root: str | Path,
        annotation_files: Mapping[str, str | Path] | None = None,
        cell_type_names: Sequence[str] = CELL_LINES,
        repeated: str = "error",
    ) -> None:
        self.root, self.cell_type_names, self.repeated = Path(root), tuple(cell_type_names), repeated
        self.annotation_files = dict(annotation_files or {})
        if unknown := sorted(set(self.annotation_files) - set(SPLITS)):
            raise InputError(f"data.annotation_files names split {unknown[0]}; expected some of {', '.join(SPLITS)}")
        if not self.root.is_dir():
            raise InputError(f"{self.root}: not found; {_HOW_TO_GET}")
        self._read: dict[str, LiveCellSplit] = {}

    def file(self, split: str) -> Path | None:
        """The annotation file of a split, None where there is none."""
        if split in self.annotation_files:
            return Path(self.annotation_files[split])
        name = f"livecell_coco_{split}.json"
        places = (self.root / name, self.root / "annotations" / name, self.root / "annotations" / "LIVECell" / name)
        return next((path for path in places if path.is_file()), None)

    def split(self, name: str) -> LiveCellSplit:
        """Train, val or test; raises InputError where its file or folder is missing, and as `LiveCellSplit` does."""
        if name not in self._read:
            places = (self.root / "images" / FOLDERS[name], self.root / FOLDERS[name])
            folder = next((path for path in places if path.is_dir()), None)
            if (file := self.file(name)) is None:
                raise InputError(f"{self.root}: no livecell_coco_{name}.json in it; {_HOW_TO_GET}")
            if folder is None:
                raise InputError(f"{places[0]}: no such folder of pictures; {_HOW_TO_GET}")
            self._read[name] = LiveCellSplit(file, folder, self.cell_type_names, self.repeated)
        return self._read[name]


@dataclass(frozen=True)
class Shared:
    """What two splits share: pictures of one name, fields of view, wells; sorted names."""

    first: str
    second: str
    pictures: tuple[str, ...]
    fields: tuple[str, ...]
    wells: tuple[str, ...]


def shared_pictures(splits: Mapping[str, Sequence[str]]) -> list[Shared]:
    """What every pair of `splits` (name -> picture ids) shares, in their order."""
    names = list(splits)
    found = []
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            both = [
                tuple(sorted({of(p) for p in splits[first]} & {of(p) for p in splits[second]}))
                for of in (str, field_of, well_of)
            ]
            found.append(Shared(first, second, *both))
    return found

"""Cell types of images, from their paths, a table or the label files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sartorius.data.annotation_rows import read_text_table
from sartorius.data.files.named_image import NamedImage, searching
from sartorius.errors import InputError
from sartorius.labelling.sources.entries import FoundLabels
from sartorius.labelling.sources.readers import stem_of

OF_FOLDER = "folder"
_COLUMNS = ("file", "cell_type", "label")
_WHOLE = r"\.0+$"  # behind numbers that a spreadsheet took for decimal ones
Types = tuple[tuple[str, ...], str]  # of each cell, and of an image without cells


def names_of(image: NamedImage) -> tuple[str, str, str, str]:
    """Return what a table may call an image: its id, path, file name, and that without suffix."""
    return image.image_id, image.inner, image.path.name, stem_of(image.path)


class ImageNames:
    """The images of one import, by the names that tables have for them."""

    def __init__(self, images: Iterable[NamedImage]) -> None:
        self._kinds: tuple[dict[str, list[NamedImage]], ...] = ({}, {}, {})  # id or path, else file name, else stem
        for image in images:
            for kind, name in zip((0, 0, 1, 2), names_of(image), strict=True):
                if image not in (found := self._kinds[kind].setdefault(name, [])):
                    found.append(image)

    def find(self, name: str) -> list[NamedImage]:
        """Return the images of a name: of that id or path, else of that file name; several where it is ambiguous."""
        return next((kind[name] for kind in self._kinds if name in kind), [])


def types_by(cell_type: str | None, images: Iterable[NamedImage]) -> Callable[[NamedImage, FoundLabels], Types]:
    """Return the function that names the type of each cell of an image.

    cell_type: None takes the types of the label file; `folder` the name of the image's folder; a pattern with
    `(?P<type>...)` is searched in its path; FILE.csv has columns file and cell_type, and for types of single cells
    `label`; any other text is the type of all. images: all of them. Raises InputError where the table has a name of
    several files and, also later, where one of these names no type.
    """
    if cell_type is None:
        return lambda image, labels: (labels.types, labels.cell_type)
    if cell_type == OF_FOLDER:
        return lambda image, labels: _all(image.path.absolute().parent.name, labels)
    if cell_type.lower().endswith(".csv"):
        return _Table(Path(cell_type), images)
    if "(?P<" in cell_type:
        search = searching("cell_type", "type", cell_type)
        return lambda image, labels: _all(search(image), labels)
    return lambda image, labels: _all(cell_type, labels)


def _all(name: str, labels: FoundLabels) -> Types:
    return (name,) * len(labels.types), name


class _Table:
    """The types of a csv with the columns file and cell_type, of images or, with `label`, of single cells."""

    def __init__(self, path: Path, images: Iterable[NamedImage]) -> None:
        table = read_text_table(path, ("file", "cell_type"))
        table = table.assign(**{name: table[name].str.strip() for name in _COLUMNS if name in table})
        self.path, self.by_cell, self.images = path, "label" in table, ImageNames(images)
        self.types: dict[str, dict[str, str]] = {}
        labels = table["label"].str.replace(_WHOLE, "", regex=True) if self.by_cell else table["file"].map(lambda _: "")
        for name, label, kind, row in zip(table["file"], labels, table["cell_type"], table["row"], strict=True):
            of_file = self.types.setdefault(str(name), {})
            if not of_file:
                self._check(str(name), row)
            if not kind or of_file.setdefault(str(label), str(kind)) != kind:
                raise InputError(f"{path} row {row}: {name} has no cell_type, or another one than in a row before")

    def _check(self, name: str, row: int) -> None:
        """Raise InputError for a name of several files; the planes of one may share a row."""
        if len(files := {image.path: image.inner for image in self.images.find(name)}) > 1:
            raise InputError(
                f"{self.path} row {row}: '{name}': several images have this name ({', '.join([*files.values()][:3])}); "
                "give their paths within the folder of images"
            )

    def __call__(self, image: NamedImage, labels: FoundLabels) -> Types:
        own = [name for name in names_of(image) if name in self.types and image in self.images.find(name)]
        if not own:
            raise InputError(f"{self.path}: no row of {image.inner} in column file")
        found = self.types[own[0]]
        if not self.by_cell:
            return _all(found[""], labels)
        if missing := [number for number in labels.numbers if number not in found]:
            raise InputError(f"{self.path}: no row of label {missing[0]} of {image.inner}")
        return tuple(found[number] for number in labels.numbers), labels.cell_type

"""Cell types and groups of images, from their paths, a table or the label files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sartorius.data.annotation_rows import read_text_table
from sartorius.errors import InputError
from sartorius.labelling.sources.entries import FoundLabels
from sartorius.labelling.sources.readers import stem_of

OF_FOLDER = "folder"
_COLUMNS = ("file", "cell_type", "label")
_WHOLE = r"\.0+$"  # behind numbers that a spreadsheet took for decimal ones
Types = tuple[tuple[str, ...], str]  # of each cell, and of an image without cells


@dataclass(frozen=True)
class NamedImage:
    """An image by its id, its path and that within the folder of all, with slashes."""

    image_id: str
    path: Path
    inner: str

    @classmethod
    def within(cls, base: Path, image_id: str, path: Path) -> NamedImage:
        """Name an image that lies in the folder `base` of all."""
        return cls(image_id, path, path.absolute().relative_to(base.absolute()).as_posix())

    @property
    def names(self) -> tuple[str, ...]:
        """What a table may call it."""
        return self.image_id, self.inner, self.path.name, stem_of(self.path)


def types_by(cell_type: str | None) -> Callable[[NamedImage, FoundLabels], Types]:
    """Return the function that names the type of each cell of an image.

    cell_type: None takes the types of the label file; `folder` the name of the image's folder; a pattern with
    `(?P<type>...)` is searched in its path; FILE.csv has columns file and cell_type, and for types of single cells
    `label`; any other text is the type of all. Raises InputError, also later, where one of them names no type.
    """
    if cell_type is None:
        return lambda image, labels: (labels.types, labels.cell_type)
    if cell_type == OF_FOLDER:
        return lambda image, labels: _all(image.path.absolute().parent.name, labels)
    if cell_type.lower().endswith(".csv"):
        return _Table(Path(cell_type))
    if "(?P<" in cell_type:
        search = searching("cell_type", "type", cell_type)
        return lambda image, labels: _all(search(image), labels)
    return lambda image, labels: _all(cell_type, labels)


def _all(name: str, labels: FoundLabels) -> Types:
    return (name,) * len(labels.types), name


def searching(option: str, group: str, pattern: str) -> Callable[[NamedImage], str]:
    """Return the function that finds the named group of a pattern in the path of an image.

    Raises InputError for a pattern that is none or has no such group; the function does where it finds none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{option}={pattern}: not a regular expression ({error})") from error
    if group not in compiled.groupindex:
        raise InputError(f"{option}={pattern}: has no group (?P<{group}>...), whose text is taken")

    def search(image: NamedImage) -> str:
        found = compiled.search(image.inner)
        if found is None or not found[group]:
            raise InputError(f"{image.path}: {option}={pattern} finds nothing in '{image.inner}'")
        return str(found[group])

    return search


class _Table:
    """The types of a csv with the columns file and cell_type, of images or, with `label`, of single cells."""

    def __init__(self, path: Path) -> None:
        table = read_text_table(path, ("file", "cell_type"))
        table = table.assign(**{name: table[name].str.strip() for name in _COLUMNS if name in table})
        self.path, self.by_cell = path, "label" in table
        self.types: dict[str, dict[str, str]] = {}
        labels = table["label"].str.replace(_WHOLE, "", regex=True) if self.by_cell else table["file"].map(lambda _: "")
        for name, label, kind, row in zip(table["file"], labels, table["cell_type"], table["row"], strict=True):
            of_file = self.types.setdefault(str(name), {})
            if not kind or of_file.setdefault(str(label), str(kind)) != kind:
                raise InputError(f"{path} row {row}: {name} has no cell_type, or another one than in a row before")

    def __call__(self, image: NamedImage, labels: FoundLabels) -> Types:
        found: Mapping[str, str] | None = next((self.types[name] for name in image.names if name in self.types), None)
        if found is None:
            raise InputError(f"{self.path}: no row of {image.inner} in column file")
        if not self.by_cell:
            return _all(found[""], labels)
        if missing := [number for number in labels.numbers if number not in found]:
            raise InputError(f"{self.path}: no row of label {missing[0]} of {image.inner}")
        return tuple(found[number] for number in labels.numbers), labels.cell_type

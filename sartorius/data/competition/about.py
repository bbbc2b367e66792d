"""dataset.json of a folder that `sartorius.prepare` or `sartorius.correct` wrote: cell types, reading, groups.

The competition's own folder has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sartorius.data.annotation_rows import read_table
from sartorius.data.files.reading import Reading, common_size
from sartorius.errors import InputError
from sartorius.files import write_json
from sartorius.structures.cell_types import CELL_TYPES, UNLABELLED
from sartorius.structures.reading import read_json

NAME = "dataset.json"
_VERSION = 1


@dataclass(frozen=True)
class About:
    """What a folder of labelled images says about itself.

    cell_types: names that its rows may have, in the order of class indices.  pixel_size: micrometres of a pixel; None
    where it is not known.  reading: how the original files were read, as `files.reading.Reading.plain` tells; {}
    where it is not known.  group: the pattern that tells what of an image must not lie in two folds, see
    `groups.groups_of`; None for none.

    Raises InputError for no cell types, repeated ones, and the reserved name `unlabelled`.
    """

    cell_types: tuple[str, ...]
    pixel_size: float | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None

    def __post_init__(self) -> None:
        names = self.cell_types
        if not names or len({*names}) < len(names) or UNLABELLED in names or not all(names):
            raise InputError(f"cell types {', '.join(names) or 'none'}: expected different names, none '{UNLABELLED}'")

    def write(self, root: Path) -> None:
        """Write dataset.json into a folder, atomically."""
        write_json(root / NAME, {"version": _VERSION, **asdict(self)})

    def check_same(self, root: Path, reading: Reading, sizes: Collection[float | None]) -> None:
        """Raise InputError where images that are read so, of these pixel sizes, do not go with those of the folder."""
        path, size = root / NAME, self.pixel_size
        was, now = Reading.parse(self.reading, str(path)).plain(), reading.plain()
        other = [(key, was[key], now[key], "read or predict these so too") for key in now if now[key] != was[key]]
        if (common_size(sizes) if size is None else common_size([size, *sizes])) != size:
            remedy = "leave pixel_size= out" if size is None else f"give pixel_size={size} where the files are wrong"
            other.insert(0, ("pixel_size", size, ", ".join(sorted({str(one) for one in sizes})), remedy))
        for key, before, these, remedy in other:
            raise InputError(
                f"{path}: its images have {key} {before}, these {these}; images of one folder are read in one way: "
                f"{remedy}, or give another output="
            )


def read_about(root: Path) -> About | None:
    """Read dataset.json of a folder; None where there is none. Raises InputError for one that is malformed."""
    path = root / NAME
    if not path.is_file():
        return None
    remedy = "write the folder again with `python -m sartorius.prepare source=folder`"
    content = read_json(path, remedy)
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise InputError(f"{path}: expected version {_VERSION} of this file; {remedy}")
    types, size, reading, group = (content.get(key) for key in ("cell_types", "pixel_size", "reading", "group"))
    if not (
        isinstance(types, list)
        and all(isinstance(name, str) for name in types)
        and isinstance(size, float | int | None)
        and isinstance(reading, dict)
        and isinstance(group, str | None)
    ):
        raise InputError(f"{path}: expected cell_types, pixel_size, reading and group; {remedy}")
    Reading.parse(reading, str(path))
    return About(tuple(types), size, reading, group)


def cell_types_of(root: Path) -> tuple[str, ...]:
    """Return the cell types of a folder: those of its dataset.json, else those of the rows of its train.csv.

    The competition's stand in its own order, others in that of the alphabet. () where there is neither. Raises
    InputError as `read_about` and `read_table` do.
    """
    if (about := read_about(root)) is not None:
        return about.cell_types
    csv = root / "train.csv"
    found = {*read_table(csv)["cell_type"]} - {UNLABELLED} if csv.is_file() else set()
    return tuple(name for name in CELL_TYPES if name in found) + tuple(sorted(found - {*CELL_TYPES}))

"""The files of many images in one folder: one a format and image, and tables and COCO json of them all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import atomic_path, write_json, write_text
from sartorius.formats import coco, geojson, labels, outlines, overlays, rois, tables
from sartorius.formats.cells import Cells
from sartorius.formats.large_cells import LargeCells
from sartorius.structures.reading import read_json

log = logging.getLogger(__name__)
_EACH: Mapping[str, tuple[str, Callable[[Cells, Path], None]]] = {  # format: file of an image, and its writer
    "labels": ("labels/{}.tif", labels.write),
    "outlines": ("outlines/{}.txt", outlines.write),
    "rois": ("rois/{}.zip", rois.write),
    "geojson": ("geojson/{}.geojson", geojson.write),
    "overlay": ("overlays/{}.png", overlays.write),
}
FORMATS = (*_EACH, "coco", "table")
LARGE = ("labels", "table")  # those of images that are larger than memory
_REMEDY = "delete it and give the command again"


class CellsFolder:
    """Writer of the cells of many images: `labels/<image>.tif`, `rois/<image>.zip`, ..., `coco.json` and `tables/`.

    An image's part of the files of all images waits as a hidden file until `finish`, so that several processes may
    write, and a stopped command may go on.

    folder: that gets the files. formats: of FORMATS. scale: enlargement of overlays. Raises InputError for another
    format.
    """

    def __init__(self, folder: str | Path, formats: Sequence[str], scale: int = overlays.SCALE) -> None:
        self.folder, self.formats, self.scale = Path(folder), tuple(formats), scale
        if unknown := [name for name in formats if name not in FORMATS]:
            raise InputError(f"write: expected formats of {', '.join(FORMATS)}, got {', '.join(unknown)}")
        self._parts = self.folder / ".cells"

    def add(self, cells: Cells | LargeCells) -> None:
        """Write the files of an image; of a large one the label image and its part of the tables alone."""
        if isinstance(cells, LargeCells):
            return self._add_large(cells)
        for path, write in self._files(cells.image_id):
            if write == overlays.write:
                overlays.write(cells, path, self.scale)
            else:
                write(cells, path)
        if "coco" in self.formats or "table" in self.formats:
            part: dict[str, Any] = {}
            if "coco" in self.formats:
                part["coco"] = coco.part_of(cells)
            if "table" in self.formats:
                part |= {"image": tables.image_row(cells), "cells": _csv(cells)}
            write_json(self._part(cells.image_id), part)

    def _add_large(self, cells: LargeCells) -> None:
        if others := [name for name in self.formats if name not in LARGE]:
            log.warning(
                "image %s of %d x %d px (height x width): too large for %s; %s are written", cells.image_id,
                cells.runs.height, cells.runs.width, ", ".join(others), " and ".join(LARGE),
            )  # fmt: skip
        if "labels" in self.formats:
            labels.write_large(cells, self.folder / _EACH["labels"][0].format(cells.image_id))
        rows = {"image": cells.image_row(), "cells": _csv(cells)} if "table" in self.formats else {}
        write_json(self._part(cells.image_id), {"coco": None, **rows})
        write_text(self._large(cells.image_id), "")

    def check_others(self, image_ids: Sequence[str]) -> None:
        """Raise InputError where the folder holds files of images that are not among these: they would be mixed."""
        for name in self.formats:
            if name in _EACH and self.folder.is_dir():
                place = self.folder / _EACH[name][0]
                files = {path.stem for path in place.parent.glob(f"*{place.suffix}") if path.name[0] != "."}
                if others := sorted(files - set(image_ids)):
                    raise InputError(
                        f"{place.parent}: holds files of {len(others)} other images ({others[0]}, ...); delete them, "
                        "or give another output="
                    )

    def missing(self, image_ids: Sequence[str]) -> list[str]:
        """List the images of which a file, or the part in the files of all, is not there."""
        joined = "coco" in self.formats or "table" in self.formats
        return [
            image_id
            for image_id in image_ids
            if (joined and not self._part(image_id).is_file())
            or not all(path.is_file() for path, _ in self._files(image_id))
        ]

    def finish(self, image_ids: Sequence[str], bad: Mapping[str, str] | None = None) -> None:
        """Write the files of all these images, in the order of their ids, and delete the parts.

        bad: images that could not be predicted, with their problems: rows of images.csv. Every other image was added.
        """
        ids = sorted(image_ids)
        if "coco" in self.formats:
            parts = lambda: (part for part in self._read("coco", ids) if part is not None)  # noqa: E731
            coco.write_parts(self.folder / "coco.json", parts)
        if "table" in self.formats:
            bad_rows = [tables.bad_row(image_id, problem) for image_id, problem in (bad or {}).items()]
            rows = sorted([*self._read("image", ids), *bad_rows], key=lambda row: row["image"])
            tables.write_table(tables.images_table(rows), self.folder / "tables" / "images.csv")
            path = self.folder / "tables" / "cells.csv"
            with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
                file.write(",".join(tables.CELL_COLUMNS) + "\n")
                file.writelines(self._read("cells", ids))
            if tables.parquet_installed():
                tables.write_table(tables.read_table(path), path.with_suffix(".parquet"))
        shutil.rmtree(self._parts, ignore_errors=True)

    def _files(self, image_id: str) -> list[tuple[Path, Callable[[Cells, Path], None]]]:
        names = LARGE if self._large(image_id).is_file() else _EACH
        return [
            (self.folder / _EACH[n][0].format(image_id), _EACH[n][1]) for n in self.formats if n in _EACH and n in names
        ]

    def _part(self, image_id: str) -> Path:
        return self._parts / f"{image_id}.json"

    def _large(self, image_id: str) -> Path:
        """The mark of an image that is written as a large one."""
        return self._parts / f"{image_id}.large"

    def _read(self, what: str, image_ids: Sequence[str]) -> Iterator[Any]:
        for image_id in image_ids:
            path = self._part(image_id)
            try:
                yield read_json(path, _REMEDY)[what]
            except (KeyError, TypeError) as error:
                raise InputError(f"{path}: damaged ({error!r}); {_REMEDY}") from error


def _csv(cells: Cells | LargeCells) -> str:
    """Format the rows of cells.csv of an image."""
    text: str = cells.table().round(tables.DECIMALS).to_csv(index=False, header=False)
    return text

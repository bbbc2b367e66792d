"""What a person changed in an image and has not saved yet: a file to which each edit is appended as it is made.

Its first line holds the size of the image, the names of cell types and all cells at the beginning, each further line
an edit, an undo or a redo. A kill loses at most the edit that is being made; reading it again makes all edits anew, so
that they can be undone still.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import append_line, drop_cut_line, write_text
from sartorius.labelling.correction.edits import REGION, Change, Correction
from sartorius.labelling.correction.shapes import EditedCell
from sartorius.structures import rle

_VERSION = 1


class Draft:
    """The file of one image. types: names of cell types, in the order of class indices."""

    def __init__(self, path: Path, types: Sequence[str]) -> None:
        self.path, self.types = path, list(types)

    def exists(self) -> bool:
        """Whether edits were kept."""
        return self.path.is_file()

    def begin(self, height: int, width: int, cells: Sequence[EditedCell], region: EditedCell | None) -> Correction:
        """Start with these cells; nothing is written before the first edit."""
        return self._keep(Correction(height, width, cells, region))

    def resume(self) -> Correction:
        """Make all edits of the file again; raises InputError where it is damaged.

        A last line that was cut off is left out.
        """
        try:
            first, *lines = [json.loads(line) for line in drop_cut_line(self.path).splitlines()]
            if first["version"] != _VERSION or not set(first["types"]) <= set(self.types):
                raise InputError(f"of version {first['version']} and types {', '.join(map(str, first['types']))}")
            number_of = {k: self.types.index(name) for k, name in enumerate(first["types"])}
            height, width = (int(value) for value in first["size"])
            cells = _cells(first["cells"], height, width, number_of)
            region = cells.pop(REGION, None)
            correction = Correction(height, width, {number: cells[number] for number in sorted(cells)}, region)
            for line in lines:
                _repeat(correction, line, height, width, number_of)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.path}: not the edits of an image ({error}); move the file away to begin this image again"
            ) from error
        return self._keep(correction)

    def delete(self) -> None:
        """Forget the edits: they are saved, or not wanted."""
        self.path.unlink(missing_ok=True)

    def _keep(self, correction: Correction) -> Correction:
        """Record its edits from now on; the first one begins the file with the cells of that time."""

        def record(kind: str, change: Change) -> None:
            if not self.exists():
                size = [correction.height, correction.width]
                first = {"version": _VERSION, "size": size, "types": self.types, "cells": _entries(correction)}
                write_text(self.path, json.dumps(first) + "\n")
            self._append(kind, change)

        correction.record = record
        return correction

    def _append(self, kind: str, change: Change) -> None:
        line: dict[str, Any] = {"kind": kind}
        if kind == "edit":
            line |= {"removed": sorted(change.removed), "added": [_entry(*item) for item in change.added.items()]}
        append_line(self.path, json.dumps(line))


def _entries(correction: Correction) -> list[list[Any]]:
    region = [] if correction.region is None else [_entry(REGION, correction.region)]
    return [*region, *(_entry(*item) for item in correction.cells.items())]


def _entry(number: int, cell: EditedCell) -> list[Any]:
    score = None if np.isnan(cell.score) else round(cell.score, 6)
    place = [cell.top, cell.left, *cell.mask.shape]
    return [number, place, rle.of_mask(cell.mask), cell.cell_type, score, cell.accepted]


def _cells(entries: Any, height: int, width: int, number_of: Mapping[int, int]) -> dict[int, EditedCell]:
    """Read cells by number; raises ValueError and what else comes of a wrong value."""
    found = {}
    for number, place, text, kind, score, accepted in entries:
        top, left, h, w = (int(value) for value in place)
        if not (0 <= top < top + h <= height and 0 <= left < left + w <= width and int(number) >= REGION):
            raise ValueError(f"cell {number} does not lie within {width}x{height} pixels")
        mask = rle.parse([text], h, w).foreground()
        known = float("nan") if score is None else float(score)
        cell = EditedCell(0, 0, mask, number_of[kind], known, bool(accepted))
        found[int(number)] = cell.with_mask(mask, top, left)
    return found


def _repeat(correction: Correction, line: Any, height: int, width: int, number_of: Mapping[int, int]) -> None:
    if line["kind"] in ("undo", "redo"):
        if (correction.undo() if line["kind"] == "undo" else correction.redo()) is None:
            raise ValueError(f"nothing to {line['kind']}")
    else:
        before = {REGION: correction.region} if correction.region is not None else {}
        removed = {number: ({**correction.cells, **before})[number] for number in line["removed"]}
        correction.apply(Change(removed, _cells(line["added"], height, width, number_of)))

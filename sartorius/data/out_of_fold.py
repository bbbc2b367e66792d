"""Detections of labelled pictures, in several folders: those of several folds make an out-of-fold score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sartorius.data.competition import Competition
from sartorius.detections import DetectionsFolder
from sartorius.errors import InputError


def homes(folders: Sequence[DetectionsFolder], truth: Competition) -> dict[str, DetectionsFolder]:
    """The folder of each picture, in the order of the folders.

    Raises InputError for an empty folder, a picture in two of them, and one that is not labelled.
    """
    home: dict[str, DetectionsFolder] = {}
    for folder in folders:
        if not (found := folder.pictures()):
            raise InputError(f"{folder.folder}: no detections in it; `predict` and `train` write them")
        for picture in found:
            if picture in home:
                raise InputError(
                    f"picture {picture} is in {home[picture].folder} and in {folder.folder}: folds share no picture; "
                    "give each picture's detections once"
                )
            truth.record(picture)  # raises for an id that is not labelled
            home[picture] = folder
    return home


def type_names(folders: Iterable[str | Path], default: Sequence[str]) -> tuple[str, ...]:
    """The cell types that the detections in the folders are of, each once; `default` where none names any."""
    known = [name for folder in folders for name in DetectionsFolder(folder).meta.get("cell_types", ())]
    return tuple(dict.fromkeys(known or default))

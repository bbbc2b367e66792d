"""Detections of labelled images, in several folders: those of several folds make an out-of-fold score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sartorius.data.competition import Competition
from sartorius.errors import InputError
from sartorius.structures.detections import DetectionsFolder


def home_of(folders: Sequence[DetectionsFolder]) -> dict[str, DetectionsFolder]:
    """The folder of each image, in the order of the folders. Raises InputError for an image in two of them."""
    home: dict[str, DetectionsFolder] = {}
    for folder in folders:
        for image_id in folder.image_ids():
            if image_id in home:
                raise InputError(
                    f"image {image_id} is in {home[image_id].folder} and in {folder.folder}: folds share no image; "
                    "give each image's detections once"
                )
            home[image_id] = folder
    return home


def folder_of(folders: Sequence[DetectionsFolder], truth: Competition) -> dict[str, DetectionsFolder]:
    """The folder of each image, in the order of the folders.

    Raises InputError for an empty folder, an image in two of them, and one that is not labelled.
    """
    home = home_of(folders)
    filled = {id(folder) for folder in home.values()}
    for folder in folders:
        if id(folder) not in filled:
            raise InputError(f"{folder.folder}: no detections in it; `predict` and `train` write them")
    for image_id in home:
        truth.record(image_id)  # raises for an id that is not labelled
    return home


def type_names(folders: Iterable[str | Path], default: Sequence[str]) -> tuple[str, ...]:
    """The cell types that the detections in the folders are of, each once; `default` where none names any."""
    known = [name for folder in folders for name in DetectionsFolder(folder).meta.get("cell_types", ())]
    return tuple(dict.fromkeys(known or default))

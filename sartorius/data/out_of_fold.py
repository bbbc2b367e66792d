"""Detections of labelled images in several folders; those of all folds give an out-of-fold score."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from sartorius.data.competition.folder import Competition
from sartorius.data.provenance import KEY, seen_among
from sartorius.errors import InputError
from sartorius.structures.detections import DetectionsFolder


def folder_of(folders: Sequence[DetectionsFolder], truth: Competition | None = None) -> dict[str, DetectionsFolder]:
    """Return the folder of each image, in the order of the folders.

    Raises InputError for an image in two of them; with `truth` also for an empty folder and an image without labels.
    Warns, with `truth`, of images that the model of a folder was trained on.
    """
    by_image: dict[str, DetectionsFolder] = {}
    for folder in folders:
        images = folder.image_ids()
        if truth is not None and not images:
            raise InputError(f"{folder.folder}: no detections in it; `predict` and `train` write them")
        for image_id in images:
            if image_id in by_image:
                raise InputError(
                    f"image {image_id} is in {by_image[image_id].folder} and in {folder.folder}: folds share no image; "
                    "give each image's detections once"
                )
            if truth is not None and image_id not in truth.images:
                raise InputError(
                    f"{folder.folder}: {truth.csv} has no labelled image '{image_id}'; give detections of its "
                    f"images, or remove {image_id}.npz from the folder where this one is labelled no more"
                )
            by_image[image_id] = folder
        if truth is not None and (seen := seen_among(images, folder.meta.get(KEY))):
            warnings.warn(
                f"{folder.folder}: the model was trained on {len(seen)} of its {len(images)} images "
                f"({next(iter(seen))}, ...); what is measured on them flatters",
                stacklevel=2,
            )
    return by_image


def type_names(folders: Iterable[str | Path], default: Sequence[str]) -> tuple[str, ...]:
    """Return the cell types that the detections in the folders are of, each once; `default` where none names any."""
    known = [name for folder in folders for name in DetectionsFolder(folder).meta.get("cell_types", ())]
    return tuple(dict.fromkeys(known or default))

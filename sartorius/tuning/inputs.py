"""The detections of a search, and the post-processing that it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sartorius.errors import InputError
from sartorius.postprocess import Postprocess
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder


def chosen_folders(
    folder_of: Mapping[str, DetectionsFolder], asked: Sequence[str] | None
) -> dict[str, DetectionsFolder]:
    """Choose the folder of each image, sorted by id, of those `asked`. Raises InputError for an image without one."""
    for image_id in asked or ():
        if image_id not in folder_of:
            folders = dict.fromkeys(str(folder.folder) for folder in folder_of.values())
            raise InputError(f"images: no detections of '{image_id}' in {', '.join(folders)}")
    return {image_id: folder_of[image_id] for image_id in sorted(folder_of) if asked is None or image_id in asked}


def common_postprocess(folders: Sequence[DetectionsFolder], changes: Mapping[str, Any]) -> Postprocess:
    """Read the post-processing that all folders were saved with, with `changes` on top: the start of the search.

    Raises InputError where folders differ.
    """
    metas = [folder.meta for folder in folders]
    first, *others = [
        from_saved(meta.get("postprocess"), changes, str(folder.folder), meta.get("cell_types", CELL_TYPES))
        for folder, meta in zip(folders, metas, strict=True)
    ]
    for folder, other in zip(folders[1:], others, strict=True):
        if to_saved(other) != to_saved(first):
            raise InputError(
                f"{folder.folder} and {folders[0].folder} were saved with different post-processing; choose where to "
                "start with postprocess=default, or another of conf/postprocess"
            )
    return first

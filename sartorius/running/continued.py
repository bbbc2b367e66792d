"""A prediction that was stopped, by a kill too, and is continued by the same command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError
from sartorius.files import is_current, remove_partial
from sartorius.networks.builtin import located
from sartorius.running import processes

if TYPE_CHECKING:
    from sartorius.structures.detections import DetectionsFolder

KEY = "made_with"  # of meta.json: the settings that decide the result


def fingerprint(path: str | Path) -> str:
    """Return what tells a checkpoint from others, wherever it lies: a hash of its content; of a folder its path."""
    path = located(path)
    if path.is_dir():
        return str(path.resolve())
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


class Continued:
    """The folders of detections of one prediction, with what an earlier run left in them.

    output: the folder of all results. folders: of detections, in it. made_with: the settings that decide the result.
    ids: of the images to predict.

    Raises InputError where a folder holds what other settings, or other images, gave.
    """

    def __init__(self, output: Path, folders: Sequence[Path], made_with: Mapping[str, Any], ids: Sequence[str]) -> None:
        from sartorius.structures.detections import DetectionsFolder  # SciPy: not for --help

        self.folders = [DetectionsFolder(folder) for folder in folders]
        for other in {output / "detections", *output.glob("detections_*")} - set(folders):
            DetectionsFolder(other).check_empty()
        if any(output.glob("overlays/*.png")) and not any((folder / "meta.json").is_file() for folder in folders):
            raise InputError(f"{output / 'overlays'}: holds overlays already; delete them or give another output=")
        for folder in self.folders:
            self._check(folder, json.loads(json.dumps(made_with)), set(ids))
        if processes.rank() == 0:
            for inner in output.glob("*/"):
                remove_partial(inner)

    def _check(self, folder: DetectionsFolder, made_with: Mapping[str, Any], ids: set[str]) -> None:
        if not (folder.folder / "meta.json").is_file():
            folder.check_empty()
            return
        earlier = folder.meta.get(KEY) or {}
        if changed := [key for key in made_with if earlier.get(key) != made_with[key]]:
            raise InputError(
                f"{folder.folder}: was predicted with another {', '.join(changed)}; give another output=, or the same "
                "command as before to continue it"
            )
        if others := [image_id for image_id in folder.image_ids() if image_id not in ids]:
            raise InputError(
                f"{folder.folder}: holds detections of {len(others)} images that are not among these {len(ids)} "
                f"({others[0]}, ...); give another output="
            )

    def is_done(self, file_of: Callable[[str], Path]) -> Callable[[str], bool]:
        """Return the function that tells whether an image has been predicted since its file was written."""
        return lambda image_id: all(is_current(f.file(image_id), [file_of(image_id)]) for f in self.folders)

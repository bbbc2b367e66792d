"""The folder of an ensemble's joined detections: resumed by the same ensemble, refused to another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import is_current, remove_partial
from sartorius.structures.detections import Detections, DetectionsFolder


@dataclass
class JoinOutcome:
    """Numbers of images joined now and by an earlier run, and the unreadable files of each image."""

    joined: int = 0
    kept: int = 0
    skipped: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """A line for each unreadable file."""
        return [problem for problems in self.skipped.values() for problem in problems]


class JoinedFolder:
    """Joined detections and their meta.json, whose entry `skipped` names unreadable files by image.

    meta: entries of meta.json; its `ensemble` decides the result. images: those to be joined. Raises InputError where
    the folder holds detections of another ensemble, or of other images; `overwrite` deletes those.
    """

    def __init__(self, path: str | Path, meta: Mapping[str, Any], images: Sequence[str], overwrite: bool) -> None:
        self.folder, self.meta = DetectionsFolder(path), meta
        remove_partial(self.folder.folder)
        earlier = self.folder.meta if (self.folder.folder / "meta.json").is_file() else {}
        same = earlier.get("ensemble") == json.loads(json.dumps(meta["ensemble"]))
        wanted = set(images) if same else set()
        self._delete([image_id for image_id in self.folder.image_ids() if image_id not in wanted], same, overwrite)
        skipped: Mapping[str, list[str]] = earlier.get("skipped") or {}
        self.skipped = {image_id: problems for image_id, problems in skipped.items() if image_id in wanted}
        self._write_meta()

    def _delete(self, others: Sequence[str], same: bool, overwrite: bool) -> None:
        if others and not overwrite:
            raise InputError(
                f"{self.folder.folder}: holds {len(others)} detections of other "
                f"{'images' if same else 'members or settings'}; give another output=, or overwrite=true to delete them"
            )
        for image_id in others:
            self.file(image_id).unlink()

    def file(self, image_id: str) -> Path:
        """The file of an image."""
        return self.folder.folder / f"{image_id}.npz"

    def is_current(self, image_id: str, sources: Sequence[Path]) -> bool:
        """Whether an image is joined, and not older than the files that it is made of."""
        return is_current(self.file(image_id), sources)

    def add(self, image_id: str, joined: Detections | None, problems: list[str]) -> None:
        """Write an image and the problems with its files; None deletes what an earlier run wrote."""
        if problems != self.skipped.get(image_id, []):  # before the image: a kill in between loses nothing
            others = {name: known for name, known in self.skipped.items() if name != image_id}
            self.skipped = dict(sorted({**others, image_id: problems}.items())) if problems else others
            self._write_meta()
        if joined is None:
            self.file(image_id).unlink(missing_ok=True)  # made of files that could be read at the time
        else:
            self.folder.write(joined)

    def _write_meta(self) -> None:
        self.folder.write_meta(**self.meta, skipped=self.skipped)

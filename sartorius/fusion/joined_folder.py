"""The folder of an ensemble's joined detections: resumed by the same ensemble, refused to another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import is_current, remove_partial
from sartorius.structures.detections import Detections, DetectionsFolder


class JoinedFolder(DetectionsFolder):
    """Joined detections and their meta.json, whose entry `skipped` names unreadable files by image.

    about: other entries of meta.json; its `ensemble` decides the result. images: those to be joined. joined, kept:
    numbers of images that were added, and that an earlier run had added. Raises InputError where the folder holds
    detections of another ensemble, or of other images; `overwrite` deletes those.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any], images: Sequence[str], overwrite: bool) -> None:
        super().__init__(path)
        remove_partial(self.folder)
        earlier = self.meta if (self.folder / "meta.json").is_file() else {}
        same = earlier.get("ensemble") == json.loads(json.dumps(about["ensemble"]))
        wanted = set(images) if same else set()
        others = [image_id for image_id in self.image_ids() if image_id not in wanted]
        if others and not overwrite:
            what = "images" if same else "members or settings"
            raise InputError(
                f"{self.folder}: holds {len(others)} detections of other {what}; give another output=, or "
                "overwrite=true to delete them"
            )
        for image_id in others:
            self.file(image_id).unlink()
        skipped: Mapping[str, list[str]] = earlier.get("skipped") or {}
        self.about, self.joined, self.kept = about, 0, 0
        self.skipped = {image_id: problems for image_id, problems in skipped.items() if image_id in wanted}
        self.write_meta(**about, skipped=self.skipped)

    @property
    def problems(self) -> list[str]:
        """A line for each unreadable file."""
        return [problem for problems in self.skipped.values() for problem in problems]

    def keep(self, image_id: str, sources: Sequence[Path]) -> bool:
        """Tell whether an image is joined and not older than the files it is made of, and count it then."""
        current = is_current(self.file(image_id), sources)
        self.kept += current
        return current

    def add(self, image_id: str, joined: Detections | None, problems: list[str]) -> None:
        """Write an image and the problems with its files; None deletes what an earlier run wrote."""
        if problems != self.skipped.get(image_id, []):  # before the image: a kill in between loses nothing
            others = {name: known for name, known in self.skipped.items() if name != image_id}
            self.skipped = dict(sorted({**others, image_id: problems}.items())) if problems else others
            self.write_meta(**self.about, skipped=self.skipped)
        if joined is None:
            self.file(image_id).unlink(missing_ok=True)  # made of files that could be read at the time
        else:
            self.write(joined)
            self.joined += 1

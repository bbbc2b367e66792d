"""The rows of a submission, which is complete at any time: an image without a prediction has an empty one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.formats.submission import Row, check_rows, read_submission, write_submission
from sartorius.running.budget.deadline import Clock
from sartorius.running.saved_cells import SavedCells
from sartorius.structures.detections import Detections


class SubmissionRows:
    """The cells of each image, from the last folder of detections that had it, else from the file of an earlier run.

    path: of the csv. ids: of all images. After `take`: problems (of detections that gave no cells), sizes (height,
    width) of the images that are read, and each (seconds that an image took).
    """

    def __init__(self, path: Path, ids: Sequence[str], clock: Clock) -> None:
        self.path, self._clock = path, clock
        self.texts: dict[str, list[str]] = {image_id: [] for image_id in ids}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.problems: dict[str, str] = {}
        self.each = 0.0
        self._taken: dict[str, tuple[Path, int]] = {}  # the folder, and when its file was written

    @property
    def missing(self) -> list[str]:
        """The images without any detections so far, and without cells of an earlier run."""
        return [image_id for image_id, texts in self.texts.items() if not texts and image_id not in self._taken]

    def recall(self) -> bool:
        """Start with the cells of the file; returns whether there is one, readable and of exactly these images."""
        try:
            there = read_submission(self.path)
        except InputError:
            return False
        if there.keys() != self.texts.keys():
            return False
        self.texts |= there
        return True

    def take(
        self,
        folder: Path,
        changes: Mapping[str, Any] | None,
        chosen_filter: str,
        until: Callable[[], bool],
        only: Collection[str] | None = None,
    ) -> bool:
        """Make the rows of those images of a folder that were written since they were taken; returns whether of all.

        changes, chosen_filter: of the folder's post-processing, see `SavedCells`. until: tells that no time is left.
        only: these images, None for all. Detections that cannot be read, or whose cells break a rule of submissions,
        leave the image's rows as they were.
        """
        cells = SavedCells([folder], changes, chosen_filter)
        for image_id in cells.image_ids:
            if image_id not in (self.texts if only is None else only):
                continue
            version = folder, cells.folder_of[image_id].file(image_id).stat().st_mtime_ns
            if self._taken.get(image_id) == version:
                continue
            if until():
                return False
            begun = self._clock.now()
            try:
                detections = cells.detections(image_id)
                texts = cells.cells(detections).instances.to_rles()
                _check(detections, texts)
            except InputError as error:
                self.problems[image_id] = str(error)
                continue
            self.texts[image_id], self._taken[image_id] = texts, version
            self.problems.pop(image_id, None)
            self.sizes[image_id] = detections.height, detections.width
            self.each = max(self.each, self._clock.now() - begun)
        return True

    def write(self) -> None:
        """Write the submission, moved into place: every image has a row."""
        write_submission(self.path, self.texts)


def _check(detections: Detections, texts: Iterable[str]) -> None:
    size = {detections.image_id: (detections.height, detections.width)}
    rows = [Row(line, detections.image_id, text) for line, text in enumerate(texts, start=1)]
    if problems := check_rows(rows, size, limit=1) if rows else []:
        raise InputError(f"image {detections.image_id}: its cells would be no valid submission: {problems[0]}")

"""The images of a search: candidates of all, and a bounded cache of overlap tables; masks stay for one image only."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from sartorius.errors import InputError, collected, raise_all
from sartorius.postprocess import BoxNMS, Postprocess, Score
from sartorius.structures.arrays import Bools, Floats
from sartorius.structures.detections import Detections
from sartorius.structures.progress import progress_bar
from sartorius.structures.rle import Runs
from sartorius.tuning.overlap_table import CandidateTable, OverlapTable, candidate_table, overlap_table
from sartorius.tuning.space import setting_of_class


class Tables:
    """The input of every trial of a search; filled image by image.

    images: ids, each once. load: the detections of an image; called again whenever its masks are needed. truth: the
    runs of an image's true cells. post: the post-processing whose thresholds are searched; everything else of it
    holds for all trials. floor: lowest value of each threshold in any trial, by `step.setting` (those of Score and
    BoxNMS are used). ignored: the pixels of an image that nobody has labelled, bool [H, W]. cache_megabytes: memory
    for overlap tables, MB; those not used for longest are dropped and made again.

    Raises InputError, for all images at once, where detections cannot be read, they and the true cells are of images of
    different size, or cell types differ between images.
    """

    def __init__(
        self,
        images: Sequence[str],
        load: Callable[[str], Detections],
        truth: Callable[[str], Runs],
        post: Postprocess,
        floor: dict[str, float],
        cache_megabytes: float,
        ignored: Callable[[str], Bools | None] = lambda _: None,
    ) -> None:
        self.images, self.post = tuple(images), post
        self.load, self.truth, self.ignored = load, truth, ignored
        self.candidates: dict[str, CandidateTable] = {}
        self.cell_type_names: tuple[str, ...] = ()
        self._bytes_left = cache_megabytes * 1e6
        self._overlaps: OrderedDict[tuple[str, tuple[float, ...]], OverlapTable] = OrderedDict()
        names = setting_of_class(post)
        least = floor.get(names.get(Score, ""), 0.0), floor.get(names.get(BoxNMS, ""), 1.0)
        digest = hashlib.sha256()
        problems: list[str] = []
        for image_id in progress_bar(self.images, "reading"):
            with collected(problems):
                detections, cells = load(image_id), truth(image_id)
                self._check(detections, cells)
                self.candidates[image_id] = candidate_table(detections, cells, post, *least)
                arrays = detections.boxes, detections.scores, detections.cell_types, detections.masks
                unlabelled = ignored(image_id)
                for array in (*arrays, cells.start, cells.length, cells.cell, unlabelled):
                    if array is None:
                        continue
                    digest.update(repr((image_id, array.shape)).encode())
                    digest.update(np.ascontiguousarray(array).tobytes())
        raise_all(problems)
        self.digest = digest.hexdigest()  # of all detections and true cells

    def _check(self, detections: Detections, cells: Runs) -> None:
        if (detections.height, detections.width) != (cells.height, cells.width):
            raise InputError(
                f"image {detections.image_id}: detections of {detections.width}x{detections.height} pixels, "
                f"its cells are of {cells.width}x{cells.height}; the detections are of another image"
            )
        self.cell_type_names = self.cell_type_names or detections.cell_type_names
        if detections.cell_type_names != self.cell_type_names:
            raise InputError(
                f"image {detections.image_id}: cell types {', '.join(detections.cell_type_names)}, others have "
                f"{', '.join(self.cell_type_names)}; tune detections of one kind of model together"
            )

    def kinds(self, image_id: str) -> tuple[int, ...]:
        """List the cell types whose thresholds matter in an image, ascending."""
        return tuple(np.unique(self.candidates[image_id].kind).tolist())

    def overlaps(self, image_id: str, mask: Floats) -> OverlapTable:
        """Return the overlaps of an image's candidates at the mask thresholds float64 [K] of the cell types."""
        candidates = self.candidates[image_id]
        key = (image_id, tuple(mask[list(self.kinds(image_id))].tolist()))
        if key in self._overlaps:
            self._overlaps.move_to_end(key)
            return self._overlaps[key]
        truth, limits = self.truth(image_id), mask[candidates.kind]
        detections, ignored = self.load(image_id), self.ignored(image_id)
        made = overlap_table(detections, candidates.source, truth, self.post, limits, ignored)
        self._overlaps[key] = made
        self._bytes_left -= made.nbytes
        while self._bytes_left < 0 and len(self._overlaps) > 1:
            self._bytes_left += self._overlaps.popitem(last=False)[1].nbytes
        return made

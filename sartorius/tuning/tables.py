"""The images of a search: candidates of all, and a bounded cache of claims; masks are in memory one image long."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.postprocess.finalise import Postprocess
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs
from sartorius.tuning.claims import Candidates, Claims, candidates_of, claims_of


class Tables:
    """What every trial of a search reads; filled image by image.

    Args:
        images: ids, each once.
        load: the detections of an image; called again whenever its masks are needed.
        truth: the runs of an image's true cells.
        post: the post-processing whose thresholds are searched; everything else of it holds for all trials.
        floor: lowest value of each threshold in any trial (score and box_nms are used).
        cache_megabytes: memory for claims; those not used for longest are dropped and made again when needed, MB.
        track: wraps the ids in a progress bar of that title; by default in none.

    Raises InputError where detections and true cells are of images of different size, or cell types differ between
    images.
    """

    def __init__(
        self,
        images: Sequence[str],
        load: Callable[[str], Detections],
        truth: Callable[[str], Runs],
        post: Postprocess,
        floor: dict[str, float],
        cache_megabytes: float,
        track: Callable[[Sequence[str], str], Iterable[str]] = lambda images, _: images,
    ) -> None:
        self.images, self.post = tuple(images), post
        self.load, self.truth = load, truth
        self.candidates: dict[str, Candidates] = {}
        self.cell_type_names: tuple[str, ...] = ()
        self._bytes_left = cache_megabytes * 1e6
        self._claims: OrderedDict[tuple[str, tuple[float, ...]], Claims] = OrderedDict()
        digest = hashlib.sha256()
        for image_id in track(self.images, "reading"):
            found, cells = load(image_id), truth(image_id)
            self._check(found, cells)
            self.candidates[image_id] = candidates_of(found, cells, post, floor)
            for array in (
                found.boxes,
                found.scores,
                found.cell_types,
                found.masks,
                cells.start,
                cells.length,
                cells.cell,
            ):
                digest.update(repr((image_id, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        self.digest = digest.hexdigest()  # of all detections and true cells

    def _check(self, found: Detections, cells: Runs) -> None:
        if (found.height, found.width) != (cells.height, cells.width):
            raise InputError(
                f"image {found.image_id}: detections of {found.width}x{found.height} pixels, its cells are of "
                f"{cells.width}x{cells.height}; the detections are of another image"
            )
        self.cell_type_names = self.cell_type_names or found.cell_type_names
        if found.cell_type_names != self.cell_type_names:
            raise InputError(
                f"image {found.image_id}: cell types {', '.join(found.cell_type_names)}, others have "
                f"{', '.join(self.cell_type_names)}; tune detections of one kind of model together"
            )

    def kinds(self, image_id: str) -> tuple[int, ...]:
        """The cell types whose thresholds matter in an image, ascending."""
        return tuple(np.unique(self.candidates[image_id].kind).tolist())

    def claims(self, image_id: str, mask: NDArray[np.float64]) -> Claims:
        """The claims of an image's candidates at the mask thresholds float64 [K] of the cell types."""
        candidates = self.candidates[image_id]
        key = (image_id, tuple(mask[list(self.kinds(image_id))].tolist()))
        if key in self._claims:
            self._claims.move_to_end(key)
            return self._claims[key]
        made = claims_of(self.load(image_id), candidates.source, self.truth(image_id), self.post, mask[candidates.kind])
        self._claims[key] = made
        self._bytes_left -= made.nbytes
        while self._bytes_left < 0 and len(self._claims) > 1:
            self._bytes_left += self._claims.popitem(last=False)[1].nbytes
        return made

"""Copy-paste: cells of other training images of the same cell type, put into an image (Ghiasi et al. 2021).

The layered map makes it cheap: a pasted cell lies on top, so its pixels are taken from every layer, and in the first
layer there is then always room for it. No cell is stacked at full size, and the map gets no deeper.

Every cell that can be seen has its mask: what a pasted cell covers is taken from the masks below it, and a place where
it would leave too little of another cell is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.data.augmentation.cut_cells import Backdrop, CellCutout, Donor
from sartorius.data.dataset import Load
from sartorius.errors import InputError
from sartorius.structures.arrays import Floats, Floats32, GreyImage, Ints
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import MAX_CELLS, Instances

Patch = tuple[slice, slice]
Below = dict[int, int]  # cell, pixels of it


@dataclass(frozen=True)
class Pasted:
    """image uint8 [H, W]; instances of the same size, pasted ones last; kept int64 [n]: place before, -1 if pasted."""

    image: GreyImage
    instances: Instances
    kept: Ints


@dataclass(frozen=True)
class CopyPaste:
    """A `Mix` (see `sartorius.data.dataset`): cells of the images in `others`, which are training images.

    probability: of a sample to get any.  until: share of the `epochs` of a run, the first ones, that paste (0 to 1);
    later samples are exactly those of a run without copy-paste.  epochs: null or -1 where it is not known, with
    until=1 only.
    cells: fewest and most cells drawn for a sample; those without a place are left out.
    images: at most so many give the cells of a sample; each is loaded from the dataset's cache or the disk.
    mirror: probability.  rotate: from, to, in degrees.  scale: from, to, factor of lengths.
    rim: pixels around a cell that come along, fading out: its halo.
    max_shared: share of a cell that others may cover in its own image.
    max_overlap: share of a pasted cell that may lie on other cells.  min_visible: share that must stay visible of each
    of those, of its area before anything was pasted; at 0 a cell may be covered whole, and is then gone.
    tries: places looked at for each cell.

    Where no other image has the type, or none of them a cell, nothing is pasted. Raises InputError for values out of
    range.
    """

    probability: float
    until: float
    epochs: int | None
    cells: Sequence[int]
    images: int
    mirror: float
    rotate: Sequence[float]
    scale: Sequence[float]
    rim: int
    max_shared: float
    max_overlap: float
    min_visible: float
    tries: int

    def __post_init__(self) -> None:
        for key in ("probability", "until", "mirror", "max_shared", "max_overlap", "min_visible"):
            _require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "a number from 0 to 1")
        for key in ("images", "rim", "tries"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        for key in ("cells", "rotate", "scale"):
            span = getattr(self, key)
            pair = isinstance(span, Sequence) and len(span) == 2 and span[0] <= span[1]
            _require(pair, key, span, "[from, to], in this order")
        _require(self.cells[0] >= 0, "cells", self.cells, "counts, 0 or more")
        _require(self.scale[0] > 0, "scale", self.scale, "factors above 0")
        if self.until < 1 and (self.epochs is None or self.epochs < 1):
            raise InputError(
                f"copy_paste.until={self.until} is a share of copy_paste.epochs, which is {self.epochs}; set "
                "trainer.max_epochs or copy_paste.epochs, or copy_paste.until=1 to paste in every epoch"
            )

    def active(self, epoch: int) -> bool:
        """Whether samples of an epoch (counted from 0) may get cells; the share is rounded to whole epochs."""
        return self.until >= 1 or epoch < round(self.until * (self.epochs or 0))

    def __call__(
        self,
        epoch: int,
        image: GreyImage,
        instances: Instances,
        others: Sequence[str],
        load: Load,
        rng: np.random.Generator,
    ) -> Pasted:
        """The image uint8 [H, W] with cells pasted, or as it is; nothing that was given is written to.

        After the last epoch that pastes nothing is drawn from `rng`.
        """
        if others and self.active(epoch) and rng.random() < self.probability:
            chosen = rng.permutation(len(others))[: self.images].tolist()
            donors = [Donor(*load(others[place])) for place in chosen]
            drawn = self._draw([donor.cells(self.max_shared) for donor in donors], MAX_CELLS - len(instances), rng)
            if len(drawn):
                return self._paste(image, instances, [(donors[place], cell) for place, cell in drawn], rng)
        return Pasted(image, instances, np.arange(len(instances)))

    def _draw(self, available: Sequence[Ints], at_most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Cells without repetition, as (place in `available`, cell)."""
        pairs = [(place, cell) for place, cells in enumerate(available) for cell in cells.tolist()]
        count = min(int(rng.integers(self.cells[0], self.cells[1] + 1)), at_most)
        return [pairs[k] for k in rng.permutation(len(pairs))[:count].tolist()]

    def _paste(
        self, image: GreyImage, instances: Instances, cells: Sequence[tuple[Donor, int]], rng: np.random.Generator
    ) -> Pasted:
        canvas, turns = Canvas(image, instances), self._turns(len(cells), rng)
        places = rng.random((len(cells), self.tries, 2))
        for (donor, cell), turn, shares in zip(cells, turns, places, strict=True):
            cut = donor.cut(cell, turn, self.rim)
            if cut is not None and (place := self._place(canvas, cut, shares)) is not None:
                canvas.paste(cut, *place)
        return canvas.result()

    def _turns(self, count: int, rng: np.random.Generator) -> Floats32:
        """Rotation, mirroring and scale of each cell as matrices float32 [count, 2, 2]."""
        angle = np.deg2rad(rng.uniform(self.rotate[0], self.rotate[1], count))
        scale = rng.uniform(self.scale[0], self.scale[1], count)
        sign = np.where(rng.random(count) < self.mirror, -1.0, 1.0)
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        return np.stack([sign * a, -b, sign * b, a], axis=1).reshape(-1, 2, 2).astype(np.float32)

    def _place(self, canvas: Canvas, cut: CellCutout, shares: Floats) -> tuple[Patch, Below] | None:
        """The first place inside the image, of those at `shares` [tries, 2] of the room, that the cell may have."""
        height, width = cut.mask.shape
        down, right = canvas.light.shape[0] - height, canvas.light.shape[1] - width
        if min(down, right) < 0:
            return None
        for y, x in shares.tolist():
            top, left = int(y * (down + 1)), int(x * (right + 1))
            patch = slice(top, top + height), slice(left, left + width)
            overlap = np.count_nonzero(canvas.covered[patch] & cut.mask)
            if overlap <= self.max_overlap * cut.area:
                below = canvas.below(cut, patch) if overlap else {}
                if canvas.keeps(below, self.min_visible):
                    return patch, below
        return None


class Canvas:
    """An image that is being pasted into; the given arrays are copied.

    light: float32 [H, W], difference from the background in grey levels.  covered: bool [H, W], pixels of cells.
    types: class index of each cell.  whole: pixels of each before anything covered it.  left: pixels of each now.
    """

    def __init__(self, image: GreyImage, instances: Instances) -> None:
        backdrop = Backdrop.of(image, instances)
        self.level, self.light, self.covered = backdrop.level, backdrop.light, backdrop.depth > 0
        self.layers = instances.layers.copy()
        self.given = len(instances)
        self.types: list[int] = instances.cell_types.tolist()
        self.whole: list[int] = instances.areas.tolist()
        self.left = list(self.whole)

    def below(self, cut: CellCutout, patch: Patch) -> Below:
        """The cells that the mask would cover, and how many pixels of each."""
        counts = np.bincount(self.layers[:, patch[0], patch[1]][:, cut.mask].reshape(-1))
        return {cell - 1: int(counts[cell]) for cell in counts.nonzero()[0].tolist() if cell}

    def keeps(self, below: Below, min_visible: float) -> bool:
        """Whether `min_visible` of each of these cells stays, were they covered; of doubtful ones nothing need stay."""
        return all(
            self.left[cell] - pixels >= min_visible * self.whole[cell] or self.types[cell] == DOUBTFUL
            for cell, pixels in below.items()
        )

    def paste(self, cut: CellCutout, patch: Patch, below: Below) -> None:
        """Put the cell on top of those below; its rim changes no pixel of another cell."""
        covered, layers = self.covered[patch], self.layers[:, patch[0], patch[1]]
        for cell, pixels in below.items():
            self.left[cell] -= pixels
        if below:
            layers[1:, cut.mask] = 0
        self.types.append(cut.cell_type)
        self.whole.append(cut.area)
        self.left.append(cut.area)
        layers[0][cut.mask] = len(self.types)
        light = self.light[patch]
        np.copyto(light, light * cut.rest + cut.light, where=covered <= cut.mask)
        covered |= cut.mask

    def result(self) -> Pasted:
        """The image as it is now, without the cells that were covered whole."""
        image = np.asarray(cv2.add(self.light, self.level, dtype=cv2.CV_8U), np.uint8)  # rounded, within 0 to 255
        kept = np.concatenate([np.arange(self.given), np.full(len(self.types) - self.given, -1)])
        instances, areas = Instances(self.layers, np.array(self.types, np.int64)), np.array(self.left)
        seen = (areas > 0) | (np.array(self.whole) == 0)
        if not seen.all():
            instances, kept, areas = instances.select(seen), kept[seen], areas[seen]
        vars(instances)["areas"] = areas  # where the property keeps them: they need not be counted again
        return Pasted(image, instances, kept)


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"copy_paste.{key}={value}: expected {expected}")

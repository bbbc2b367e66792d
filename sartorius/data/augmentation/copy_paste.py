"""Copy-paste: cells of other training images of the same cell type, put into an image (Ghiasi et al. 2021).

A pasted cell lies on top: its pixels are removed from every layer and it goes into the first, so that the map gets no
deeper. Every visible cell keeps its mask without the covered pixels; a place where too little of another cell would
stay visible is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sartorius.data.augmentation.cut_cells import Backdrop, CellCutout, Donor
from sartorius.data.dataset import Load
from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.arrays import Floats, Floats32, GreyImage, Ints
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import MAX_CELLS, Instances

Region = tuple[slice, slice]
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
    tries: places tried for each cell.

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
        group = "copy_paste"
        checks.fractions(group, probability=self.probability, until=self.until, mirror=self.mirror)
        checks.fractions(group, max_shared=self.max_shared, max_overlap=self.max_overlap, min_visible=self.min_visible)
        checks.whole(group, 1, images=self.images, rim=self.rim, tries=self.tries)
        checks.spans(group, cells=self.cells, rotate=self.rotate, scale=self.scale)
        checks.expect(self.cells[0] >= 0, group, "cells", self.cells, "counts, 0 or more")
        checks.expect(self.scale[0] > 0, group, "scale", self.scale, "factors above 0")
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
        """Paste cells into a copy of image uint8 [H, W], or return it as it is.

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
        """Draw cells without repetition, as (place in `available`, cell)."""
        pairs = [(place, cell) for place, cells in enumerate(available) for cell in cells.tolist()]
        count = min(int(rng.integers(self.cells[0], self.cells[1] + 1)), at_most)
        return [pairs[k] for k in rng.permutation(len(pairs))[:count].tolist()]

    def _paste(
        self, image: GreyImage, instances: Instances, cells: Sequence[tuple[Donor, int]], rng: np.random.Generator
    ) -> Pasted:
        canvas, turns = Canvas(image, instances), self._turns(len(cells), rng)
        places = rng.random((len(cells), self.tries, 2))
        for (donor, cell), turn, shares in zip(cells, turns, places, strict=True):
            cutout = donor.cut(cell, turn, self.rim)
            if cutout is not None and (place := self._place(canvas, cutout, shares)) is not None:
                canvas.paste(cutout, *place)
        return canvas.result()

    def _turns(self, count: int, rng: np.random.Generator) -> Floats32:
        """Draw rotation, mirroring and scale of each cell as matrices float32 [count, 2, 2]."""
        angle = np.deg2rad(rng.uniform(self.rotate[0], self.rotate[1], count))
        scale = rng.uniform(self.scale[0], self.scale[1], count)
        sign = np.where(rng.random(count) < self.mirror, -1.0, 1.0)
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        return np.stack([sign * a, -b, sign * b, a], axis=1).reshape(-1, 2, 2).astype(np.float32)

    def _place(self, canvas: Canvas, cutout: CellCutout, shares: Floats) -> tuple[Region, Below] | None:
        """Find the first possible place of the cell inside the image, of those at `shares` [tries, 2] of the room."""
        height, width = cutout.mask.shape
        down, right = canvas.light.shape[0] - height, canvas.light.shape[1] - width
        if min(down, right) < 0:
            return None
        for y, x in shares.tolist():
            top, left = int(y * (down + 1)), int(x * (right + 1))
            region = slice(top, top + height), slice(left, left + width)
            overlap = np.count_nonzero(canvas.covered[region] & cutout.mask)
            if overlap <= self.max_overlap * cutout.area:
                below = canvas.below(cutout, region) if overlap or canvas.doubtful else {}
                if canvas.keeps(below, self.min_visible):
                    return region, below
        return None


class Canvas:
    """An image that is being pasted into; the arrays are copied.

    light: float32 [H, W], difference from the background in grey levels.  covered: bool [H, W], pixels of cells that
    are not doubtful; doubtful: whether there are others, which may be pasted over.
    types: class index of each cell.  whole: pixels of each before anything covered it.  left: pixels of each now.
    """

    def __init__(self, image: GreyImage, instances: Instances) -> None:
        backdrop = Backdrop.of(image, instances)
        self.level, self.light, self.covered = backdrop.level, backdrop.light, backdrop.depth > 0
        self.layers = instances.layers.copy()
        certain = instances.cell_types != DOUBTFUL
        self.doubtful = not certain.all()
        if self.doubtful:
            self.covered = instances.select(certain).foreground()
        self.given = len(instances)
        self.types: list[int] = instances.cell_types.tolist()
        self.whole: list[int] = instances.areas.tolist()
        self.left = list(self.whole)

    def below(self, cutout: CellCutout, region: Region) -> Below:
        """Count the pixels of each cell that the mask would cover."""
        counts = np.bincount(self.layers[:, region[0], region[1]][:, cutout.mask].reshape(-1))
        return {cell - 1: int(counts[cell]) for cell in counts.nonzero()[0].tolist() if cell}

    def keeps(self, below: Below, min_visible: float) -> bool:
        """Whether at least `min_visible` of each covered cell stays visible; doubtful cells may be covered whole."""
        return all(
            self.left[cell] - pixels >= min_visible * self.whole[cell] or self.types[cell] == DOUBTFUL
            for cell, pixels in below.items()
        )

    def paste(self, cutout: CellCutout, region: Region, below: Below) -> None:
        """Put the cell on top of those below; its rim changes no pixel of another cell."""
        covered, layers = self.covered[region], self.layers[:, region[0], region[1]]
        for cell, pixels in below.items():
            self.left[cell] -= pixels
        if below:
            layers[1:, cutout.mask] = 0
        self.types.append(cutout.cell_type)
        self.whole.append(cutout.area)
        self.left.append(cutout.area)
        layers[0][cutout.mask] = len(self.types)
        light = self.light[region]
        np.copyto(light, light * cutout.rest + cutout.light, where=covered <= cutout.mask)
        covered |= cutout.mask

    def result(self) -> Pasted:
        """Return the image with all pasted cells, without those that are covered whole."""
        image = np.asarray(cv2.add(self.light, self.level, dtype=cv2.CV_8U), np.uint8)  # rounded, within 0 to 255
        kept = np.concatenate([np.arange(self.given), np.full(len(self.types) - self.given, -1)])
        instances, areas = Instances(self.layers, np.array(self.types, np.int64)), np.array(self.left)
        visible = (areas > 0) | (np.array(self.whole) == 0)
        if not visible.all():
            instances, kept, areas = instances.select(visible), kept[visible], areas[visible]
        vars(instances)["areas"] = areas  # fill the cached property: no need to count again
        return Pasted(image, instances, kept)

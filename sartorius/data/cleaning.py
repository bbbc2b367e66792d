"""Repairing annotations before training: enclosed holes, stray pieces, specks, and images better left out.

Astro masks of the competition are often broken. Validation truth is never cleaned. Work is done on crops of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import ndimage

from sartorius.data.images import ImageSource
from sartorius.structures import checks
from sartorius.structures.arrays import Bools, GreyImage, Ints, Mask
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

# Foreground is 8-connected and background 4-connected, the usual pair: a diagonal step neither splits a cell nor opens
# a ring.
EIGHT = np.ones((3, 3), bool)


def fill_holes(mask: Mask) -> Mask:
    """Fill the enclosed background of a mask [h, w], as `scipy.ndimage.binary_fill_holes` on a padded crop.

    Background is invaded from outside the crop, 4-connected, so a bay or a ring that is open stays as it is.
    """
    background, count = ndimage.label(~np.pad(mask, 1))
    return mask if count <= 1 else (background != background[0, 0])[1:-1, 1:-1]


def drop_pieces(mask: Mask, share: float) -> Mask:
    """Drop 8-connected pieces of a mask [h, w] below `share` (0 to 1) of the cell; the largest always stays."""
    pieces, count = ndimage.label(mask, EIGHT)
    if count <= 1:
        return mask
    areas = np.bincount(pieces.reshape(-1))
    areas[0] = 0
    keep = areas >= share * areas.sum()
    keep[0], keep[int(areas.argmax())] = False, True
    kept: Mask = keep[pieces]
    return kept


@dataclass
class CleaningReport:
    """Counts of the changes: int64, a row per cell type and a column per entry of COLUMNS. Reports add up."""

    COLUMNS = ("cells", "holes_filled", "pixels_filled", "pieces_dropped", "pixels_dropped", "cells_dropped")
    cell_type_names: Sequence[str]
    counts: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def __post_init__(self) -> None:
        if not self.counts.size:
            self.counts = np.zeros((len(self.cell_type_names), len(self.COLUMNS)), np.int64)

    def add(self, cell_type: int, **counts: int) -> None:
        """Add to the counts of a cell type (class index)."""
        for name, count in counts.items():
            self.counts[cell_type, self.COLUMNS.index(name)] += count

    def frame(self) -> pd.DataFrame:
        """Return a row per cell type: cell_type and the COLUMNS (cells changed, or pixels)."""
        return (
            pd.DataFrame(self.counts, columns=list(self.COLUMNS))
            .assign(cell_type=list(self.cell_type_names))
            .set_index("cell_type")
        )


@dataclass(frozen=True)
class Cleaning:
    """Repair of annotations before training.

    holes: fill enclosed holes.  piece_share: drop stray pieces smaller than this share of their cell (0 keeps all).
    min_area: drop cells below this many pixels, after the repairs (cells without pixels always go).
    drop_images: ids that are not trained on.
    """

    holes: bool = True
    piece_share: float = 0.0
    min_area: int = 0
    drop_images: Sequence[str] = ()

    def __post_init__(self) -> None:
        checks.fractions("cleaning", piece_share=self.piece_share)
        checks.numbers("cleaning", 0, min_area=self.min_area)

    def __call__(self, instances: Instances, report: CleaningReport | None = None) -> Instances:
        """Repair cells, in their order without dropped ones, and add counts to `report`.

        A filled hole may overlap a cell that lies in it: layers are coloured anew.
        """
        keep = np.ones(len(instances), bool)
        changed: dict[int, tuple[int, int, Mask]] = {}
        for k, cell_type in enumerate(instances.cell_types.tolist()):
            top, left, mask = instances.crop_mask(k)
            cleaned, counts = self._clean(mask)
            keep[k] = cleaned.sum() >= max(self.min_area, 1)
            if any(counts.values()):
                changed[k] = (top, left, cleaned)
            if report is not None:
                report.add(cell_type, cells=1, cells_dropped=int(not keep[k]), **counts)
        if changed:
            instances = Instances.from_runs(_replace(instances.to_runs(), changed), instances.cell_types)
        return instances if keep.all() else instances.select(keep)

    def _clean(self, mask: Mask) -> tuple[Mask, dict[str, int]]:
        pieces = drop_pieces(mask, self.piece_share) if self.piece_share > 0 else mask
        filled = fill_holes(pieces) if self.holes else pieces
        lost, won = int(mask.sum() - pieces.sum()), int(filled.sum() - pieces.sum())
        return filled, {
            "holes_filled": int(won > 0), "pixels_filled": won, "pieces_dropped": int(lost > 0), "pixels_dropped": lost,
        }  # fmt: skip


def _replace(runs: Runs, masks: dict[int, tuple[int, int, Mask]]) -> Runs:
    """Replace the cells in `masks` (crops: top, left, bool [h, w])."""
    kept = ~np.isin(runs.cell, list(masks))
    parts = [(runs.start[kept], runs.length[kept], runs.cell[kept])]
    for cell, (top, left, mask) in masks.items():
        rows, columns = np.nonzero(mask)
        pixel = (top + rows) * runs.width + left + columns
        first = np.flatnonzero(np.diff(pixel, prepend=-2) != 1)
        parts.append((pixel[first], np.diff(first, append=len(pixel)), np.full(len(first), cell)))
    start, length, cells = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(cells, kind="stable")
    return Runs(start[order], length[order], cells[order], runs.count, runs.height, runs.width)


class CleanedSource:
    """An `ImageSource` whose cells are cleaned; images are the same."""

    def __init__(self, source: ImageSource, cleaning: Cleaning) -> None:
        self.source, self.cleaning = source, cleaning

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the source (dropped images included: indices stay the same)."""
        return self.source.ids

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]."""
        return self.source.image(image_id)

    def instances(self, image_id: str) -> Instances:
        """Return the cleaned cells of an image."""
        return self.cleaning(self.source.instances(image_id))

    def ignored(self, image_id: str) -> Bools | None:
        """Return the pixels of an image that nobody has labelled."""
        return self.source.ignored(image_id)

    def cell_type(self, image_id: str) -> str:
        """Return the name of the image's cell type."""
        return self.source.cell_type(image_id)

"""The cells of an image that is larger than memory: label images and tables of them, no image-sized array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.formats import tables
from sartorius.formats.cells import Cells
from sartorius.structures.arrays import Ints, Scores
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs
from sartorius.structures.windows import Window, group_by_block

if TYPE_CHECKING:
    from pandas import DataFrame

    from sartorius.postprocess.blocks import CellRuns
    from sartorius.structures.detections import Detections
    from sartorius.structures.large_image import ReadRegion


@dataclass(frozen=True)
class LargeCells:
    """The N cells of one image, each with pixels; N may be 0. The counterpart of `Cells` without layers.

    runs: the pixels of the cells, none across the end of a row. cell_types: int64 [N]. scores, cell_type_names,
    pixel_size: as of Cells. read: reads rows and columns of the image, uint8 [h, w], where it is at hand. block: side,
    in pixels, of the squares of cells that are measured at once.
    """

    image_id: str
    runs: Runs
    cell_types: Ints
    scores: Scores
    cell_type_names: tuple[str, ...]
    pixel_size: float | None
    read: ReadRegion | None
    block: int

    @classmethod
    def of(cls, found: CellRuns, detections: Detections, read: ReadRegion | None, block: int) -> LargeCells:
        """Make the cells that post-processing by blocks made of detections."""
        names, pixel_size = detections.cell_type_names, detections.pixel_size
        return cls(found.image_id, found.runs, found.cell_types, found.scores, names, pixel_size, read, block)

    def __len__(self) -> int:
        return self.runs.count

    @cached_property
    def _extents(self) -> Ints:
        """Top, left, bottom and right of each cell, half-open, int64 [N, 4]."""
        row, column = np.divmod(self.runs.start, max(self.runs.width, 1))
        first = np.searchsorted(self.runs.cell, np.arange(len(self)))
        low = [np.minimum.reduceat(at, first) if len(self) else at for at in (row, column)]
        ends = (row + 1, column + self.runs.length)
        return np.stack([*low, *(np.maximum.reduceat(at, first) if len(self) else at for at in ends)], axis=1)

    def parts(self) -> Iterator[tuple[Window, Ints, Cells]]:
        """Yield cells that are near each other: a window that holds them, which they are, and the cells in it.

        The window ends a pixel beyond them, and with the image.
        """
        extents, runs = self._extents, self.runs
        begin = np.searchsorted(runs.cell, np.arange(len(self) + 1))
        for chosen in group_by_block(extents[:, 0], extents[:, 1], runs.width, self.block):
            low, high = extents[chosen, :2].min(axis=0), extents[chosen, 2:].max(axis=0)
            box = Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
            window = box.grown(1, runs.height, runs.width)
            counts = begin[chosen + 1] - begin[chosen]
            at = np.repeat(begin[chosen] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            row, column = np.divmod(runs.start[at], runs.width)
            start = (row - window.top) * window.width + column - window.left
            cell = np.repeat(np.arange(len(chosen)), counts)
            cropped = Runs(start, runs.length[at], cell, len(chosen), window.height, window.width)
            instances = Instances.from_runs(cropped, self.cell_types[chosen])
            grey = None if self.read is None else self.read(window.rows, window.columns)
            name = self.image_id
            yield (
                window, chosen,
                Cells(name, instances, self.scores[chosen], self.cell_type_names, self.pixel_size, grey),
            )  # fmt: skip

    def table(self) -> DataFrame:
        """Measure the cells, a row each: see `tables.CELL_COLUMNS`."""
        import pandas as pd

        found = []
        for window, chosen, cells in self.parts():
            table = cells.table()
            table["label"] = chosen + 1
            table["centroid-0"] += window.top
            table["centroid-1"] += window.left
            top, left, bottom, right = self._extents[chosen].T
            inner = (top > 0) & (left > 0) & (bottom < self.runs.height) & (right < self.runs.width)
            table["touches_border"] = ~inner
            found.append(table)
        if not found:
            return pd.DataFrame(columns=list(tables.CELL_COLUMNS))
        return pd.concat(found).sort_values("label", ignore_index=True)

    def image_row(self) -> dict[str, Any]:
        """Summarise the image as its row of images.csv."""
        return tables.row_of(
            self.image_id,
            (self.runs.height, self.runs.width),
            self.pixel_size,
            self.runs.areas,
            self._covered(),
            self.scores,
            self.cell_types,
            self.cell_type_names,
        )

    def _covered(self) -> int:
        """Count the pixels that any cell covers."""
        order = np.argsort(self.runs.start, kind="stable")
        start, end = self.runs.start[order], (self.runs.start + self.runs.length)[order]
        before = np.maximum.accumulate(np.concatenate((np.zeros(1, np.int64), end)))[:-1]
        return int((end - np.maximum(start, before)).clip(0).sum())

"""Training on each annotated cell: images in chunks of cells.

An epoch passes each cell of the training images once. A sample is a whole image, transformed anew, with a few of its
cells chosen; their squares are cut on the device, so that nothing is saved to disk and neighbours stay around a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.dataset import InstanceDataset, Mix, Target, Transform
from sartorius.data.images import ImageSource
from sartorius.data.pseudo_labels.source import CELL, PseudoLabelled
from sartorius.errors import InputError
from sartorius.structures import checks


class CellChunks(InstanceDataset):
    """Samples of an `InstanceDataset` whose `Target.chosen` are the cells of one chunk of the image.

    counts: annotated cells of each image; one with c cells gives ceil(c / cells_per_sample) samples of nearly equal
    size in each of `passes` passes of an epoch, one without cells none. Cells are assigned to chunks as a
    function of (seed, epoch, image, pass). Dropped ones (cleaning, transform) are in no chunk, which may be empty.

    Raises InputError where cells_per_sample is below 1, or an id is not in the source.
    """

    def __init__(
        self,
        source: ImageSource,
        images: Sequence[str],
        counts: Sequence[int],
        cells_per_sample: int,
        transform: Transform | None = None,
        seed: int = 0,
        passes: int = 1,
        cache_bytes: int = 0,
        mix: Mix | None = None,
        weight: float = 1.0,
    ) -> None:
        checks.whole("data", 1, cells_per_sample=cells_per_sample)
        super().__init__(source, images, transform, seed, passes, cache_bytes, mix, weight)
        self.counts = np.asarray(counts, np.int64)
        self.chunks = -(-self.counts // cells_per_sample)
        self._ends = np.cumsum(self.chunks)

    @property
    def places(self) -> int:
        """The number of chunks of a pass."""
        return int(self.chunks.sum())

    def _place(self, index: int) -> tuple[int, int]:
        repeat, place = divmod(index, self.places)
        return place, repeat

    def sample(self, epoch: int, place: int, repeat: int) -> tuple[Tensor, Target]:
        """Return the sample of one of the chunks, in a pass of its own number."""
        index = int(np.searchsorted(self._ends, place, side="right"))
        image_id, chunks = self.images[index], int(self.chunks[index])
        chunk, numbers = place - int(self._ends[index]) + chunks, repeat * (chunks + 1)
        image, target, kept = self._sample(epoch, image_id, numbers + chunk)
        # the number of this pass that no transform has
        order = self._generator(epoch, image_id, numbers + chunks).permutation(self.counts[index])
        target.chosen = torch.from_numpy(np.flatnonzero(np.isin(kept, np.array_split(order, chunks)[chunk])))
        return image, target


class CellsDataModule(SupervisedDataModule):
    """Training and validation images of one fold; training samples are chunks of at most `cells_per_sample` cells.

    See `SupervisedDataModule`; `train_repeats` is the number of passes over the cells in an epoch. The transform must
    keep whole images (no crop), or an epoch misses the cells outside the crop.
    """

    def __init__(self, root: str | Path, *, cells_per_sample: int, **options: Any) -> None:
        super().__init__(root, **options)
        self.cells_per_sample = cells_per_sample

    def _samples(
        self, source: ImageSource, images: Sequence[str], repeats: int, cache_mb: int, weight: float = 1.0
    ) -> CellChunks:
        if isinstance(source, PseudoLabelled):  # doubtful cells come last
            counts = [len(source.cells(image_id, CELL)) for image_id in images]
            where = str(source.csv)
        else:
            counts = [len(self.competition.record(image_id)) for image_id in images]
            where = f"fold {self.fold} of {self.root}"
        if not sum(counts):
            raise InputError(f"{where}: its {len(counts)} training images have no cells")
        options = (self.train_transform, self.seed, repeats, cache_mb * 2**20, self.copy_paste, weight)
        return CellChunks(source, images, counts, self.cells_per_sample, *options)

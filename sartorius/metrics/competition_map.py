"""The competition's score as a torchmetrics state: rows, gathered over processes."""

from __future__ import annotations

import torch
from torch import Tensor

from sartorius.metrics.functional import ROW_LENGTH, competition_map, deduplicate
from sartorius.metrics.gathered import ImageRows
from sartorius.structures.arrays import Ints


class CompetitionMap(ImageRows):
    """The competition's mAP over all images of all processes, exact however the images are distributed.

    State: one int64 row [13] an image (see `functional`). An image that a distributed sampler repeats counts once.
    """

    TABLES = {"rows": ((ROW_LENGTH,), torch.int64)}  # noqa: RUF012
    rows: list[Tensor]

    def update(self, row: Ints) -> None:
        """Add the row of one image, int64 [13]."""
        self.rows.append(torch.from_numpy(row)[None].to(self.device))

    def gathered_rows(self) -> Ints:
        """Return the rows of all processes, int64 [P, 13], sorted by image, each image once. A collective call."""
        return deduplicate(self._gathered()["rows"].numpy())

    def compute(self) -> Tensor:
        """Return the mean over images of the mean over thresholds, float64 [] on the CPU; NaN without images."""
        rows = deduplicate(self._tables()["rows"].numpy())
        return torch.tensor(competition_map(rows), dtype=torch.float64)

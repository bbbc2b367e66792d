"""The competition's score as a torchmetrics state: rows, gathered over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from sartorius.metrics.functional import ROW_LENGTH, Cells, competition_map, deduplicate, image_row


class CompetitionMap(Metric):
    """The competition's mAP over all images of all processes, exact however they were spread.

    State: one int64 row [13] an image (see `functional`). An image that came twice, as distributed samplers
    make them do, counts once.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: int, predictions: Cells, truth: Cells) -> None:
        """Add one image: its index in the data set, its overlap-free predictions and its cells.

        Takes what `functional.image_row` takes.
        """
        row = torch.from_numpy(image_row(index, predictions, truth))[None]
        self.rows.append(row.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one without images takes part with no rows of the right shape."""
        if not self.rows:
            self.rows.append(torch.zeros((0, ROW_LENGTH), dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def gathered_rows(self) -> NDArray[np.int64]:
        """The rows of all processes, int64 [P, 13], sorted by image, each image once. A collective call."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return self._rows()

    def _rows(self) -> NDArray[np.int64]:
        if isinstance(self.rows, list) and not self.rows:
            return np.zeros((0, ROW_LENGTH), dtype=np.int64)
        return deduplicate(dim_zero_cat(self.rows).cpu().numpy())

    def compute(self) -> Tensor:
        """The mean over images of the mean over thresholds, a float64 scalar on the CPU; NaN without images."""
        return torch.tensor(competition_map(self._rows()), dtype=torch.float64)

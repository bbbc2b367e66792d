"""The torchmetrics state that the scores share: tables of rows per image, gathered over processes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class ImageRows(Metric):
    """A metric whose state is tables with rows per image, concatenated over processes.

    A subclass lists its tables in `TABLES`: name -> (shape of one row, dtype).
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    TABLES: ClassVar[dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in self.TABLES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the tables; a process without images contributes empty tables of the right shape."""
        for name, (shape, dtype) in self.TABLES.items():
            state: Any = self.metric_state[name]
            if not state:
                state.append(torch.zeros((0, *shape), dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def _gathered(self) -> dict[str, Tensor]:
        """Return the tables of all processes by name, on the CPU, in the order of processes. A collective call."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return self._tables()

    def _tables(self) -> dict[str, Tensor]:
        """Return the tables as they are in this process; empty ones without images."""
        tables = {}
        for name, (shape, dtype) in self.TABLES.items():
            state: Any = self.metric_state[name]
            empty = isinstance(state, list) and not state
            tables[name] = torch.zeros((0, *shape), dtype=dtype) if empty else dim_zero_cat(state).cpu()
        return tables

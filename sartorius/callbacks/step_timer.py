"""Time of a few training batches, after which the training stops."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.callbacks.throughput import peak_megabytes


class StepTimer(Callback):
    """Stops a training after `batches` batches. seconds: median from one batch to the next, the first left out.

    On a CPU no longer than its own computing time: what other programs take of the processor does not count.
    megabytes: the largest memory (1e6 bytes) that torch took on a GPU, or the process at all, from their start; 0 where
    the system reports none.
    """

    def __init__(self, batches: int) -> None:
        self._ends: list[tuple[float, float]] = []  # on the clock, of the processor
        self._batches = batches
        self.megabytes = 0.0

    @property
    def seconds(self) -> float:
        """Median seconds of a batch; raises ValueError (statistics) after fewer than two."""
        return median(min(b - a for a, b in zip(*ends, strict=True)) for ends in pairwise(self._ends))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time, and stop after the last batch."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
            self.megabytes = torch.cuda.max_memory_reserved(pl_module.device) / 1e6
            computed = time.perf_counter()
        else:
            self.megabytes = peak_megabytes() or 0.0
            computed = time.process_time()
        self._ends.append((time.perf_counter(), computed))
        trainer.should_stop = len(self._ends) >= self._batches

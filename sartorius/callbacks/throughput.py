"""Speed and memory of a training, logged once an epoch.

Lightning's ThroughputMonitor knows neither cells nor the wait for data, and its DeviceStatsMonitor asks for a hundred
numbers at every step (on a CPU by a package of its own).
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.data.dataset import Batch


class Throughput(Callback):
    """Means over the training batches of an epoch (validation is left out), logged as throughput/<name>:

    images_per_second, cells_per_second: of the training samples, crops count as images; of all processes together.
    seconds_per_batch: from one batch to the next. waiting: share of that time spent on waiting for the batch, 0 to 1.
    memory_mb: the largest resident memory of this process so far, MB (1e6 bytes); absent where the system reports none.
    gpu_memory_mb: the largest GPU memory that torch allocated in this epoch; absent without a GPU.

    Of several processes the largest wait and memory count. A GPU computes while Python waits for the next batch, so
    that `waiting` is the cost of the loaders only where it stays high.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from zero: a run that is resumed within an epoch does not start that one."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from zero."""
        self._batches = self._images = self._cells = 0
        self._waited = self._worked = 0.0
        self._since = time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """End a wait."""
        now = time.perf_counter()
        self._waited, self._since = self._waited + now - self._since, now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count a batch."""
        now = time.perf_counter()
        self._worked, self._since = self._worked + now - self._since, now
        self._batches += 1
        self._images += len(batch.targets)
        self._cells += sum(len(target) for target in batch.targets)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to wait anew: a validation is no wait for training data."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log; a collective call."""
        seconds = self._worked + self._waited
        if not self._batches or seconds <= 0:
            return
        rates = {"images_per_second": self._images / seconds, "cells_per_second": self._cells / seconds}
        most = {"seconds_per_batch": seconds / self._batches, "waiting": self._waited / seconds}
        if (memory := peak_megabytes()) is not None:
            most["memory_mb"] = memory
        if pl_module.device.type == "cuda":
            most["gpu_memory_mb"] = torch.cuda.max_memory_allocated(pl_module.device) / 1e6
        for values, reduce in ((rates, "sum"), (most, "max")):
            for name, value in values.items():
                pl_module.log(
                    f"throughput/{name}", value, batch_size=1, sync_dist=trainer.world_size > 1, reduce_fx=reduce
                )


def peak_megabytes() -> float | None:
    """Return the largest resident memory of this process so far, MB (1e6 bytes); None where the system reports none.

    On Linux from VmHWM: getrusage begins with the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)

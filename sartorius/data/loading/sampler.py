"""The order of an epoch, as (epoch, index) pairs.

The epoch reaches the worker with the index, so randomness is a function of (seed, epoch, image) with any number of
workers, with persistent workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler


class EpochSampler(DistributedSampler[Any]):
    """Yields (epoch, index) for every index below `size`, shuffled anew each epoch; the trainer calls `set_epoch`.

    In a distributed run each rank gets its share, padded with repeats to equal lengths. (Being a DistributedSampler
    keeps Lightning from wrapping it in one that would hide `set_epoch`.)
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(range(size), *_place(), seed=seed)  # type: ignore[arg-type]
        self.skip = 0  # samples of this rank that the next pass leaves out: those trained on before a resume

    def __iter__(self) -> Iterator[Any]:
        size = len(self.dataset)  # type: ignore[arg-type]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(size)
        if size:
            order = np.resize(order, self.total_size)  # repeats from the beginning
        skip, self.skip = self.skip, 0
        for index in order[self.rank : self.total_size : self.num_replicas].tolist()[skip:]:
            yield self.epoch, index


class ShareSampler(DistributedSampler[Any]):
    """Yields the indices below `size` in order; in a distributed run every n-th, and nothing twice.

    A process may get none, where Lightning's sampler for predicting fails.
    """

    def __init__(self, size: int) -> None:
        super().__init__(range(size), *_place(), shuffle=False)  # type: ignore[arg-type]
        self.share = range(self.rank, size, self.num_replicas)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


def _place() -> tuple[int, int]:
    """Find the number of processes of this run, and the rank of this one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0


class LateDataLoader(DataLoader[Any]):
    """A DataLoader that reads its sampler's order at the first batch, not before.

    After a resume Lightning creates the iterator before it tells the sampler its epoch; workers would prefetch the
    order and augmentations of the epoch before.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Tell Lightning that the loader can be resumed within an epoch; `LastCheckpoint` lets the sampler skip."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; the order is a function of the epoch."""

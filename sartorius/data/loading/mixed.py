"""Dataset of two kinds of images: all labelled samples of an epoch, and a share of the pseudo-labelled ones."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from sartorius.data.dataset import InstanceDataset, Target


class MixedDataset(Dataset[tuple[Tensor, Target]]):
    """The samples of `labelled`, then `count` of `pseudo`, continued from epoch to epoch.

    Pseudo-labelled samples come in permutations, each a function of (seed, its number): all equally often (but for one)
    after any number of epochs, and those of an epoch are a function of (seed, epoch).

    Raises IndexError beyond the last.
    """

    def __init__(self, labelled: InstanceDataset, pseudo: InstanceDataset, count: int, seed: int) -> None:
        self.labelled, self.pseudo, self.count, self.seed = labelled, pseudo, count, seed

    def __len__(self) -> int:
        return len(self.labelled) + self.count

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, Target]:
        """Return the sample of (epoch, index), or of an index in epoch 0."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if index < len(self.labelled):
            return self.labelled[epoch, index]
        lap, step = divmod(epoch * self.count + index - len(self.labelled), self.pseudo.places)
        place = np.random.default_rng((self.seed, lap)).permutation(self.pseudo.places)[step]
        return self.pseudo.sample(epoch, int(place), lap)  # a lap is a repeat: no two samples of an image are alike

    def preload(self) -> None:
        """Fill the caches of both."""
        self.labelled.preload()
        self.pseudo.preload()

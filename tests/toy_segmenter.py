"""A module that knows cells by their brightness, and data with a test split: for pixel scores and the test stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.dataset import Batch
from sartorius.structures.detections import Detections
from tests.doubles import ToyModule


class ToySegmenter(ToyModule):
    """Foreground is what is brighter than `level` grey levels: with 150 exactly the cells of `write_competition`."""

    def __init__(self, level: float = 150) -> None:
        super().__init__()
        self.grey_level = level
        self.foreground: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        self.foreground = [torch.sigmoid((image[0].float() - self.grey_level) / 5) for image in batch.images]
        return super().validation_step(batch, batch_idx)

    test_step = validation_step


class TestedData(SupervisedDataModule):
    """The first two validation images are those of the test split too."""

    __test__ = False  # pytest: not a class of tests

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.test_images = self.val_images[:2]

    def test_dataloader(self) -> DataLoader[Any]:
        whole = self.val_dataloader()
        return DataLoader(
            torch.utils.data.Subset(whole.dataset, range(len(self.test_images))), collate_fn=whole.collate_fn
        )

"""A module so small that a whole training takes a second: it "detects" bright pixels around a learned grey level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from sartorius.data.dataset import Batch
from sartorius.modules.base import SegmentationModule
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import saved


@constructible
class ToyModule(SegmentationModule):
    """Learns one number, the mean grey level; detects one box an image whose score is a function of it."""

    def __init__(self, lr: float = 0.1, width: int = 1, cell_type_names: Sequence[str] = CELL_TYPES) -> None:
        super().__init__(cell_type_names)
        self.level = nn.Parameter(torch.zeros(width))
        self.lr = lr
        self.seen: list[str] = []

    @property
    def export_settings(self) -> dict[str, Any]:
        return {"score": 0.1}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen += [target.image_id for target in batch.targets]
        means = torch.stack([image.float().mean() / 255 for image in batch.images])
        noise = torch.rand(()) * 0.01  # depends on the state of the random numbers
        loss = (means.mean() + noise - self.level).square().mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss

    def detect(self, batch: Batch) -> list[Detections]:
        return [self._detect(image, target.image_id) for image, target in zip(batch.images, batch.targets, strict=True)]

    def _detect(self, image: Tensor, image_id: str) -> Detections:
        height, width = image.shape[-2:]
        score = float(torch.sigmoid(self.level.mean()))
        return Detections(
            image_id, height, width, np.array([[5, 4, 20, 10]], np.float32), np.array([score], np.float32),
            np.zeros(1, np.int64), np.ones((1, 4, 4), np.float16), self.cell_type_names,
        )  # fmt: skip

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(1000 + self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Split:
    """A data module that is set up, as far as `provenance` reads it."""

    def __init__(self, train: Sequence[str], val: Sequence[str] = (), pseudo: Sequence[str] = ()) -> None:
        self.train_images, self.val_images, self.pseudo_images, self.test_images = train, val, pseudo, ()

    def place_of(self, image_id: str) -> str:
        return image_id


def toy_config(**model: Any) -> DictConfig:
    """A config with a ToyModule as its model."""
    return OmegaConf.create(
        {
            "seed": 0,
            "data": {"name": "tiny"},
            "postprocess": saved(score=0.1, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0),
            "model": {"_target_": "tests.doubles.ToyModule", "lr": 0.1, **model},
        }
    )

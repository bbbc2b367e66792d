"""A U-Net's network without weights, for images of bright cells: checkpoints that find cells without a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from scipy import ndimage
from torch import Tensor, nn

from sartorius.networks import checkpoints
from sartorius.running import building
from sartorius.structures.arrays import GreyImage
from sartorius.structures.constructible import constructible
from tests.postprocess.pipelines import saved

TILES = {"size": 96, "overlap": 32, "margin": 12, "batch": 4, "join_iou": 0.5}


def blobs(height: int = 600, width: int = 640, seed: int = 0) -> GreyImage:
    """Bright cells of some 15 px, some touching, in an image uint8 [H, W]."""
    rng, plane = np.random.default_rng(seed), np.zeros((height, width))
    number = height * width // 500
    plane[rng.integers(0, height, number), rng.integers(0, width, number)] = rng.uniform(0.6, 1.4, number)
    plane = ndimage.gaussian_filter(plane, 5) * 2 * np.pi * 25
    return np.rint((plane * 110).clip(0, 255)).astype(np.uint8)


@constructible
class Brightness(nn.Module):
    """Logits of maps that follow the brightness of a blurred image, with offsets up its slope."""

    def __init__(self) -> None:
        super().__init__()
        grid = torch.arange(-4.0, 5)
        kernel = torch.exp(-(grid[:, None] ** 2 + grid**2) / 8)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None])

    def forward(self, images: Tensor) -> Tensor:
        light = nn.functional.conv2d(images.float(), self.kernel, padding=4) / 255
        rows, columns = (torch.gradient(light, dim=axis)[0] * 40 for axis in (2, 3))
        foreground, centre = light * 20 - 5, light * 10 - 3
        types = torch.cat([rows.abs(), columns.abs(), light], dim=1)
        return torch.cat([foreground, -foreground.abs(), centre, rows, columns, types], dim=1)


def write_checkpoint(path: Any, **tiles: int) -> None:
    """Write a checkpoint of a U-Net with this network, that predicts by tiles."""
    model = {
        "_target_": "sartorius.modules.unet.UNetModule",
        "network": {"_target_": "tests.bright_unet.Brightness"},
        "layout": {"_target_": "sartorius.networks.cell_maps.MapLayout", "types": 3, "border": 2, "offset_scale": 8.0},
        "decoder": {
            "_target_": "sartorius.postprocess.decoders.Watershed", "foreground_low": 0.3, "smooth": 1.0,
            "border_weight": 0.0, "depth": 0.02, "peak": 0.3, "min_area": 20,
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True},
        "inference": {"_target_": "sartorius.inference.windows.Tiles", **TILES, **tiles},
    }  # fmt: skip
    steps = saved(score=0.5, mask=0.6, mask_nms=0.3, min_area=20, types="image")
    config = OmegaConf.create({"seed": 0, "data": {"name": "blobs"}, "postprocess": steps, "model": model})
    module = building.build_module(config)
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, path)

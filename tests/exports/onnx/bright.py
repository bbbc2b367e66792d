"""A U-Net of a few numbers that finds bright cells, as a trained model to export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sartorius.exports.trained import ModelCard, TrainedModel
from sartorius.inference.windows import Whole
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.two_stage import TwoStageModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Watershed
from tests.bright_unet import blobs
from tests.postprocess.pipelines import saved

LAYOUT = MapLayout(types=3, border=2, centre=True, offset_scale=8.0)
CARD = ModelCard(name="bright", description="Finds bright cells.", authors=["A"], license=None, cite=None, score=None)


def bright_module(**options: Any) -> UNetModule:
    """Channel 0 is the blurred brightness; foreground, centre and types follow it, offsets its slope."""
    settings = {"norm": "none", "channels": [2], "mean": 35.0, "std": 45.0, "scale": 1.0}
    network = UNet(PlainEncoder(2, 1, "none"), LAYOUT, **{**settings, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        first, block, head = network.encoder.blocks[0], network.blocks[0], network.head
        first[0].weight[0, 0], first[2].weight[0, 0] = blur, blur
        first[0].bias.fill_(1.5)
        block[0].weight[0, 4], block[2].weight[0, 0] = blur, blur  # of the channels of the encoder's first block
        head.weight[:, 0, 1, 1] = torch.tensor([4.0, 0.5, 3.0, 0, 0, 0.3, -0.2, 0.1])
        head.weight[3, 0] = torch.tensor([[-0.3, -0.6, -0.3], [0, 0, 0], [0.3, 0.6, 0.3]])
        head.weight[4, 0] = head.weight[3, 0].T
        head.bias[:] = torch.tensor([-8.0, -3, -8, 0, 0, 0, 0.5, 0])
    decoder = Watershed(0.3, 0.3, 0.7, 0.08, 0.2, 20)
    names = ["shsy5y", "astro", "cort"]
    built = UNetModule(
        network,
        LAYOUT,
        decoder,
        torch.optim.SGD,
        cell_type_names=names,
        scheduler=None,
        lr_decay=None,  # type: ignore[arg-type]
    )
    built.inference = Whole()
    return built.eval()


class Inside(nn.Module):
    """Logits of a cell where the crop is bright, more within the box, and of neighbours outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(2, 2, 5, padding=2)
        with torch.no_grad():
            self.blur.weight[0, 0], self.blur.weight[0, 1] = 0.05, 0.15
            self.blur.weight[1, 0], self.blur.weight[1, 1] = 0.05, -0.2
            self.blur.bias.fill_(-2.0)

    def forward(self, crops: Tensor) -> Tensor:
        return self.blur(crops)


def crop_module(body: nn.Module | None = None, **options: Any) -> CropSegmenterModule:
    """A crop segmenter of squares of 24 bins."""
    settings = {"size": 24, "margin": 0.25, "min_side": 12.0, "mean": 35.0, "std": 45.0, "prompt": True}
    network = CropNetwork(body or Inside(), **{**settings, **options})  # type: ignore[arg-type]
    built = CropSegmenterModule(network, torch.optim.SGD, jitter=0.0, low=0.1, mask_size=28, crops_at_once=3)
    return built.eval()


def two_stages(first: nn.Module | None = None, second: CropSegmenterModule | None = None, **options: Any) -> Any:
    """The bright U-Net, and a crop segmenter for its boxes."""
    settings = {"min_score": 0.6, "box_probability": 0.6, "combine": "mean", "mask_size": 32, **options}
    return TwoStageModule(first or bright_module(), second or crop_module(), **settings).eval()  # type: ignore[arg-type]


def bright_model(module: nn.Module | None = None, **metadata: Any) -> TrainedModel:
    """A trained model with all that its cells depend on."""
    known = {
        "model": {"network": {"mean": 35.0, "std": 45.0}},
        "postprocess": saved(score={"default": 0.3}, mask={"astro": 0.6, "default": 0.5}, min_area=15, types="image"),
    }
    return TrainedModel(
        module=module or bright_module(),  # type: ignore[arg-type]
        metadata={**known, **metadata},
        card=CARD,
        example=blobs(120, 150),
        example_name="blobs.png",
        source="bright.ckpt",
    )

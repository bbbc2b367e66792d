"""Segmentation of one cell at a time, in a square around its box that is cropped on the device.

Nothing is saved to disk and nothing is stacked at full size: all squares of an image are cropped by one RoIAlign. The
image is normalised first, so that what lies outside it is 0, the mean grey. Regions stay float32 throughout: in
bfloat16 a coordinate above 256 is rounded to 2 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from sartorius.networks.normalisation import normalise
from sartorius.structures import checks
from sartorius.structures.constructible import constructible


@constructible
class CropNetwork(nn.Module):
    """A network that gives the logits of a cell and of its neighbours in the square around the cell's box.

    body: [B, 1 (2 with prompt), size, size] -> logits [B, 2, size, size]; it gets normalised crops (mean 0, std 1).
    size: pixels of a crop. margin: of the square on each side, as a share of the box's longest side. min_side: of the
    square, image pixels. mean, std: grey levels (0..255) that normalise an image, see `normalise`. prompt: a second
    input channel with the box, without which crossing cells of one square cannot be told apart.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        size: int,
        margin: float,
        min_side: float,
        mean: float | None,
        std: float | None,
        prompt: bool,
    ) -> None:
        super().__init__()
        checks.numbers("model.network", 1, 2048, size=size)
        checks.numbers("model.network", 0, margin=margin)
        checks.positive("model.network", min_side=min_side)
        self.body, self.size, self.margin, self.min_side = body, size, margin, min_side
        self.mean, self.std, self.prompt = mean, std, prompt

    def regions(self, boxes: Tensor) -> Tensor:
        """Make the squares around boxes [N, 4], float32 [N, 4]."""
        return squares(boxes, self.margin, self.min_side)

    def crops(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Make the body's input, float32 [N, 1 (2 with prompt), size, size] of an image [1, H, W] in grey levels."""
        regions = self.regions(boxes)
        grey = crop(normalise(image, self.mean, self.std), regions, self.size)
        return torch.cat((grey, draw_boxes(boxes, regions, self.size)), dim=1) if self.prompt else grey

    def forward(self, crops: Tensor) -> Tensor:
        """Predict logits float32 [N, 2, size, size]: this cell, other cells. N may be 0."""
        if not len(crops):  # norm layers refuse an empty batch
            return crops.new_zeros((0, 2, self.size, self.size))
        logits: Tensor = self.body(crops)
        return logits.float()


def squares(boxes: Tensor, margin: float, min_side: float) -> Tensor:
    """Make squares around the centres of boxes [N, 4], float32 [N, 4]; they may reach outside the image.

    Their side is the longest side of the box and `margin` times that on either side of it, at least `min_side` pixels.
    """
    boxes = boxes.float()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) * (1 + 2 * margin)
    half = side.clamp(min=min_side)[:, None] / 2
    return torch.cat((centre - half, centre + half), dim=1)


def jitter(boxes: Tensor, amount: float, generator: torch.Generator | None = None) -> Tensor:
    """Move every edge of boxes [N, 4] evenly by up to `amount` (0 to below 0.5) of the width or height.

    generator: of the CPU, so that all devices draw the same; None for torch's own. Boxes are never inverted.
    """
    moves = (2 * torch.rand(boxes.shape, generator=generator) - 1) * amount
    return boxes + moves.to(boxes) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def crop(image: Tensor, regions: Tensor, size: int) -> Tensor:
    """Crop an image [C, H, W] to regions [N, 4] by RoIAlign: float32 [N, C, size, size], 0 outside the image."""
    rois = torch.cat((regions.new_zeros((len(regions), 1)), regions), dim=1).float()
    return roi_align(image.float()[None], rois, size, sampling_ratio=0, aligned=True)


def draw_boxes(boxes: Tensor, regions: Tensor, size: int) -> Tensor:
    """Compute the share of each bin of each region that its box covers: float32 [N, 1, size, size] in 0..1."""
    boxes, regions = boxes.float(), regions.float()
    bins = torch.arange(size, device=boxes.device)
    shares = []
    for axis in (0, 1):
        step = (regions[:, axis + 2] - regions[:, axis])[:, None] / size
        low = regions[:, axis, None] + bins * step
        covered = torch.minimum(low + step, boxes[:, axis + 2, None]) - torch.maximum(low, boxes[:, axis, None])
        shares.append((covered / step).clamp(0, 1))
    return (shares[1][:, :, None] * shares[0][:, None, :])[:, None]


def tighten(probability: Tensor, regions: Tensor, low: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Fit boxes around the probability above `low` in each region, within an image of height x width.

    probability: [N, S, S]. Returns boxes float32 [N, 4], a bin wider on each side, since pasting interpolates between
    bins; and bool [N], whether anything was above `low` (the box means nothing where not).
    """
    above, size = probability > low, probability.shape[-1]
    (left, right), (top, bottom) = _span(above.any(dim=1)), _span(above.any(dim=2))
    edges = torch.stack((left - 1, top - 1, right + 1, bottom + 1), dim=1).clamp(0, size)
    step = (regions[:, 2:] - regions[:, :2]) / size
    boxes = regions[:, :2].repeat(1, 2) + edges * step.repeat(1, 2)
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return boxes, above.flatten(1).any(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _span(hit: Tensor) -> tuple[Tensor, Tensor]:
    """Find the first and one past the last True of each row of bool [N, S], int64 [N]."""
    return hit.int().argmax(dim=1), hit.shape[1] - hit.flip(1).int().argmax(dim=1)


def resample(masks: Tensor, boxes: Tensor, new_boxes: Tensor, size: int) -> Tensor:
    """Resample masks [N, M, M] of `boxes` to `new_boxes`: float32 [N, size, size], 0 outside the old box."""
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    within = (new_boxes - boxes[:, :2].repeat(1, 2)) * (masks.shape[-1] / extent).repeat(1, 2)
    rois = torch.cat((torch.arange(len(masks), device=within.device)[:, None].to(within), within), dim=1).float()
    # a fixed number of samples: RoIAlign's own choice has no bound where an old box has hardly any extent
    return roi_align(masks.float()[:, None], rois, size, sampling_ratio=2, aligned=True)[:, 0]

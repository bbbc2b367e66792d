"""Mask R-CNN for small, crowded cells: a backbone with a pyramid, proposals, box and mask heads.

Assembled from torchvision's parts with its state-dict names, so that its weights load; what differs is said in
`rpn`, `roi_heads`, `matching` and `anchors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.backbones import norm_layer
from sartorius.networks.roi_heads import PyramidRoIAlign, RawDetections, RoIHeads, RoITarget
from sartorius.networks.rpn import RegionProposals

DIVISOR = 32  # the coarsest stride of a ResNet: pictures are padded to a multiple


class MaskRCNN(nn.Module):
    """pictures -> losses (training) or detections.

    mean, std: grey levels (0..255) that normalise a picture. scale: pictures are enlarged by this factor before
    everything; boxes and masks come back in picture pixels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RegionProposals,
        roi_heads: RoIHeads,
        *,
        mean: float,
        std: float,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.mean, self.std, self.scale = mean, std, scale

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[RoITarget] | None = None
    ) -> dict[str, Tensor] | list[RawDetections]:
        """images: uint8 or float [1, H, W] in grey levels, of any sizes; targets: one for each image.

        With targets returns the losses loss_objectness, loss_rpn_box, loss_classifier, loss_box, loss_mask (float32
        scalars); without, RawDetections of each picture (possibly of length 0).
        """
        batch = self.normalise(images)
        features = list(self.backbone(batch).values())
        padded = (batch.shape[-2], batch.shape[-1])
        if targets is not None:
            cells = [target.boxes * self.scale for target in targets]
            proposals, losses = self.rpn(features, padded, cells)
            return {**losses, **self.roi_heads.losses(features, proposals, targets, self.scale)}
        proposals, _ = self.rpn(features, padded, None)
        sizes = [(round(image.shape[-2] * self.scale), round(image.shape[-1] * self.scale)) for image in images]
        return self.roi_heads.detect(features, proposals, sizes, self.scale)

    def normalise(self, images: Sequence[Tensor]) -> Tensor:
        """One float batch [B, 3, H, W]: normalised, enlarged, padded at the bottom and the right with the mean grey."""
        ready = []
        for image in images:
            picture = (image.float() - self.mean) / self.std
            if self.scale != 1.0:
                picture = F.interpolate(picture[None], scale_factor=self.scale, mode="bilinear")[0]
            ready.append(picture)
        height, width = (-(-max(p.shape[axis] for p in ready) // DIVISOR) * DIVISOR for axis in (-2, -1))
        batch = torch.stack([F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in ready])
        return batch.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def mask_rcnn(
    backbone: nn.Module,
    anchors: AnchorGrid,
    classes: int,
    *,
    mean: float,
    std: float,
    scale: float,
    norm: str,
    rpn: dict[str, Any],
    roi_heads: dict[str, Any],
    box_align: dict[str, Any],
    mask_align: dict[str, Any],
    box_features: int,
    mask_layers: Sequence[int],
) -> MaskRCNN:
    """Assemble the network: `classes` cell types (background is added), heads on the backbone's `out_channels`.

    box_features: width of the two fully connected layers; mask_layers: channels of the mask head's convolutions; norm:
    of the mask head, as in `backbones.norm_layer`. The other arguments are handed on to the parts.
    """
    channels: int = backbone.out_channels  # type: ignore[assignment]
    box, mask = PyramidRoIAlign(**box_align), PyramidRoIAlign(**mask_align)
    heads = RoIHeads(
        box,
        TwoMLPHead(channels * box.size**2, box_features),
        FastRCNNPredictor(box_features, classes + 1),
        mask,
        MaskRCNNHeads(channels, mask_layers, 1, norm_layer=None if norm == "frozen_batch" else norm_layer(norm)),
        MaskRCNNPredictor(mask_layers[-1], mask_layers[-1], classes + 1),
        **roi_heads,
    )
    network = MaskRCNN(backbone, RegionProposals(anchors, channels, **rpn), heads, mean=mean, std=std, scale=scale)
    return network.to(memory_format=torch.channels_last)

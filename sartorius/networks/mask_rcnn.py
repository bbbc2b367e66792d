"""Mask R-CNN for small, crowded cells: a backbone with a pyramid, proposals, box and mask heads.

Assembled from torchvision's parts with its state-dict names, so that its weights load; the differences stand in `rpn`,
`roi_heads`, `cascade`, `matching` and `anchors`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from sartorius.errors import InputError
from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.backbones import Backbone, norm_layer
from sartorius.networks.cascade import CascadeHeads, CascadePredictor, Stage
from sartorius.networks.normalisation import normalise
from sartorius.networks.roi_heads import PyramidRoIAlign, RawDetections, RoIHeads
from sartorius.networks.rpn import RegionProposals
from sartorius.networks.targets import RoITarget
from sartorius.structures import checks
from sartorius.structures.constructible import constructible

DIVISOR = 32  # the coarsest stride of a ResNet: images are padded to a multiple


class MaskRCNN(nn.Module):
    """A network that gives the losses of images, or their detections.

    mean, std: grey levels (0..255) that normalise an image, see `normalise`. scale: images are enlarged by this factor
    before everything; boxes and masks come back in image pixels.
    """

    def __init__(
        self,
        backbone: Backbone,
        rpn: RegionProposals,
        roi_heads: RoIHeads,
        *,
        mean: float | None,
        std: float | None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        checks.numbers("model.network", 0.1, 16, scale=scale)
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.mean, self.std, self.scale = mean, std, scale

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[RoITarget] | None = None
    ) -> dict[str, Tensor] | list[RawDetections]:
        """Compute losses or detections of images: uint8 or float [1, H, W] in grey levels, of any sizes.

        targets: one for each image. With them returns loss_objectness, loss_rpn_box, loss_classifier, loss_box and
        loss_mask (float32 scalars; of a cascade one classifier and one box a stage); without, RawDetections of each
        image (possibly of length 0).
        """
        batch = self.normalise(images)
        features = list(self.backbone(batch).values())
        padded = (batch.shape[-2], batch.shape[-1])
        if targets is not None:
            proposals, losses = self.rpn(features, padded, targets, self.scale)
            return {**losses, **self.roi_heads.losses(features, proposals, targets, self.scale)}
        proposals, _ = self.rpn(features, padded, None)
        sizes = [(round(image.shape[-2] * self.scale), round(image.shape[-1] * self.scale)) for image in images]
        return self.roi_heads.detect(features, proposals, sizes, self.scale)

    @torch.no_grad()
    def match_anchors(self, image: Tensor, target: RoITarget) -> tuple[Tensor, Tensor]:
        """Match all anchors of an image [1, H, W]: float32 [A, 4] in image pixels, and the cell of each, int64 [A]."""
        batch = self.normalise([image])
        features = list(self.backbone(batch).values())
        anchors = torch.cat(self.rpn.anchors(features, (batch.shape[-2], batch.shape[-1])))
        return anchors / self.scale, self.rpn.match(anchors, [target], self.scale)[0]

    def normalise(self, images: Sequence[Tensor]) -> Tensor:
        """Stack images to a float batch [B, in_channels, H, W], its channels alike: normalised, enlarged, padded at the
        bottom and the right with the mean grey."""
        ready = []
        for image in images:
            normalised = normalise(image, self.mean, self.std)
            if self.scale != 1.0:
                normalised = F.interpolate(normalised[None], scale_factor=self.scale, mode="bilinear")[0]
            ready.append(normalised)
        height, width = (-(-max(p.shape[axis] for p in ready) // DIVISOR) * DIVISOR for axis in (-2, -1))
        batch = torch.stack([F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in ready])
        return batch.expand(-1, self.backbone.in_channels, -1, -1).contiguous(memory_format=torch.channels_last)


@constructible
def mask_rcnn(
    backbone: Backbone,
    anchors: AnchorGrid,
    classes: int,
    *,
    mean: float | None,
    std: float | None,
    scale: float,
    norm: str,
    rpn: dict[str, Any],
    roi_heads: dict[str, Any],
    box_align: dict[str, Any],
    mask_align: dict[str, Any],
    box_features: int,
    mask_layers: Sequence[int],
    mask_size: int = 28,
    cascade: Sequence[dict[str, Any]] | None = None,
) -> MaskRCNN:
    """Assemble the network: `classes` cell types (background is added), heads on the backbone's `out_channels`.

    box_features: width of the two fully connected layers. mask_layers: channels of the mask head's convolutions. norm:
    of the mask head, as in `norm_layer`. mask_size: bins of a mask's side, the size of mask_align doubled once or more
    often. cascade: a dict of `Stage` for each stage, None or empty for a single box head. The other arguments are those
    of the parts. Raises InputError for another mask_size, and for anchors or strides of regions that are not those of
    the backbone's levels.
    """
    channels, strides = backbone.out_channels, backbone.strides
    _check_levels(anchors, strides)
    box, mask = _align("box_align", box_align, strides), _align("mask_align", mask_align, strides)
    stages = [Stage(stage["foreground_iou"], tuple(stage["coder"])) for stage in cascade or ()]
    parts = (
        *(box, *_box_heads(channels * box.size**2, box_features, classes, len(stages)), mask),
        MaskRCNNHeads(channels, mask_layers, 1, norm_layer=None if norm == "frozen_batch" else norm_layer(norm)),
        mask_predictor(mask_layers[-1], classes + 1, mask.size, mask_size),
    )
    options = {**roi_heads, "mask_size": mask_size}
    heads = CascadeHeads(*parts, stages=stages, **options) if stages else RoIHeads(*parts, **options)
    network = MaskRCNN(backbone, RegionProposals(anchors, channels, **rpn), heads, mean=mean, std=std, scale=scale)
    return network.to(memory_format=torch.channels_last)


def _check_levels(anchors: AnchorGrid, strides: Sequence[int]) -> None:
    if anchors.levels != len(strides):
        raise InputError(
            f"model.network.anchors.sizes: {anchors.levels} lists, but the backbone has {len(strides)} levels, of "
            f"strides {list(strides)}; give one list of sizes for each"
        )


def _box_heads(inputs: int, features: int, classes: int, stages: int) -> tuple[nn.Module, nn.Module]:
    """Build box head and predictor; lists of them, one of each for a stage, where there are stages."""
    if not stages:
        return TwoMLPHead(inputs, features), FastRCNNPredictor(features, classes + 1)
    return (
        nn.ModuleList(TwoMLPHead(inputs, features) for _ in range(stages)),
        nn.ModuleList(CascadePredictor(features, classes) for _ in range(stages)),
    )


def mask_predictor(channels: int, classes: int, align: int, size: int) -> nn.Sequential:
    """Build layers [R, channels, align, align] -> logits [R, classes, size, size], a transposed convolution a doubling.

    The first is torchvision's; each after it has half the channels, for its maps are four times as large. Raises
    InputError unless size is align * 2, * 4, ...
    """
    doublings = (size // align).bit_length() - 1
    if doublings < 1 or size != align * 2**doublings:
        raise InputError(
            f"model.network.mask_size={size}: expected {2 * align}, {4 * align}, ...: "
            f"model.network.mask_align.size={align} doubled once or more often"
        )
    if doublings == 1:
        return MaskRCNNPredictor(channels, channels, classes)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for k in range(doublings):
        narrower = channels // 2 if k else channels
        layers[f"conv{5 + k}_mask"] = nn.ConvTranspose2d(channels, narrower, 2, 2)
        layers[f"relu{k or ''}"] = nn.ReLU(inplace=True)
        channels = narrower
    layers["mask_fcn_logits"] = nn.Conv2d(channels, classes, 1)
    for name, parameter in nn.Sequential(layers).named_parameters():  # as torchvision's
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layers)


def _align(key: str, options: dict[str, Any], strides: Sequence[int]) -> PyramidRoIAlign:
    """Align regions on all levels but the last, which is pooled, unless `options` name fewer."""
    given = options["strides"]
    if given is None:
        return PyramidRoIAlign(**{**options, "strides": strides[:-1]})
    if list(given) != list(strides[: len(given)]):
        raise InputError(
            f"model.network.{key}.strides={list(given)}, but the backbone's levels have strides {list(strides)}; "
            "expected null or the first of those"
        )
    return PyramidRoIAlign(**options)

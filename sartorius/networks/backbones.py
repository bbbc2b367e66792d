"""Backbones of a detector: the protocol, and ResNets with a feature pyramid, normalised for how they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from sartorius.errors import InputError
from sartorius.structures.constructible import constructible

GROUP_CHANNELS = 16  # channels a group; He et al. 2018 (Group Normalization, table 3) found 16 as good as 32 groups
STAGES = 5  # of a ResNet that can be frozen: the stem and the four whose features the pyramid takes


class Backbone(Protocol):
    """A network with a feature pyramid.

    in_channels: of the images. out_channels: of every level. strides: of the levels in pixels, from fine to coarse.
    pretrained: whether it was built with trained weights.
    """

    pretrained: bool
    in_channels: int
    out_channels: int
    strides: tuple[int, ...]

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, [B, out_channels, H / stride, W / stride] each, from fine to coarse, of a batch
        [B, in_channels, H, W], H and W multiples of 32. Regions are aligned on those not named "pool..."."""


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """Return the layer of a name: `group` (for networks that start from nothing: batches of one or two images),
    `batch`, or `frozen_batch` (for weights that were trained with batch norm). Raises ValueError for another name."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "group": lambda channels: nn.GroupNorm(norm_groups(channels), channels),
        "batch": nn.BatchNorm2d,
        "frozen_batch": FrozenBatchNorm2d,
    }
    if norm not in layers:
        raise ValueError(f"norm={norm!r} is not one of {', '.join(layers)}")
    return layers[norm]


def norm_groups(channels: int) -> int:
    """Count the groups of `channels` (>= 1): of 16 channels each, or of the next larger number that divides."""
    return next(g for g in range(max(channels // GROUP_CHANNELS, 1), 0, -1) if channels % g == 0)


@constructible
class ResNetPyramid(BackboneWithFPN):
    """torchvision's ResNet `name` (resnet18 ... resnext101_32x8d) with a pyramid of strides 4 to 64, a Backbone.

    It has no weights yet; its levels are called "0", "1", "2", "3", "pool".

    trainable_layers: 0..5, how many of the ResNet's stages learn, counted from the end (5: all). The pyramid is
    normalised too when norm is `group`. finest_stride: 4, or 2: no stride in the stem, so that all strides are half
    as long, for four times the memory and time. stride_in_1x1: bottlenecks step in their first 1x1 convolution, as He
    et al.'s own weights and detectron2's of them (MSRA) do, and not in the 3x3. checkpoint_activations: keep only the
    inputs of the stages and compute the rest again in the backward pass: the same losses and gradients, less memory, a
    tenth more time; running statistics of norm `batch` move twice a step.

    Raises InputError for trainable_layers outside 0..5 and another finest_stride.
    """

    pretrained = False
    in_channels = 3
    out_channels: int
    body: nn.Module

    def __init__(
        self,
        name: str,
        norm: str,
        trainable_layers: int,
        channels: int = 256,
        *,
        finest_stride: int = 4,
        stride_in_1x1: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        check_stages(trainable_layers, finest_stride)
        body = get_model(name, weights=None, norm_layer=norm_layer(norm))
        body.conv1.stride = (finest_stride // 2,) * 2
        for block in body.modules():
            if stride_in_1x1 and isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        if norm != "frozen_batch":
            _zero_last_norms(body)
        _freeze(body, trainable_layers)
        levels = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
        widths = [body.inplanes // 8 * 2**stage for stage in range(4)]
        super().__init__(body, levels, widths, channels, norm_layer=norm_layer(norm) if norm == "group" else None)
        self.strides = tuple(finest_stride * 2**level for level in range(5))
        if checkpoint_activations:
            self.body = _RecomputedStages(self.body, levels)


def check_stages(trainable_layers: int, finest_stride: int) -> None:
    """Raise InputError for values of a backbone's config that no backbone takes."""
    if not 0 <= trainable_layers <= STAGES:
        raise InputError(
            f"model.network.backbone.trainable_layers={trainable_layers}, expected 0 (none learns) to {STAGES} (all)"
        )
    if finest_stride not in (2, 4):
        raise InputError(
            f"model.network.backbone.finest_stride={finest_stride}, expected 4, or 2 (no stride in the stem)"
        )


class _RecomputedStages(IntermediateLayerGetter):
    """The same layers under the same names; the stages' activations are computed again for the backward pass."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = {}
        for name, module in self.items():
            x = checkpoint(module, x, use_reentrant=False) if name.startswith("layer") else module(x)
            if name in self.return_layers:
                features[self.return_layers[name]] = x
        return features


def _freeze(body: nn.Module, trainable_layers: int) -> None:
    learning = ("layer4", "layer3", "layer2", "layer1", "conv1")[:trainable_layers]
    for parameter_name, parameter in body.named_parameters():
        parameter.requires_grad_(trainable_layers == STAGES or parameter_name.startswith(learning))


def _zero_last_norms(body: nn.Module) -> None:
    """Start every residual block as the identity (Goyal et al. 2017, 5.1): training from nothing starts faster."""
    for block in body.modules():
        last = block.bn3 if isinstance(block, Bottleneck) else block.bn2 if isinstance(block, BasicBlock) else None
        if isinstance(last, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.zeros_(last.weight)

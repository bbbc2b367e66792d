"""ResNets with a feature pyramid, normalised for how they start."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from sartorius.errors import InputError

GROUP_CHANNELS = 16  # channels a group; He et al. 2018 (Group Normalization, table 3) found 16 as good as 32 groups


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """`group` (for networks that start from nothing: batches of one or two pictures), `batch`, or `frozen_batch` (for
    weights that were trained with batch norm). Raises ValueError for another name."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "group": lambda channels: nn.GroupNorm(max(channels // GROUP_CHANNELS, 1), channels),
        "batch": nn.BatchNorm2d,
        "frozen_batch": FrozenBatchNorm2d,
    }
    if norm not in layers:
        raise ValueError(f"norm={norm!r} is not one of {', '.join(layers)}")
    return layers[norm]


def resnet_fpn(name: str, norm: str, trainable_layers: int, channels: int = 256) -> BackboneWithFPN:
    """torchvision's ResNet `name` (resnet18 ... resnext101_32x8d), without weights, with a pyramid of strides 4 to 64.

    trainable_layers: 0..5, how many of the ResNet's stages learn, counted from the end (5: all). The pyramid is
    normalised too when norm is `group`. Returns features "0", "1", "2", "3", "pool", each with `channels` channels.
    Raises InputError for trainable_layers outside 0..5.
    """
    body = get_model(name, weights=None, norm_layer=norm_layer(norm))
    if norm != "frozen_batch":
        _zero_last_norms(body)
    _freeze(body, trainable_layers)
    return BackboneWithFPN(
        body,
        {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)},
        [body.inplanes // 8 * 2**stage for stage in range(4)],
        channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=norm_layer(norm) if norm == "group" else None,
    )


def _freeze(body: nn.Module, trainable_layers: int) -> None:
    if not 0 <= trainable_layers <= 5:
        raise InputError(
            f"model.network.backbone.trainable_layers={trainable_layers}, expected 0 (none learns) to 5 (all)"
        )
    learning = ("layer4", "layer3", "layer2", "layer1", "conv1")[:trainable_layers]
    for parameter_name, parameter in body.named_parameters():
        parameter.requires_grad_(trainable_layers == 5 or parameter_name.startswith(learning))


def _zero_last_norms(body: nn.Module) -> None:
    """Every residual block starts as the identity (Goyal et al. 2017, 5.1): training from nothing starts faster."""
    for block in body.modules():
        last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
        if isinstance(last, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.zeros_(last.weight)

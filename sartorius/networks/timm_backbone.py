"""Any timm network with a feature pyramid, as a Backbone of Mask R-CNN."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from timm.layers import BatchNormAct2d, GroupNormAct, freeze_batch_norm_2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from sartorius.errors import InputError
from sartorius.networks.backbones import STAGES, check_stages, norm_groups, norm_layer
from sartorius.networks.encoders import TimmEncoder
from sartorius.structures.constructible import constructible

KEY = "model.network.backbone"
FINEST = 4  # stride of the finest level of a pyramid (Lin et al. 2017, FPN)
LEVELS = 5  # of a pyramid; those that the network lacks are pooled from its coarsest
PROBE = (64, 96)  # pixels; not square, a multiple of 32 as all images are, and not a size that weights come with


@constructible
class TimmPyramid(nn.Module):
    """timm's network `name` (`convnext_tiny`, `resnest50d` ...) with a pyramid of strides 4 to 64, a Backbone.

    Levels are called "0", "1", ..., then "pool" (and "pool1", ...).

    weights: as of `TimmEncoder`. norm: as of `norm_layer`, put in the place of each batch norm of the network (and, if
    `group`, into the pyramid); other norms stay. trainable_layers: 0..5, how many stages learn, counted from the end:
    four whose features the pyramid takes, and before them the stem. in_channels: 1, with weights summed over colours,
    which for grey images is the same as 3. finest_stride, checkpoint_activations: as of `ResNetPyramid`.

    Raises InputError for an unknown name or number, weights that cannot be loaded, and a network that does not take
    images of any size or gives other features than it promises.
    """

    def __init__(
        self,
        name: str,
        weights: str | None,
        norm: str,
        trainable_layers: int,
        channels: int,
        *,
        in_channels: int,
        finest_stride: int,
        checkpoint_activations: bool,
    ) -> None:
        super().__init__()
        check_stages(trainable_layers, finest_stride)
        self.out_channels, self.in_channels = channels, in_channels
        self.pretrained = weights not in (None, "none")
        self.body = TimmEncoder(name, weights, in_channels, key=KEY)
        _replace_batch_norms(self.body, norm)
        _freeze(self.body, trainable_layers)
        if checkpoint_activations:
            _recompute(self.body, name)
        self.taken = [level for level, stride in enumerate(self.body.reductions) if stride >= FINEST]
        self.fpn = FeaturePyramidNetwork(
            [self.body.channels[level] for level in self.taken],
            channels,
            norm_layer=norm_layer(norm) if norm == "group" else None,
        )
        strides = [self.body.reductions[level] for level in self.taken]
        self.pooled = max(LEVELS - len(strides), 1)
        self.strides = tuple(strides + [strides[-1] * 2 ** (k + 1) for k in range(self.pooled)])
        if finest_stride < FINEST:
            self._halve_strides()
        _probe(self, name, finest_stride)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, as Backbone has them."""
        features = self.body(x)
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(k), features[at]) for k, at in enumerate(self.taken)))
        coarsest = levels[str(len(self.taken) - 1)]
        for k in range(self.pooled):
            coarsest = F.max_pool2d(coarsest, 1, 2, 0)
            levels[f"pool{k or ''}"] = coarsest
        return levels

    def _halve_strides(self) -> None:
        """Halve the stride of the network's first strided convolution: all levels become twice as fine."""
        stem = next(m for m in self.body.modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1)
        if stem.kernel_size == stem.stride:  # patches side by side: half of a patch must be added around the image
            stem.padding = tuple(stride // 4 for stride in stem.stride)
        stem.stride = tuple(stride // 2 for stride in stem.stride)
        self.strides = tuple(stride // 2 for stride in self.strides)


def _replace_batch_norms(module: nn.Module, norm: str) -> None:
    """Put `norm` where the network has batch norms, with their activations, weights and names."""
    norm_layer(norm)  # refuses an unknown name, also for networks without batch norms
    if norm == "frozen_batch":
        freeze_batch_norm_2d(module)
    elif norm == "group":
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    parent.add_module(name, _group_norm(child))


def _group_norm(old: nn.BatchNorm2d) -> nn.Module:
    """Replace a batch norm by a group norm. The scale stays: timm lets residual blocks start with one of 0."""
    groups = norm_groups(old.num_features)
    new: nn.Module = nn.GroupNorm(groups, old.num_features, old.eps)
    if isinstance(old, BatchNormAct2d):
        new = GroupNormAct(old.num_features, groups, old.eps, apply_act=False)
        new.add_module("drop", old.drop)
        new.add_module("act", old.act)
    if old.affine:
        new.load_state_dict({"weight": old.weight, "bias": old.bias}, strict=False)
    return new


def _freeze(body: TimmEncoder, trainable_layers: int) -> None:
    names = [name for name, _ in body.body.named_parameters()]
    info: Any = body.body.feature_info
    levels = [module for module, stride in zip(info.module_name(), body.reductions, strict=True) if stride >= FINEST]
    stages = _stages(names, levels)
    for name, parameter in body.body.named_parameters():
        parameter.requires_grad_(stages[name] >= STAGES - trainable_layers)


def _stages(names: list[str], levels: list[str]) -> dict[str, int]:
    """Find the stage of each parameter, 0 (stem) to 4: a level's stage ends with the module that gives its features.

    names: of the parameters, in the order in which the network uses them. levels: modules, by timm's names.
    """
    stages, current = {}, STAGES - 1 - len(levels)
    # how names of a level's parameters begin in timm's wrappers: as it is, flattened, or one level down
    ends = [(f"{level}.", f"{level.replace('.', '_')}.", f"model.{level}.") for level in levels]
    inside = False
    for name in names:
        nearest = next((k for k, end in enumerate(ends) if name.startswith(end)), None)
        if nearest is not None:
            current, inside = STAGES - len(levels) + nearest, True
        elif inside:
            current, inside = min(current + 1, STAGES - 1), False
        stages[name] = current
    return stages


def _recompute(body: TimmEncoder, name: str) -> None:
    # timm: its feature extractors wrap the network, or are it
    owner: Any = body.body.model if isinstance(body.body, FeatureGetterNet) else body.body
    if hasattr(owner, "set_grad_checkpointing"):
        owner.set_grad_checkpointing(True)
        return
    raise InputError(
        f"{KEY}.checkpoint_activations=true: timm's {name} cannot; give false, or another {KEY}.name, such as "
        "convnext_tiny"
    )


def _probe(pyramid: TimmPyramid, name: str, finest_stride: int) -> None:
    """Raise InputError unless the levels of a small image have the sizes that `strides` promise."""
    wanted = [tuple(-(-side // stride) for side in PROBE) for stride in pyramid.strides]
    problem = ""
    sizes: list[tuple[int, ...]] = []
    pyramid.eval()
    try:
        with torch.no_grad():
            sizes = [tuple(f.shape[-2:]) for f in pyramid(torch.zeros(1, pyramid.in_channels, *PROBE)).values()]
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        problem = f" ({' '.join(str(error).split())[:200]})"
    pyramid.train()
    if sizes != wanted or pyramid.strides[0] != finest_stride:
        raise InputError(
            f"{KEY}.name={name}: it does not give a pyramid from stride {finest_stride} on of an image of "
            f"{PROBE[0]} x {PROBE[1]} pixels{problem}; expected levels of {wanted}, got {sizes or 'none'}; choose "
            "another network, such as convnext_tiny or resnet50d"
        )

"""Lower learning rates for the backbone, and for its earlier stages: what was learned on many images moves less."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from torch import nn

from sartorius.errors import InputError


class LayerRates:
    """Factors of the learning rate by parameter.

    backbone: for the whole backbone, as 0.1 in Faster R-CNN's fine-tuning. decay: for every stage that lies between a
    stage and the end of the backbone, the last one counted (0.65 to 0.8 in BEiT and ConvNeXt), so stage k of n has
    backbone * decay^(n - k) with k = 0 for the stem. Both 1: nothing changes. Raises InputError outside 0 (not
    included: freeze with trainable_layers) to 1.
    """

    def __init__(self, decay: float, backbone: float) -> None:
        for name, value in (("decay", decay), ("backbone", backbone)):
            if not 0 < value <= 1:
                raise InputError(f"layer_rates.{name}={value}: expected above 0, at most 1 (1: no effect)")
        self.decay, self.backbone = decay, backbone

    def factors(self, module: nn.Module) -> dict[str, float]:
        """The factor of each parameter of the module's backbone by name; those not named learn at the full rate.

        {} where both options are 1. Raises InputError where the module has no backbone with known stages.
        """
        if self.decay == self.backbone == 1:
            return {}
        depths = backbone_depths(module)
        stages = max(depths.values()) + 1
        return {name: self.backbone * self.decay ** (stages - depth) for name, depth in depths.items()}


def backbone_depths(module: nn.Module) -> dict[str, int]:
    """The stage of each parameter of a module's backbone by name: 0 for the stem, then 1, 2, ... without a gap.

    The backbone is the first part that says which of its parts give features: torchvision's ResNet in a detector,
    timm's networks with features_only, `PlainEncoder`. A plain transformer's stages are its blocks, by timm's own
    grouping. Raises InputError where there is none.
    """
    for prefix, part in module.named_modules():
        if (depths := _depths(part)) is not None:
            processes = {depth: rank for rank, depth in enumerate(sorted(set(depths.values())))}
            return {f"{prefix}.{name}" if prefix else name: processes[depth] for name, depth in depths.items()}
    raise InputError(
        "layer_rates: the model has no backbone whose stages are known (torchvision's ResNet, timm's networks); set "
        "layer_rates.decay=1 layer_rates.backbone=1"
    )


def _depths(part: nn.Module) -> dict[str, int] | None:
    """Depths of a part's parameters, with gaps; None where it is no backbone."""
    from timm.models import group_parameters  # a second, and only where rates differ

    from sartorius.networks.encoders import PlainEncoder

    inner: Any = getattr(part, "model", None)
    if hasattr(part, "feature_info") and hasattr(inner, "group_matcher"):  # timm's FeatureGetterNet
        groups = group_parameters(inner, inner.group_matcher(coarse=False), reverse=True)
        return {f"model.{name}": int(depth) for name, depth in groups.items()}
    if hasattr(part, "feature_info"):
        info: Any = part.feature_info
        return _by_position(part, info.module_name())
    if isinstance(returned := getattr(part, "return_layers", None), Mapping):  # torchvision's IntermediateLayerGetter
        return _by_position(part, list(returned))
    if isinstance(part, PlainEncoder):
        return _by_position(part, [f"blocks.{level}" for level in range(len(part.blocks))])
    return None


def _by_position(part: nn.Module, stages: list[str]) -> dict[str, int]:
    """0 for parameters of what is defined before the first stage, k + 1 for those up to the end of stage k."""
    # timm flattens sequences: "stages.0" may be the child "stages_0"
    places = {name.replace(".", "_"): place for place, (name, _) in enumerate(part.named_modules())}
    ends, first = [], len(places)
    for stage in (name.replace(".", "_") for name in stages):
        inside = [place for name, place in places.items() if name == stage or name.startswith(f"{stage}_")]
        if inside:
            ends.append(max(inside))
            first = min(first, *inside)

    def depth(owner: str) -> int:
        place = places[owner.replace(".", "_")]
        return 0 if place < first else min(bisect_left(ends, place), len(ends) - 1) + 1

    return {name: depth(name.rpartition(".")[0]) for name, _ in part.named_parameters()}

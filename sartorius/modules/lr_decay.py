"""Layer-wise decay of the learning rate: the backbone, and its earlier stages, learn more slowly."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from torch import nn

from sartorius.errors import InputError
from sartorius.structures.constructible import constructible


@constructible
class LRDecay:
    """Factors of the learning rate by parameter.

    backbone: for the whole backbone, as 0.1 in Faster R-CNN's fine-tuning. per_stage: for every stage that lies between
    a stage and the end of the backbone, the last one counted (0.65 to 0.8 in BEiT and ConvNeXt), so stage k of n has
    backbone * per_stage^(n - k) with k = 0 for the stem. Both 1: nothing changes. Raises InputError outside 0 (not
    included: freeze with trainable_layers) to 1.
    """

    def __init__(self, per_stage: float, backbone: float) -> None:
        for name, value in (("per_stage", per_stage), ("backbone", backbone)):
            if not 0 < value <= 1:
                raise InputError(f"lr_decay.{name}={value}: expected above 0, at most 1 (1: no effect)")
        self.per_stage, self.backbone = per_stage, backbone

    def factors(self, module: nn.Module) -> dict[str, float]:
        """Compute the factor of each parameter of the module's backbone by name; others learn at the full rate.

        {} where both options are 1. Raises InputError where the module has no backbone with known stages.
        """
        if self.per_stage == self.backbone == 1:
            return {}
        depths = backbone_depths(module)
        stages = max(depths.values()) + 1
        return {name: self.backbone * self.per_stage ** (stages - depth) for name, depth in depths.items()}


def backbone_depths(module: nn.Module) -> dict[str, int]:
    """Find the stage of each parameter of a module's backbone by name: 0 for the stem, then 1, 2, ... without a gap.

    The backbone is the first part whose stages are known: torchvision's ResNet in a detector, timm's networks with
    features_only, `PlainEncoder`. A plain transformer's stages are its blocks, by timm's own grouping. Raises
    InputError where there is none.
    """
    for prefix, part in module.named_modules():
        if (depths := _depths(part)) is not None:
            stage_of = {depth: stage for stage, depth in enumerate(sorted(set(depths.values())))}
            return {f"{prefix}.{name}" if prefix else name: stage_of[depth] for name, depth in depths.items()}
    raise InputError(
        "lr_decay: the model has no backbone whose stages are known (torchvision's ResNet, timm's networks); set "
        "lr_decay.per_stage=1 lr_decay.backbone=1"
    )


def _depths(part: nn.Module) -> dict[str, int] | None:
    """Find the depths of a part's parameters, with gaps; None where it is no backbone."""
    from timm.models import group_parameters  # a second, and only where rates differ
    from timm.models._features import FeatureGetterNet
    from torchvision.models._utils import IntermediateLayerGetter

    from sartorius.networks.encoders import PlainEncoder

    inner: Any = part.model if isinstance(part, FeatureGetterNet) else None
    if hasattr(inner, "group_matcher"):  # timm: not every network groups its parameters
        groups = group_parameters(inner, inner.group_matcher(coarse=False), reverse=True)
        return {f"model.{name}": int(depth) for name, depth in groups.items()}
    if hasattr(part, "feature_info"):  # timm: its feature extractors have no class in common
        info: Any = part.feature_info
        return _by_position(part, info.module_name())
    if isinstance(part, IntermediateLayerGetter):
        return _by_position(part, list(part.return_layers))
    if isinstance(part, PlainEncoder):
        return _by_position(part, [f"blocks.{level}" for level in range(len(part.blocks))])
    return None


def _by_position(part: nn.Module, stages: list[str]) -> dict[str, int]:
    """Number parameters: 0 for those defined before the first stage, k + 1 for those up to the end of stage k."""
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

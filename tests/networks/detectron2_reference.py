"""The tensors of detectron2's Mask R-CNN R50-FPN 3x, by rule, and what detectron2 computes from them.

Names, shapes and arithmetic as in detectron2's modeling/backbone/resnet.py and fpn.py, proposal_generator/rpn.py and
roi_heads/box_head.py, fast_rcnn.py, mask_head.py.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

BLOCKS = (3, 4, 6, 3)
EPS = 1e-5  # of detectron2's FrozenBatchNorm2d
Shapes = dict[str, tuple[int, ...]]


def norm_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}.norm.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def body_shapes(prefix: str = "backbone.bottom_up.") -> Shapes:
    shapes: Shapes = {f"{prefix}stem.conv1.weight": (64, 3, 7, 7), **norm_shapes(f"{prefix}stem.conv1", 64)}
    inputs = 64
    for stage, blocks in enumerate(BLOCKS):
        inner, outputs = 64 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            place = f"{prefix}res{stage + 2}.{block}"
            convolutions = {
                "conv1": (inner, inputs, 1, 1),
                "conv2": (inner, inner, 3, 3),
                "conv3": (outputs, inner, 1, 1),
            }
            if block == 0:
                convolutions["shortcut"] = (outputs, inputs, 1, 1)
            for name, shape in convolutions.items():
                shapes |= {f"{place}.{name}.weight": shape, **norm_shapes(f"{place}.{name}", shape[0])}
            inputs = outputs
    return shapes


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[1] if name.endswith("deconv") else shape[0],)}


def pyramid_shapes() -> Shapes:
    shapes: Shapes = {}
    for level in (2, 3, 4, 5):
        shapes |= layer(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1)
        shapes |= layer(f"backbone.fpn_output{level}", 256, 256, 3, 3)
    return shapes


def rpn_shapes(anchors: int = 3) -> Shapes:
    head = "proposal_generator.rpn_head"
    return {
        **layer(f"{head}.conv", 256, 256, 3, 3),
        **layer(f"{head}.objectness_logits", anchors, 256, 1, 1),
        **layer(f"{head}.anchor_deltas", 4 * anchors, 256, 1, 1),
    }


def box_shapes(types: int, stage: str = "", boxes: int | None = None) -> Shapes:
    return {
        **layer(f"roi_heads.box_head.{stage}fc1", 1024, 256 * 7 * 7),
        **layer(f"roi_heads.box_head.{stage}fc2", 1024, 1024),
        **layer(f"roi_heads.box_predictor.{stage}cls_score", types + 1, 1024),
        **layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 * types if boxes is None else boxes, 1024),
    }


def mask_shapes(types: int) -> Shapes:
    shapes: Shapes = {}
    for k in (1, 2, 3, 4):
        shapes |= layer(f"roi_heads.mask_head.mask_fcn{k}", 256, 256, 3, 3)
    deconvolution = layer("roi_heads.mask_head.deconv", 256, 256, 2, 2)
    return {**shapes, **deconvolution, **layer("roi_heads.mask_head.predictor", types, 256, 1, 1)}


def mask_rcnn_shapes(types: int = 80) -> Shapes:
    return {**body_shapes(), **pyramid_shapes(), **rpn_shapes(), **box_shapes(types), **mask_shapes(types)}


def values(shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    """Tensors that keep activations in bounds, out of one pool of random numbers: 44 million drawn anew are slow."""
    pool = np.random.default_rng(0).standard_normal(10_007, dtype=np.float32)
    made = {}
    for k, (name, shape) in enumerate(shapes.items()):
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
        start = 1 if name.endswith(("running_var", "norm.weight")) else 0
        made[name] = np.resize(np.roll(pool, 37 * k) * np.float32(scale) + np.float32(start), shape)
    return made


class Reference:
    """What detectron2 computes from such tensors."""

    def __init__(self, state: dict[str, NDArray[np.float32]]) -> None:
        self.state = {name: torch.from_numpy(value) for name, value in state.items()}

    def convolution(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        x = F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), stride, padding)
        if f"{name}.norm.weight" not in self.state:
            return x
        weight, bias, mean, variance = (
            self.state[f"{name}.norm.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (variance + EPS).sqrt() * weight + bias

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """res2 to res5, the strides in the first 1x1 convolutions (STRIDE_IN_1X1)."""
        prefix = "backbone.bottom_up."
        x = F.max_pool2d(self.convolution(x, f"{prefix}stem.conv1", 2, 3).relu(), 3, 2, 1)
        found = []
        for stage, blocks in enumerate(BLOCKS):
            for block in range(blocks):
                place, stride = f"{prefix}res{stage + 2}.{block}.", 2 if stage and not block else 1
                inner = self.convolution(x, f"{place}conv1", stride).relu()
                inner = self.convolution(inner, f"{place}conv2", 1, 1).relu()
                if block == 0:
                    x = self.convolution(x, f"{place}shortcut", stride)
                x = (x + self.convolution(inner, f"{place}conv3")).relu()
            found.append(x)
        return found

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """p2 to p6."""
        features = self.bottom_up(x)
        top = self.convolution(features[3], "backbone.fpn_lateral5")
        inner = [top]
        for level in (4, 3, 2):
            top = self.convolution(features[level - 2], f"backbone.fpn_lateral{level}") + F.interpolate(
                top, scale_factor=2, mode="nearest"
            )
            inner.insert(0, top)
        levels = [self.convolution(x, f"backbone.fpn_output{k + 2}", 1, 1) for k, x in enumerate(inner)]
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]

    def rpn(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness [A, H, W] and deltas [A, 4, H, W] of one image."""
        head = "proposal_generator.rpn_head."
        hidden = self.convolution(feature, f"{head}conv", 1, 1).relu()
        deltas = self.convolution(hidden, f"{head}anchor_deltas")[0]
        return self.convolution(hidden, f"{head}objectness_logits")[0], deltas.unflatten(0, (-1, 4))

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def boxes(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [R, types + 1], background last, and deltas [R, types, 4]."""
        x = self.linear(regions.flatten(1), "roi_heads.box_head.fc1").relu()
        x = self.linear(x, "roi_heads.box_head.fc2").relu()
        deltas = self.linear(x, "roi_heads.box_predictor.bbox_pred").unflatten(1, (-1, 4))
        return self.linear(x, "roi_heads.box_predictor.cls_score").softmax(1), deltas

    def masks(self, regions: Tensor) -> Tensor:
        """Logits [R, types, 28, 28]."""
        x = regions
        for k in (1, 2, 3, 4):
            x = self.convolution(x, f"roi_heads.mask_head.mask_fcn{k}", 1, 1).relu()
        name = "roi_heads.mask_head.deconv"
        x = F.conv_transpose2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], stride=2).relu()
        return self.convolution(x, "roi_heads.mask_head.predictor")

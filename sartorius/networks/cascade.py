"""Cascade R-CNN (Cai & Vasconcelos 2018): three box heads in a row, each on the boxes of the one before.

A box head is best at refining boxes about as good as those it was trained on. Each stage of the cascade gets better
boxes than the one before and is trained with a higher IoU; the score is the mean of all stages. Details and constants
are detectron2's (`CascadeROIHeads`), but for the mask head, which is trained on the last stage's boxes here, as it is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from sartorius.networks.regions import box_losses, label_regions, match_regions, rois_of
from sartorius.networks.roi_heads import RoIHeads
from sartorius.networks.targets import RoITarget


class CascadePredictor(nn.Module):
    """Class logits [R, classes + 1], background first, and one box code [R, 4], whatever the class."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(features, classes + 1)
        self.bbox_pred = nn.Linear(features, 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):  # detectron2's: boxes start as they come
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict logits and codes of the features [R, features]."""
        return self.cls_score(x), self.bbox_pred(x)


class Stage(NamedTuple):
    """The IoU from which a region stands for a cell, and the weights of its box code (centre x, y, log size w, h)."""

    foreground_iou: float
    coder: tuple[float, float, float, float]


class CascadeHeads(RoIHeads):
    """RoIHeads whose `box_head` and `box_predictor` are lists, one of each for a stage.

    stages: IoU and box code of each. The first stage is trained on a sample of the proposals, as RoIHeads; the next on
    all boxes that the one before made of them. The gradient of its features is divided by the number of stages, so that
    the backbone gets as much of it as from a single head. foreground_iou is that of regions for the mask head. Losses
    come by stage: loss_classifier_stage0, loss_box_stage0, ... and loss_mask.
    """

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList

    def __init__(self, *parts: Any, stages: Sequence[Stage], **options: Any) -> None:
        super().__init__(*parts, **options)
        self.stages = tuple(stages)
        self.coders = [BoxCoder(weights=stage.coder) for stage in self.stages]

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[RoITarget], scale: float
    ) -> dict[str, Tensor]:
        """Compute the losses of the proposals [P, 4] (input pixels, `scale` times image pixels) against the targets."""
        losses: dict[str, Tensor] = {}
        regions = self.sampled(proposals, targets, self.stages[0].foreground_iou, scale)
        for k in range(len(self.stages)):
            logits, codes = self._stage(k, features, regions.rois)
            classification, box = box_losses(logits, codes, regions, targets, self.coders[k])
            losses |= {f"loss_classifier_stage{k}": classification, f"loss_box_stage{k}": box}
            last = k + 1 == len(self.stages)
            boxes = self._next_boxes(k, codes, regions.rois, targets, scale)
            wanted_iou = self.foreground_iou if last else self.stages[k + 1].foreground_iou
            matches = [
                match_regions(image_boxes, target, wanted_iou, self.ignored_share, scale)
                for image_boxes, target in zip(boxes, targets, strict=True)
            ]
            regions = label_regions(boxes, matches, targets, scale)
        return {**losses, "loss_mask": self.mask_loss(features, regions, targets, scale)}

    @torch.no_grad()
    def _next_boxes(
        self, k: int, codes: Tensor, rois: Tensor, targets: Sequence[RoITarget], scale: float
    ) -> list[Tensor]:
        """Refine the regions by stage `k`: boxes of each image, inside it, without those that have no area."""
        boxes, image_index = self.coders[k].decode_single(codes, rois[:, 1:]), rois[:, 0]
        result = []
        for index, target in enumerate(targets):
            size = (round(target.layers.shape[-2] * scale), round(target.layers.shape[-1] * scale))
            inside = clip_boxes_to_image(boxes[image_index == index], size)
            result.append(inside[remove_small_boxes(inside, self.min_size)])
        return result

    def classify(
        self, features: Sequence[Tensor], proposals: Tensor, image_index: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Classify as RoIHeads does: by the mean of the stages' class probabilities, and the last stage's boxes."""
        boxes, probabilities = proposals, []
        for k, coder in enumerate(self.coders):
            logits, codes = self._stage(k, features, rois_of(boxes, image_index))
            boxes = clip_boxes_to_image(coder.decode_single(codes, boxes), size)
            probabilities.append(logits.softmax(dim=1))
        return torch.stack(probabilities).mean(dim=0), boxes

    def _stage(self, k: int, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        aligned: Tensor = _ScaledGradient.apply(self.box_align(features, rois), 1 / len(self.stages))
        logits, codes = self.box_predictor[k](self.box_head[k](aligned))
        return logits.float(), codes.float()


class _ScaledGradient(torch.autograd.Function):
    """The input, with its gradient times `factor`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None

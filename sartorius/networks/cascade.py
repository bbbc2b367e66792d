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
from torchvision.ops import clip_boxes_to_image

from sartorius.networks.boxes import BoxCodes, large_enough
from sartorius.networks.matching import BETWEEN, count_true, nth_true
from sartorius.networks.regions import Regions, box_losses, label_regions, match_regions, rois_of
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
        self.coders = nn.ModuleList(BoxCodes(stage.coder) for stage in self.stages)

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[RoITarget], scale: float
    ) -> dict[str, Tensor]:
        """Compute the losses of the proposals [P, 4] (input pixels, `scale` times image pixels) against the targets."""
        losses: dict[str, Tensor] = {}
        regions = self.sampled(proposals, targets, self.stages[0].foreground_iou, scale)
        for k in range(len(self.stages)):
            logits, codes = self._stage(k, features, regions.rois)
            classification, box = box_losses(logits, codes, regions, targets, self._coder(k))
            losses |= {f"loss_classifier_stage{k}": classification, f"loss_box_stage{k}": box}
            last = k + 1 == len(self.stages)
            wanted_iou = self.foreground_iou if last else self.stages[k + 1].foreground_iou
            regions = self._next_regions(k, codes, regions, targets, wanted_iou, scale)
        return {**losses, "loss_mask": self.mask_loss(features, regions, targets, scale)}

    @torch.no_grad()
    def _next_regions(
        self,
        k: int,
        codes: Tensor,
        regions: Regions,
        targets: Sequence[RoITarget],
        foreground_iou: float,
        scale: float,
    ) -> Regions:
        """Refine the regions by stage `k` and match them again: inside the image, without those that have no area and
        those that are left out."""
        boxes = list(self._coder(k).decode(codes, regions.rois[:, 1:]).split(regions.sizes))
        for index, target in enumerate(targets):
            size = (round(target.layers.shape[-2] * scale), round(target.layers.shape[-1] * scale))
            boxes[index] = clip_boxes_to_image(boxes[index], size)
        matches = match_regions(boxes, targets, foreground_iou, self.ignored_share, scale)
        kept = [large_enough(b, self.min_size) & (m != BETWEEN) for b, m in zip(boxes, matches, strict=True)]
        counts = count_true([(mask, mask & (match >= 0)) for mask, match in zip(kept, matches, strict=True)])
        cells = []
        for index, (regions_left, cells_left) in enumerate(counts):
            ranks = torch.arange(regions_left, device=codes.device)
            at = nth_true(kept[index], ranks)
            boxes[index], matches[index] = boxes[index][at], matches[index][at]
            cells.append(nth_true(matches[index] >= 0, ranks[:cells_left]))
        return label_regions(boxes, matches, cells, targets, scale)

    def classify(
        self, features: Sequence[Tensor], proposals: Tensor, image_index: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Classify as RoIHeads does: by the mean of the stages' class probabilities, and the last stage's boxes."""
        boxes, probabilities = proposals, []
        for k in range(len(self.stages)):
            logits, codes = self._stage(k, features, rois_of(boxes, image_index))
            boxes = clip_boxes_to_image(self._coder(k).decode(codes, boxes), size)
            probabilities.append(logits.softmax(dim=1))
        return torch.stack(probabilities).mean(dim=0), boxes

    def _coder(self, k: int) -> BoxCodes:
        coder = self.coders[k]
        assert isinstance(coder, BoxCodes)
        return coder

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

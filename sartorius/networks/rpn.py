"""Region proposals: torchvision's RPN head, our anchors and block-wise matching, thousands of proposals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import batched_nms, clip_boxes_to_image

from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.boxes import BoxCodes, large_enough
from sartorius.networks.finite import check_finite
from sartorius.networks.matching import count_true, match_images, nth_true, sample
from sartorius.networks.targets import RoITarget, leave_out, sample_weights, weighted_sum


class RegionProposals(nn.Module):
    """A head that proposes boxes. State-dict names are those of torchvision's RegionProposalNetwork (`head.*`).

    foreground_iou, background_iou: an anchor is a cell at or above the first, background below the second.
    batch: anchors sampled for the loss, an image; positive_fraction: at most this share of them are cells.
    before_nms: anchors kept per level by score; after_nms: proposals kept per image (training, inference).
    nms_iou: proposals of a level that overlap more are merged. min_size: smallest side of a proposal, pixels.
    ignored_share: an anchor that is no cell is left out of the loss where more of it lies in ignored pixels.
    """

    def __init__(
        self,
        anchors: AnchorGrid,
        channels: int = 256,
        conv_depth: int = 1,
        *,
        foreground_iou: float,
        background_iou: float,
        batch: int,
        positive_fraction: float,
        before_nms: tuple[int, int],
        after_nms: tuple[int, int],
        nms_iou: float,
        min_size: float,
        ignored_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.head = RPNHead(channels, anchors.per_location, conv_depth)
        self.coder = BoxCodes((1.0, 1.0, 1.0, 1.0))
        self.foreground_iou, self.background_iou = foreground_iou, background_iou
        self.batch, self.positive_fraction = batch, positive_fraction
        self.before_nms, self.after_nms = before_nms, after_nms
        self.nms_iou, self.min_size = nms_iou, min_size
        self.ignored_share = ignored_share

    def forward(
        self,
        features: Sequence[Tensor],
        image_size: tuple[int, int],
        targets: Sequence[RoITarget] | None,
        scale: float = 1.0,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Predict proposals float32 [P, 4] of each image, and the losses (empty when `targets` is None).

        features: [B, C, H_l, W_l] of each level; targets: the cells of each image; input pixels are `scale` times
        image pixels.
        """
        anchors = self.anchors(features, image_size)
        scores, deltas = self.head(list(features))
        images = len(features[0])
        logits, codes = concat_box_prediction_layers(list(scores), list(deltas))
        logits, codes = logits.float().reshape(images, -1), codes.float().reshape(images, -1, 4)
        if not self.training:
            check_finite("proposals", logits, codes)
        flat = torch.cat(anchors)
        per_level = [len(level) for level in anchors]
        proposals = self._propose(flat, logits.detach(), codes.detach(), per_level, image_size)
        losses = {} if targets is None else self._losses(flat, logits, codes, targets, scale)
        return proposals, losses

    @torch.no_grad()
    def _propose(
        self, anchors: Tensor, logits: Tensor, codes: Tensor, per_level: Sequence[int], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Choose boxes [P, 4] of each image from logits [B, A] and codes [B, A, 4], best first."""
        inference = int(not self.training)
        images = [self._candidates(anchors, *image, per_level, image_size) for image in zip(logits, codes, strict=True)]
        large = [large_enough(boxes, self.min_size) for boxes, _, _ in images]
        proposals = []
        for image, mask, (count,) in zip(images, large, count_true([[mask] for mask in large]), strict=True):
            kept = nth_true(mask, torch.arange(count, device=mask.device))
            boxes, scores, level_of = (part[kept] for part in image)
            kept = batched_nms(boxes, scores, level_of, self.nms_iou)[: self.after_nms[inference]]
            proposals.append(boxes[kept])
        return proposals

    def _candidates(
        self, anchors: Tensor, logits: Tensor, codes: Tensor, per_level: Sequence[int], image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode an image's best anchors of each level: boxes [K, 4] inside the image, scores [K], levels int64 [K]."""
        most = self.before_nms[int(not self.training)]
        kept, levels, first = [], [], 0
        for level, count in enumerate(per_level):
            top = logits[first : first + count].topk(min(most, count)).indices + first
            kept.append(top)
            levels.append(torch.full_like(top, level))
            first += count
        index = torch.cat(kept)
        boxes = clip_boxes_to_image(self.coder.decode(codes[index], anchors[index]), image_size)
        return boxes, logits[index], torch.cat(levels)

    def match(self, anchors: Tensor, targets: Sequence[RoITarget], scale: float) -> list[Tensor]:
        """Match the anchors [A, 4] (`scale` times image pixels) to each image's cells, int64 [A], as `match_images`."""
        cells = [target.boxes * scale for target in targets]
        candidates = [anchors] * len(targets)
        matches = match_images(candidates, cells, self.foreground_iou, self.background_iou, rescue=True)
        return [
            leave_out(match, anchors, target, self.ignored_share, scale)
            for match, target in zip(matches, targets, strict=True)
        ]

    def _losses(
        self, anchors: Tensor, logits: Tensor, codes: Tensor, targets: Sequence[RoITarget], scale: float
    ) -> dict[str, Tensor]:
        objectness, truth, boxes, wanted = [], [], [], []
        matches = self.match(anchors, targets, scale)
        samples = sample(matches, self.batch, self.positive_fraction)
        for k, (target, match, (positive, negative)) in enumerate(zip(targets, matches, samples, strict=True)):
            objectness.append(logits[k, torch.cat((positive, negative))])
            truth.append(torch.cat((torch.ones_like(logits[k, positive]), torch.zeros_like(logits[k, negative]))))
            boxes.append(codes[k, positive])
            wanted.append(self.coder.encode(target.boxes[match[positive]] * scale, anchors[positive]))
        labels = torch.cat(truth)
        # normalised by all sampled anchors, as in Faster R-CNN; beta 1/9 is torchvision's
        sampled = max(len(labels), 1)
        regression = F.smooth_l1_loss(torch.cat(boxes), torch.cat(wanted), beta=1 / 9, reduction="none")
        classification = F.binary_cross_entropy_with_logits(torch.cat(objectness), labels, reduction="none")
        return {
            "loss_objectness": weighted_sum(classification, sample_weights(targets, truth)) / sampled,
            "loss_rpn_box": weighted_sum(regression, sample_weights(targets, boxes)) / sampled,
        }

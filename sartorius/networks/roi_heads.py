"""Box and mask heads over regions: torchvision's layers and state-dict names, our pixel convention and targets.

torchvision's own RoIHeads hard-codes a mask projection that is half a pixel off, needs a stack of full-size masks,
and cuts features with `aligned=False`. Here regions are cut with `aligned=True` at every step and mask targets are
gathered from the layered label map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes, roi_align

from sartorius.networks.matching import match_boxes, sample
from sartorius.roi_gather import gather_mask_targets


class RoITarget(Protocol):
    """The cells of a picture: boxes float32 [N, 4] in picture pixels, cell types int64 [N], and the layered map."""

    boxes: Tensor
    cell_types: Tensor
    layers: Tensor  # int32 [L, H, W]
    layer_of: Tensor  # int64 [N]
    ids: Tensor  # int64 [N], value of each cell in its layer


class RawDetections(NamedTuple):
    """What the network found in one picture, best first: boxes [N, 4] in picture pixels, scores [N] in 0..1,
    cell_types int64 [N] (0-based), masks [N, M, M] probabilities in box coordinates."""

    boxes: Tensor
    scores: Tensor
    cell_types: Tensor
    masks: Tensor


class PyramidRoIAlign(nn.Module):
    """Cuts regions from the level of the pyramid that suits their size, `aligned=True`.

    strides: of the levels used, pixels. canonical_size: side in pixels of the regions that belong to
    `canonical_level` (0 is the finest); half the side, one level finer (Lin et al. 2017, FPN, eq. 1).
    """

    def __init__(
        self, size: int, sampling_ratio: int, strides: Sequence[int], canonical_size: float, canonical_level: int
    ) -> None:
        super().__init__()
        self.size, self.sampling_ratio, self.strides = size, sampling_ratio, tuple(strides)
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """float32 [R, C, size, size] from rois float32 [R, 5]: picture index, x1, y1, x2, y2.

        Half-precision features are cut in float32: roi_align wants one dtype, and in bfloat16 a coordinate above
        256 is rounded to 2 pixels, which costs a cell of 15 pixels a third of its IoU.
        """
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = torch.floor(self.canonical_level + torch.log2(side / self.canonical_size) + 1e-6)
        level = level.clamp(0, len(self.strides) - 1)
        result: Tensor | None = None
        for k, stride in enumerate(self.strides):
            at = torch.nonzero(level == k).flatten()
            cut = roi_align(features[k].float(), rois[at], self.size, 1 / stride, self.sampling_ratio, aligned=True)
            if result is None:
                result = cut.new_zeros((len(rois), *cut.shape[1:]))
            result = result.index_copy(0, at, cut)
        assert result is not None
        return result


class RoIHeads(nn.Module):
    """Classifies and refines proposals, and segments them. State-dict names are those of torchvision's RoIHeads.

    foreground_iou: a proposal stands for a cell at or above it, for background below. batch: proposals sampled for the
    box loss, a picture; positive_fraction: at most this share are cells; mask_batch: at most so many of those
    go through the mask head. score: detections below it are dropped; nms_iou: detections of any type that overlap
    more are merged; detections: kept at most, a picture.
    """

    def __init__(
        self,
        box_align: PyramidRoIAlign,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_align: PyramidRoIAlign,
        mask_head: nn.Module,
        mask_predictor: nn.Module,
        *,
        foreground_iou: float,
        batch: int,
        positive_fraction: float,
        mask_batch: int,
        score: float,
        nms_iou: float,
        detections: int,
        min_size: float,
    ) -> None:
        super().__init__()
        self.box_align, self.box_head, self.box_predictor = box_align, box_head, box_predictor
        self.mask_align, self.mask_head, self.mask_predictor = mask_align, mask_head, mask_predictor
        self.coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
        self.foreground_iou, self.batch, self.positive_fraction = foreground_iou, batch, positive_fraction
        self.mask_batch = mask_batch
        self.score, self.nms_iou, self.detections, self.min_size = score, nms_iou, detections, min_size

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[RoITarget], scale: float
    ) -> dict[str, Tensor]:
        """Losses of the proposals [P, 4] (input pixels, `scale` times picture pixels) against the targets."""
        rois, labels, codes, owners = [], [], [], []
        for k, (own, target) in enumerate(zip(proposals, targets, strict=True)):
            cells = target.boxes * scale
            own = torch.cat((own, cells))  # so that the heads see every cell from the first step on
            match = match_boxes(own, cells, self.foreground_iou, self.foreground_iou, rescue=False)
            positive, negative = sample(match, self.batch, self.positive_fraction)
            chosen = torch.cat((positive, negative))
            rois.append(_rois(own[chosen], k))
            owners.append(torch.cat((match[positive], torch.full_like(negative, -1))))
            labels.append(torch.cat((target.cell_types[match[positive]] + 1, torch.zeros_like(negative))))
            codes.append(self.coder.encode_single(cells[match[positive]], own[positive]))
        all_rois, label, owner = torch.cat(rois), torch.cat(labels), torch.cat(owners)
        logits, deltas = self._boxes(features, all_rois)
        at = torch.nonzero(label > 0).flatten()
        predicted = deltas.reshape(len(deltas), -1, 4)[at, label[at]]
        # normalised by all sampled proposals, as in Fast R-CNN; beta 1/9 is torchvision's
        box = F.smooth_l1_loss(predicted, torch.cat(codes), beta=1 / 9, reduction="sum") / max(len(label), 1)
        classification = F.cross_entropy(logits, label, reduction="sum") / max(len(label), 1)
        mask = self._mask_loss(features, all_rois, label, owner, targets, scale)
        return {"loss_classifier": classification, "loss_box": box, "loss_mask": mask}

    def _mask_loss(
        self,
        features: Sequence[Tensor],
        rois: Tensor,
        label: Tensor,
        owner: Tensor,
        targets: Sequence[RoITarget],
        scale: float,
    ) -> Tensor:
        chosen, wanted = [], []
        for k, target in enumerate(targets):
            own = torch.nonzero((label > 0) & (rois[:, 0] == k)).flatten()[: self.mask_batch]  # in random order
            cell, size = owner[own], 2 * self.mask_align.size
            chosen.append(own)
            boxes = rois[own, 1:] / scale
            wanted.append(gather_mask_targets(target.layers, target.layer_of[cell], target.ids[cell], boxes, size))
        at = torch.cat(chosen)
        if not len(at):
            return self._masks(features, rois[:1]).sum() * 0.0  # every parameter gets a gradient: what DDP needs
        logits = self._masks(features, rois[at])[torch.arange(len(at), device=at.device), label[at]]
        return F.binary_cross_entropy_with_logits(logits, torch.cat(wanted))

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]], scale: float
    ) -> list[RawDetections]:
        """Detections of each picture; one for each proposal at most: of its likeliest cell type.

        sizes: (height, width) of each picture in input pixels, without padding: where its boxes end.

        The competition's metric does not look at the type, so the score is the probability of being any cell.
        """
        result = []
        for k, (own, size) in enumerate(zip(proposals, sizes, strict=True)):
            logits, deltas = self._boxes(features, _rois(own, k))
            probability = logits.softmax(dim=1)
            cell_type = probability[:, 1:].argmax(dim=1)
            score = 1 - probability[:, 0]
            codes = deltas.reshape(len(deltas), -1, 4)[torch.arange(len(own), device=own.device), cell_type + 1]
            boxes = clip_boxes_to_image(self.coder.decode_single(codes, own), size)
            kept = torch.nonzero(score >= self.score).flatten()
            kept = kept[remove_small_boxes(boxes[kept], self.min_size)]
            kept = kept[batched_nms(boxes[kept], score[kept], torch.zeros_like(kept), self.nms_iou)[: self.detections]]
            boxes, score, cell_type = boxes[kept], score[kept], cell_type[kept]
            masks = self._masks(features, _rois(boxes, k))[torch.arange(len(kept), device=own.device), cell_type + 1]
            result.append(RawDetections(boxes / scale, score, cell_type, masks.sigmoid()))
        return result

    def _boxes(self, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_align(features, rois)))
        return logits.float(), deltas.float()

    def _masks(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Logits float32 [R, classes, M, M]."""
        masks: Tensor = self.mask_predictor(self.mask_head(self.mask_align(features, rois)))
        return masks.float()


def _rois(boxes: Tensor, picture: int) -> Tensor:
    return torch.cat((torch.full_like(boxes[:, :1], picture), boxes), dim=1)

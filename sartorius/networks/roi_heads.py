"""Box and mask heads over regions: torchvision's layers and state-dict names, our pixel convention and targets.

torchvision's own RoIHeads hard-codes a mask projection that is half a pixel off, needs a stack of full-size masks,
and aligns features with `aligned=False`. Here every RoIAlign has `aligned=True` and mask targets are gathered from the
layered label map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from sartorius.networks.boxes import BoxCodes, large_enough
from sartorius.networks.finite import check_finite
from sartorius.networks.losses import bce_dice
from sartorius.networks.matching import count_true, sample
from sartorius.networks.regions import Regions, box_losses, label_regions, match_regions, rois_of
from sartorius.networks.targets import RoITarget, cell_masks, certain_bins, sample_weights
from sartorius.structures import checks


class RawDetections(NamedTuple):
    """Detections of one image, best first: boxes [N, 4] in image pixels, scores [N] in 0..1,
    cell_types int64 [N] (0-based), masks [N, M, M] probabilities in box coordinates.

    found: how many there were before the best N were kept.
    """

    boxes: Tensor
    scores: Tensor
    cell_types: Tensor
    masks: Tensor
    found: int = 0


class PyramidRoIAlign(nn.Module):
    """RoIAlign on the level of the pyramid that suits the size of a region, `aligned=True`.

    strides: of the levels used, pixels. canonical_size: side in pixels of the regions that belong to
    `canonical_level` (0 is the finest); half the side, one level finer (Lin et al. 2017, FPN, eq. 1).
    """

    def __init__(
        self, size: int, sampling_ratio: int, strides: Sequence[int], canonical_size: float, canonical_level: int
    ) -> None:
        super().__init__()
        checks.numbers("model.network.mask_align", 1, 256, size=size)
        self.size, self.sampling_ratio, self.strides = size, sampling_ratio, tuple(strides)
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Align float32 [R, C, size, size] in rois float32 [R, 5]: image index, x1, y1, x2, y2.

        Half-precision features are aligned in float32: roi_align wants one dtype, and in bfloat16 a coordinate above
        256 is rounded to 2 pixels, which costs a cell of 15 pixels a third of its IoU.
        """
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = torch.floor(self.canonical_level + torch.log2(side / self.canonical_size) + 1e-6)
        level = level.clamp(0, len(self.strides) - 1)
        (counts,) = count_true([[level == k for k in range(len(self.strides))]])
        at = level.argsort(stable=True)[: sum(counts)]  # NaN is last: on no level, such a region stays 0
        parts = zip(features, rois[at].split(counts), self.strides, strict=False)
        aligned = torch.cat(
            [
                roi_align(maps.float(), part, self.size, 1 / stride, self.sampling_ratio, aligned=True)
                for maps, part, stride in parts
            ]
        )
        return aligned.new_zeros((len(rois), *aligned.shape[1:])).index_copy_(0, at, aligned)


class RoIHeads(nn.Module):
    """Heads that classify, refine and segment proposals. State-dict names are those of torchvision's RoIHeads.

    mask_predictor gives masks of mask_size x mask_size bins. foreground_iou: a proposal stands for a cell at or above
    it, for background below. batch: proposals sampled for the box loss, an image; positive_fraction: at most this
    share are cells; mask_batch: at most so many of those go through the mask head. score: detections below it are
    dropped; nms_iou: detections of any type that overlap more are merged; detections: kept at most, an image.
    min_size: shortest side of a detection, pixels. rerank: `mask` multiplies the scores of kept detections by
    `maskness`, `none` leaves them. ignored_share: a proposal that is no cell is left out of the losses where more of it
    lies in ignored pixels.
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
        ignored_share: float = 0.5,
        rerank: str = "none",
        mask_size: int = 28,
    ) -> None:
        super().__init__()
        checks.one_of("model.network.roi_heads", ("none", "mask"), rerank=rerank)
        self.box_align, self.box_head, self.box_predictor = box_align, box_head, box_predictor
        self.mask_align, self.mask_head, self.mask_predictor = mask_align, mask_head, mask_predictor
        self.coder = BoxCodes((10.0, 10.0, 5.0, 5.0))
        self.foreground_iou, self.batch, self.positive_fraction = foreground_iou, batch, positive_fraction
        self.mask_batch, self.ignored_share = mask_batch, ignored_share
        self.rerank, self.mask_size = rerank, mask_size
        self.score, self.nms_iou, self.detections, self.min_size = score, nms_iou, detections, min_size

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[RoITarget], scale: float
    ) -> dict[str, Tensor]:
        """Compute the losses of the proposals [P, 4] (input pixels, `scale` times image pixels) against the targets."""
        regions = self.sampled(proposals, targets, self.foreground_iou, scale)
        logits, deltas = self._boxes(features, regions.rois)
        own_class = torch.arange(len(deltas), device=deltas.device), regions.label
        codes = deltas.unflatten(1, (-1, 4))[own_class]
        classification, box = box_losses(logits, codes, regions, targets, self.coder)
        mask = self.mask_loss(features, regions, targets, scale)
        return {"loss_classifier": classification, "loss_box": box, "loss_mask": mask}

    def sampled(
        self, proposals: Sequence[Tensor], targets: Sequence[RoITarget], foreground_iou: float, scale: float
    ) -> Regions:
        """Draw random proposals of each image, cells first; the cells' own boxes are among those drawn from."""
        # so that the heads are trained on every cell from the first step on
        candidates = [torch.cat((boxes, t.boxes * scale)) for boxes, t in zip(proposals, targets, strict=True)]
        matches = match_regions(candidates, targets, foreground_iou, self.ignored_share, scale)
        samples = sample(matches, self.batch, self.positive_fraction)
        chosen = [torch.cat(image) for image in samples]
        boxes = [image[at] for image, at in zip(candidates, chosen, strict=True)]
        matches = [image[at] for image, at in zip(matches, chosen, strict=True)]
        cells = [torch.arange(len(positive), device=positive.device) for positive, _ in samples]
        return label_regions(boxes, matches, cells, targets, scale)

    def mask_loss(
        self, features: Sequence[Tensor], regions: Regions, targets: Sequence[RoITarget], scale: float
    ) -> Tensor:
        """Compute the mean cross-entropy of masks of regions that stand for a cell, `mask_batch` an image at most."""
        chosen = [cells[: self.mask_batch] for cells in regions.cells]  # in random order
        at, rois = torch.cat(chosen), regions.rois
        if not len(at):
            return self._masks(features, rois[:1]).sum() * 0.0  # every parameter gets a gradient: what DDP needs
        owners, boxes = [regions.owner[image] for image in chosen], [rois[image, 1:] / scale for image in chosen]
        wanted = cell_masks(targets, owners, boxes, self.mask_size)
        logits = self._masks(features, rois[at])[torch.arange(len(at), device=at.device), regions.label[at]]
        certain = certain_bins(targets, boxes, self.mask_size)
        return bce_dice(logits, wanted, dice=0.0, certain=certain, samples=sample_weights(targets, boxes))

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]], scale: float
    ) -> list[RawDetections]:
        """Detect the cells of each image; one for each proposal at most: of its likeliest cell type.

        sizes: (height, width) of each image in input pixels, without padding: where its boxes end.

        The competition's metric ignores the type, so the score is the probability of being any cell.
        """
        result = []
        for k, (boxes, size) in enumerate(zip(proposals, sizes, strict=True)):
            probability, boxes = self.classify(features, boxes, k, size)
            check_finite("boxes", probability, boxes)
            cell_type = probability[:, 1:].argmax(dim=1)
            score = 1 - probability[:, 0]
            kept = torch.nonzero((score >= self.score) & large_enough(boxes, self.min_size)).flatten()
            kept = kept[batched_nms(boxes[kept], score[kept], torch.zeros_like(kept), self.nms_iou)]
            found, kept = len(kept), kept[: self.detections]
            boxes, score, cell_type = boxes[kept], score[kept], cell_type[kept]
            logits = self._masks(features, rois_of(boxes, k))
            masks = logits[torch.arange(len(kept), device=kept.device), cell_type + 1].sigmoid()
            check_finite("masks", masks)
            raw = RawDetections(boxes / scale, score, cell_type, masks, found)
            result.append(raw if self.rerank == "none" else reranked(raw))
        return result

    def classify(
        self, features: Sequence[Tensor], proposals: Tensor, image_index: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Classify an image's proposals [P, 4]: probabilities [P, classes + 1], background first, and refined boxes
        [P, 4], which end where the image of `size` (height, width) does."""
        logits, deltas = self._boxes(features, rois_of(proposals, image_index))
        probability = logits.softmax(dim=1)
        likeliest = torch.arange(len(deltas), device=deltas.device), probability[:, 1:].argmax(dim=1) + 1
        codes = deltas.unflatten(1, (-1, 4))[likeliest]
        return probability, clip_boxes_to_image(self.coder.decode(codes, proposals), size)

    def _boxes(self, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_align(features, rois)))
        return logits.float(), deltas.float()

    def _masks(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Predict logits float32 [R, classes, M, M]."""
        masks: Tensor = self.mask_predictor(self.mask_head(self.mask_align(features, rois)))
        return masks.float()


def maskness(masks: Tensor) -> Tensor:
    """Compute the certainty of masks, float32 [N] in 0..1, from probabilities [N, M, M].

    The mean probability over the pixels above 1/2 (Wang et al. 2020, SOLO, 3.3.2), 0 where there are none.
    """
    inside = masks > 0.5
    return torch.where(inside, masks, 0.0).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def reranked(raw: RawDetections) -> RawDetections:
    """Rerank detections with score times `maskness` as their score, best first."""
    score = raw.scores * maskness(raw.masks)
    order = score.argsort(descending=True, stable=True)
    return RawDetections(raw.boxes[order], score[order], raw.cell_types[order], raw.masks[order], raw.found)

"""Training and inference of a network that segments one cell at a time, in a square around its box."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sartorius.errors import InputError
from sartorius.modules.optimisation import TrainedModule, TrainingOptions
from sartorius.networks.cell_crops import CropNetwork, crop, jitter, resample, tighten
from sartorius.networks.finite import check_finite
from sartorius.networks.losses import bce_dice, sum_losses
from sartorius.networks.targets import cell_masks, certain_bins, sample_weights
from sartorius.structures import checks
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.visualise.targets import CROPS, Panel, crop_panel

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch, Target
    from sartorius.structures.arrays import ColourImage


@constructible
class CropSegmenterModule(TrainedModule):
    """A network that gives the logits of a cell and of its neighbours in the square around a box.

    It detects nothing: it is trained and validated on the annotated boxes, jittered as a detector's are, and used
    through `two_stage`. Detections of a validation are those boxes segmented, in the order of the cells.

    jitter: share of its width or height by which each edge of a box is moved at most, as a function of the seed and the
    step, or in validation the image. low: probability above which a pixel is inside the predicted box. mask_size: of
    the predicted masks. crops_at_once: squares through the network together outside training. optimizer, options: as in
    TrainedModule; loss terms are loss_cell and loss_neighbours.
    """

    network: CropNetwork

    def __init__(
        self,
        network: CropNetwork,
        optimizer: Callable[..., Optimizer],
        *,
        jitter: float,
        low: float,
        mask_size: int,
        crops_at_once: int,
        **options: Unpack[TrainingOptions],
    ) -> None:
        checks.numbers("model", 1, 512, mask_size=mask_size)
        if not 0 <= jitter < 0.5:
            raise InputError(f"model.jitter={jitter}: expected 0 to below 0.5, where a box could vanish")
        super().__init__(network, optimizer, **options)
        self.jitter, self.low, self.mask_size, self.crops_at_once = jitter, low, mask_size, crops_at_once

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of the chosen cells of all images together. Stops on a loss that is not finite.

        Bins of a crop that hold ignored pixels are left out, and a crop counts with the weight of its image.
        """
        chosen = [_chosen(target) for target in batch.targets]
        boxes = [jitter(target.boxes[at], self.jitter) for target, at in zip(batch.targets, chosen, strict=True)]
        regions = [self.network.regions(image) for image in boxes]
        crops = torch.cat([self.network.crops(*sample) for sample in zip(batch.images, boxes, strict=True)])
        if not len(crops):  # DDP needs a gradient of every parameter, of 0 here; norms get no empty batch
            return torch.stack([p.sum() for p in self.network.parameters()]).sum() * 0.0
        truth = self._truth(batch.targets, chosen, regions)
        certain = certain_bins(batch.targets, regions, self.network.size)
        weights = sample_weights(batch.targets, regions)
        return self.total(self._losses(self.network(crops), truth, certain, weights), batch, len(crops))

    def _truth(self, targets: Sequence[Target], chosen: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """Compute the coverage of each image's chosen cells, and of all others, in their regions: float32
        [n, 2, S, S] in 0..1, of all images."""
        size = self.network.size
        cell = cell_masks(targets, chosen, regions, size)
        masks = [(target.layers > 0).any(dim=0, keepdim=True).float() for target in targets]
        every = torch.cat([crop(*image, size)[:, 0] for image in zip(masks, regions, strict=True)])
        return torch.stack((cell, (every - cell).clamp(min=0)), dim=1)

    def _losses(
        self, logits: Tensor, truth: Tensor, certain: Tensor | None = None, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        names = ("loss_cell", "loss_neighbours")
        return {
            name: bce_dice(logits[:, k], truth[:, k], certain=certain, samples=weights) for k, name in enumerate(names)
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Segment the cells of every image in their order, from their jittered boxes, all with score 1.

        Logs val/loss, and val/crop_iou and val/crop_dice of the cell in crop pixels, means over cells; bins that hold
        ignored pixels are left out.
        """
        detections = []
        for image, target in zip(batch.images, batch.targets, strict=True):
            boxes = self.given_boxes(target)
            logits = self.segment(image, boxes)
            check_finite(f"image {target.image_id}", logits)
            if len(target):
                every, regions = torch.arange(len(target), device=boxes.device), [self.network.regions(boxes)]
                certain = certain_bins([target], regions, self.network.size)
                self._log_validation(logits, self._truth([target], [every], regions), certain)
            detections.append(self._detections(logits, image, target, boxes))
        return detections

    def _log_validation(self, logits: Tensor, truth: Tensor, certain: Tensor | None) -> None:
        loss = sum_losses(self._losses(logits, truth, certain), self.loss_weights)
        predicted, true = logits[:, 0] > 0, truth[:, 0] > 0.5
        if certain is not None:
            predicted, true = predicted & (certain > 0), true & (certain > 0)
        shared, total = (predicted & true).sum((1, 2)), predicted.sum((1, 2)) + true.sum((1, 2))
        scores = {
            "val/loss": loss,
            "val/crop_iou": (shared / (total - shared).clamp(min=1)).mean(),
            "val/crop_dice": (2 * shared / total.clamp(min=1)).mean(),
        }
        self.log_scores(scores, len(truth))

    def given_boxes(self, target: Target) -> Tensor:
        """Make the boxes of an image's cells, jittered as a function of (seed, image): float32 [N, 4]."""
        key = np.random.SeedSequence((self.seed, zlib.crc32(target.image_id.encode())))
        generator = torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0]))
        return jitter(target.boxes, self.jitter, generator)

    def target_panels(self, image: Tensor, target: Target, canvas: ColourImage, scale: int) -> list[Panel]:
        """Draw the crops of the chosen cells with jittered boxes, with their targets."""
        boxes = self.given_boxes(target)
        chosen = _chosen(target)[:CROPS]
        crops = self.network.crops(image, boxes[chosen])
        truth = self._truth([target], [chosen], [self.network.regions(boxes[chosen])])
        return [crop_panel(crops.numpy(), truth.numpy())]

    def segment(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Predict logits float32 [N, 2, S, S] in the squares around boxes of an image [1, H, W], in portions."""
        parts = [self.network(self.network.crops(image, part)) for part in boxes.split(self.crops_at_once)]
        return torch.cat(parts)

    def masks(
        self, logits: Tensor, boxes: Tensor, height: int, width: int, mask_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fit boxes around the cells that were segmented from `boxes`, and masks in them.

        Returns boxes float32 [N, 4] around probabilities above `low`, masks float32 [N, mask_size, mask_size] of
        probabilities, and bool [N], whether there were any: where not, box and mask are without meaning.
        """
        regions, probability = self.network.regions(boxes), logits[:, 0].sigmoid()
        tight, filled = tighten(probability, regions, self.low, height, width)
        return tight, resample(probability, regions, tight, mask_size), filled

    def _detections(self, logits: Tensor, image: Tensor, target: Target, boxes: Tensor) -> Detections:
        height, width = image.shape[-2:]
        tight, masks, filled = self.masks(logits, boxes, height, width, self.mask_size)
        limit = boxes.new_tensor([width, height, width, height])
        tight = torch.where(filled[:, None], tight, torch.minimum(boxes.clamp(min=0), limit))
        return Detections(
            target.image_id,
            height,
            width,
            tight.float().cpu().numpy(),
            np.ones(len(target), np.float32),
            target.cell_types.cpu().numpy(),
            (masks * filled[:, None, None]).half().cpu().numpy(),
            self.cell_type_names,
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Raise InputError: the model needs boxes."""
        raise InputError(
            "a crop segmenter needs boxes: predict with model=two_stage model.first=<a detector's checkpoint or a "
            "folder of detections> model.second=<this checkpoint>"
        )


def _chosen(target: Target) -> Tensor:
    """Get the indices of the cells to train on, int64 [n], on the device of the target."""
    return torch.arange(len(target), device=target.ids.device) if target.chosen is None else target.chosen

"""Training and inference of a Mask R-CNN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from sartorius.errors import InputError
from sartorius.inference.windows import Whole, Windows
from sartorius.modules.optimisation import TrainedModule, TrainingOptions
from sartorius.networks.finite import NonFiniteOutputError
from sartorius.networks.mask_rcnn import MaskRCNN
from sartorius.networks.matching import BETWEEN
from sartorius.networks.roi_heads import RawDetections
from sartorius.networks.weights import load_weights
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.mask_sampling import gather_mask_targets
from sartorius.visualise.targets import Panel, anchor_panel, mask_panel

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch, Target
    from sartorius.structures.arrays import ColourImage


@constructible
class MaskRCNNModule(TrainedModule):
    """A network that gives losses with targets and RawDetections without.

    weights: "none", "coco", "imagenet" or a file, see `load_weights`; "imagenet" changes nothing where the backbone was
    built with trained weights. detector, body: torchvision's names of the models whose weights "coco" and "imagenet"
    are, None where there are none. class_mapping: our cell types -> those of the file, where they are called
    differently. inference: the windows through which images are predicted; None for whole images. optimizer, options:
    as in TrainedModule.
    """

    network: MaskRCNN
    inference: Windows

    def __init__(
        self,
        network: MaskRCNN,
        optimizer: Callable[..., Optimizer],
        *,
        weights: str | None = "none",
        detector: str | None = "maskrcnn_resnet50_fpn",
        body: str | None = "resnet50",
        class_mapping: dict[str, str] | None = None,
        inference: Windows | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(network, optimizer, **options)
        self.inference = inference or Whole()
        self.capped: dict[str, int] = {}
        if weights not in (None, "none") and not (weights == "imagenet" and network.backbone.pretrained):
            self.started_from = load_weights(network, str(weights), detector, body, self.cell_type_names, class_mapping)

    @property
    def export_settings(self) -> dict[str, Any]:
        """The thresholds below which the network does not report a detection."""
        heads = self.network.roi_heads
        return {"score": heads.score, "box_nms": heads.nms_iou, "detections": heads.detections}

    def take_capped(self) -> str | None:
        """Name the images, detected since the last call, of which not all detections were kept; None for none."""
        capped, self.capped = self.capped, {}
        if not capped:
            return None
        most, limit = max(capped, key=lambda image_id: capped[image_id]), self.network.roi_heads.detections
        named = ", ".join(sorted(capped)[:5]) + (", ..." if len(capped) > 5 else "")
        return (
            f"more detections than the {limit} best that are kept: in {len(capped)} images ({named}), up to "
            f"{capped[most]} in {most}; inference=tiles keeps {limit} of each tile, and "
            "model.network.roi_heads.detections= raises it for a training"
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the sum of the losses, logged as train/loss and train/<term>. Stops on a loss that is not finite."""
        losses: dict[str, Tensor] = self.network(batch.images, batch.targets)
        return self.total(losses, batch)

    def detect(self, batch: Batch) -> list[Detections]:
        """Detect the cells of every image: NumPy, on the CPU; an image may have none."""
        return [
            self.inference.detect(partial(self._detect, target.image_id), image, target.image_id)
            for image, target in zip(batch.images, batch.targets, strict=True)
        ]

    def target_panels(self, image: Tensor, target: Target, canvas: ColourImage, scale: int) -> list[Panel]:
        """Draw the anchors that stand for cells, and the mask targets of the annotated boxes, each in its box."""
        anchors, match = self.network.match_anchors(image, target)
        size = self.network.roi_heads.mask_size
        masks = gather_mask_targets(target.layers, target.layer_of, target.ids, target.boxes, size)
        boxes = target.boxes.numpy()
        return [
            anchor_panel(anchors.numpy(), match.numpy(), BETWEEN, boxes, canvas, scale),
            mask_panel(masks.numpy(), boxes, canvas, scale),
        ]

    def memory_advice(self, stage: str) -> list[str]:
        """Advise fewer regions, and stages of the backbone computed again."""
        if stage != "training":
            return ["a lower model.network.roi_heads.detections"]
        return [
            "model.network.backbone.checkpoint_activations=true (slower)",
            "lower model.network.roi_heads.batch and mask_batch",
        ]

    def _detect(self, image_id: str, image: Tensor) -> Detections:
        """Detect the cells of an image or a window of it [1, H, W]."""
        try:
            raw: RawDetections = self.network([image.to(self.device)])[0]  # a large image's was just read
        except NonFiniteOutputError as error:
            raise InputError(f"image {image_id}: {error}") from error
        if raw.found > len(raw.scores):
            self.capped[image_id] = max(raw.found, self.capped.get(image_id, 0))
        height, width = image.shape[-2:]
        # dividing by the scale can push an edge a rounding error beyond the image
        boxes = raw.boxes.float().cpu().numpy().clip(0, np.array([width, height, width, height], np.float32))
        scores, cell_types = raw.scores.float().cpu().numpy(), raw.cell_types.cpu().numpy()
        masks = raw.masks.half().cpu().numpy()
        return Detections(image_id, height, width, boxes, scores, cell_types, masks, self.cell_type_names)

"""Training and inference of a U-Net: dense maps, their losses, and the cells decoded from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sartorius.errors import InputError
from sartorius.inference.blocks import detect_by_blocks
from sartorius.inference.windows import Pixels, Whole, Windows
from sartorius.modules.optimisation import TrainedModule, TrainingOptions
from sartorius.networks import losses
from sartorius.networks.cell_maps import MapLayout, map_targets
from sartorius.networks.finite import check_finite
from sartorius.networks.targets import image_weights
from sartorius.networks.weights import load_weights
from sartorius.postprocess.maps import CellMaps, Decoded
from sartorius.structures import checks
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.large_image import LargeImage
from sartorius.structures.windows import Window
from sartorius.visualise.targets import Panel, map_panels

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch, Target
    from sartorius.structures.arrays import ColourImage

Maps = Mapping[str, Tensor]


@constructible
class UNetModule(TrainedModule):
    """A network that gives `layout.channels` logits for each pixel, see `networks.cell_maps`.

    decoder: turns the maps of an image into regions with scores and cell types. inference: the windows through which
    images are validated and predicted; None for whole images. mask_size: M of the detections' masks. dice: share of the
    Dice loss in the foreground's. border_weight: further weight of pixels between touching cells in the foreground's
    cross-entropy. weights: "none", or a file that the whole network starts from; class_mapping: our cell types ->
    those of the file, where they are called differently, see `load_weights`. optimizer, options: as in TrainedModule;
    loss terms are foreground, border, centre, offset, types.

    foreground: see ForegroundModule.
    """

    inference: Windows

    def __init__(
        self,
        network: nn.Module,
        layout: MapLayout,
        decoder: Callable[[CellMaps], Decoded],
        optimizer: Callable[..., Optimizer],
        *,
        inference: Windows | None = None,
        mask_size: int = 28,
        dice: float = 1.0,
        border_weight: float = 0.0,
        weights: str | None = "none",
        class_mapping: dict[str, str] | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(network, optimizer, **options)
        if weights not in (None, "none"):
            types = self.cell_type_names if layout.types else ()
            self.started_from = load_weights(network, str(weights), cell_types=types, class_mapping=class_mapping)
        checks.numbers("model", 1, 512, mask_size=mask_size)
        self.layout, self.decoder, self.inference = layout, decoder, inference or Whole()
        self.mask_size, self.dice, self.border_weight = mask_size, dice, border_weight
        self.foreground: list[Tensor] = []

    @property
    def export_settings(self) -> dict[str, Any]:
        """The decoder that made the regions."""
        return {"decoder": repr(self.decoder)}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the sum of the losses, logged as train/loss and train/<term>. Stops where it is not finite."""
        return self.total(self.losses(self.network(_stack(batch)), batch.targets), batch)

    def losses(self, logits: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the loss of each map of the layout, float32 scalars: logits [B, C, H, W] against the cells.

        Ignored pixels are left out (they are of no cell, so offset and types ignore them anyway), of the border also
        those within its reach: an unknown cell may touch there. Each image counts with its weight.
        """
        maps = [map_targets(target.layers, target.cell_types, self.layout).maps(self.layout) for target in targets]
        truth = {name: torch.stack([image[name] for image in maps]) for name in self.layout.slices}
        predicted = {name: logits[:, part] for name, part in self.layout.slices.items()}
        certain, samples = _certain(targets, truth["foreground"]), image_weights(targets, logits.device)
        weight = 1 + self.border_weight * truth["border"] if self.border_weight and "border" in truth else None
        terms = {}
        for name, wanted in truth.items():
            if name == "offset":
                terms[name] = losses.offset_loss(predicted[name], wanted, truth["foreground"], samples)
            elif name == "types":
                terms[name] = losses.type_loss(predicted[name], wanted, samples)
            else:
                pixels, dice = (weight, self.dice) if name == "foreground" else (None, 0.0)
                known = _certain_border(certain, wanted, self.layout.border) if name == "border" else certain
                terms[name] = losses.bce_dice(predicted[name][:, 0], wanted, pixels, dice, known, samples)
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detect the cells of every image of the batch; callbacks score them. Logs val/loss."""
        return self._score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Do as `validation_step`; logs test/loss."""
        return self._score(batch, "test")

    def detect(self, batch: Batch) -> list[Detections]:
        """Detect the cells of every image: NumPy, on the CPU; an image may have none."""
        pairs = zip(batch.images, batch.targets, strict=True)
        return [self._detect(image, target.image_id) for image, target in pairs]

    def _detect(self, image: Pixels, image_id: str, region: Window | None = None) -> Detections:
        """Detect the cells of an image [1, H, W], or of a region of it in the region's pixels."""
        if isinstance(image, LargeImage) and region is None:
            return detect_by_blocks(image, image_id, partial(self._detect, image, image_id))
        return self._detections(image_id, self.activate(self._logits(image, image_id, region)))

    def _score(self, batch: Batch, stage: str) -> list[Detections]:
        detections, self.foreground = [], []
        for image, target in zip(batch.images, batch.targets, strict=True):
            logits = self._logits(image, target.image_id)
            loss = losses.sum_losses(self.losses(logits[None], [target]), self.loss_weights)
            self.log_scores({f"{stage}/loss": loss}, 1)
            maps = self.activate(logits)
            self.foreground.append(maps["foreground"][0])
            detections.append(self._detections(target.image_id, maps))
        return detections

    def target_panels(self, image: Tensor, target: Target, canvas: ColourImage, scale: int) -> list[Panel]:
        """Draw the maps of the layout; the offset as two."""
        truth = map_targets(target.layers, target.cell_types, self.layout).maps(self.layout)
        maps = {name: values.float().numpy() for name, values in truth.items()}
        return map_panels(maps, self.layout.types, self.layout.offset_scale, scale)

    def _logits(self, image: Pixels, image_id: str, region: Window | None = None) -> Tensor:
        def network(crops: Tensor) -> Tensor:
            maps: Tensor = self.network(crops.to(self.device))  # those of a large image were just read
            return maps.float()  # blended in float32, whatever the precision of the network

        maps = self.inference.maps(network, image, self.layout.slices.get("offset"), region)
        check_finite(f"image {image_id}", maps)
        return maps

    def activate(self, logits: Tensor) -> Maps:
        """Convert logits [C, H, W] to maps by name, float32: probabilities, and the offset in pixels."""
        maps = {name: logits[part] for name, part in self.layout.slices.items()}
        scaled = {name: value.sigmoid() for name, value in maps.items() if name in ("foreground", "border", "centre")}
        if "offset" in maps:
            scaled["offset"] = maps["offset"] * self.layout.offset_scale
        if "types" in maps:
            scaled["types"] = maps["types"].softmax(0)
        return scaled

    def _detections(self, image_id: str, maps: Maps) -> Detections:
        arrays = {name: value.cpu().numpy() for name, value in maps.items()}
        single = {name: arrays[name][0] for name in ("foreground", "border", "centre") if name in arrays}
        decoded = self.decoder(CellMaps(**single, offset=arrays.get("offset"), types=arrays.get("types")))
        return Detections.from_regions(
            image_id,
            decoded.regions,
            single["foreground"],
            decoded.scores,
            decoded.cell_types,
            self.mask_size,
            self.cell_type_names,
        )


def _certain(targets: Sequence[Target], like: Tensor) -> Tensor | None:
    """Mark pixels with 1 where they count and 0 where they are ignored, like `like` [B, H, W]; None where all count."""
    if all(target.ignored is None for target in targets):
        return None
    pixels = torch.ones_like(like)
    for image, target in zip(pixels, targets, strict=True):
        if target.ignored is not None:
            image[target.ignored] = 0.0
    return pixels


def _certain_border(certain: Tensor | None, border: Tensor, reach: int) -> Tensor | None:
    """Leave out of `certain` [B, H, W] pixels of no border [B, H, W] that have ignored ones within `reach`."""
    if certain is None:
        return None
    near = F.max_pool2d(1 - certain[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
    return certain * torch.maximum(border, 1 - near)


def _stack(batch: Batch) -> Tensor:
    """Stack the images as [B, 1, H, W]; raises InputError where they differ in size."""
    sizes = {tuple(image.shape[-2:]) for image in batch.images}
    if len(sizes) > 1:
        raise InputError(
            f"images {', '.join(target.image_id for target in batch.targets)} of one batch have sizes "
            f"{sorted(sizes)}: train on crops of one size (transform.crop) or with data.batch_size=1"
        )
    return torch.stack(list(batch.images))

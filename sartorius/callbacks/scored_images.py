"""The seam of validation: each image with its cells and its prediction, handed once to every callback that takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from sartorius.data.dataset import Batch, Target
from sartorius.metrics import functional
from sartorius.modules.base import SegmentationModule
from sartorius.postprocess.finalise import Finalised
from sartorius.structures.arrays import Bools, Floats, GreyImage, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances

Finalise = Callable[[Detections], Finalised]
T = TypeVar("T")


@dataclass(frozen=True)
class ScoredImage:
    """A validation image, its annotated cells and its prediction; derived on first use, once for all callbacks.

    image: uint8 [1, H, W]. target: its annotation. detections: of the module. finalise: turns them into cells.
    """

    image: Tensor
    target: Target
    detections: Detections
    finalise: Finalise

    @property
    def image_id(self) -> str:
        """The image's id."""
        return self.target.image_id

    @property
    def index(self) -> int:
        """The image's place in its data set."""
        return self.target.index

    @property
    def cell_type(self) -> str:
        """The name of the image's type, "unknown" where the data have none."""
        return self.target.cell_type or "unknown"

    @cached_property
    def grey(self) -> GreyImage:
        """The image as an array, uint8 [H, W]."""
        pixels: GreyImage = self.image[0].cpu().numpy()
        return pixels

    @cached_property
    def cells(self) -> Instances:
        """The annotated cells as they were fed to the model, overlaps kept."""
        return Instances(self.target.layers.cpu().numpy().astype(np.uint16), self.target.cell_types.cpu().numpy())

    @cached_property
    def ignored(self) -> Bools | None:
        """The pixels that nobody has labelled, bool [H, W]; None where all are labelled."""
        return None if self.target.ignored is None else self.target.ignored.cpu().numpy()

    @cached_property
    def prediction(self) -> Finalised:
        """The cells after post-processing."""
        return self.finalise(self.detections)

    @cached_property
    def intersections(self) -> functional.Intersections:
        """The intersections of both."""
        return functional.Intersections.of(self.prediction.instances, self.cells, self.ignored)

    @cached_property
    def row(self) -> Ints:
        """The comparison of both, int64 [13], see `metrics.functional`."""
        return self.intersections.row(self.index)

    @property
    def average_precision(self) -> float:
        """The image's term of the competition's mean over images, 0 to 1."""
        return float(functional.average_precision_per_image(self.row[None])[0])


@dataclass(frozen=True)
class CompetitionResult:
    """The comparison of all P images of a validation, sorted by index.

    rows: int64 [P, 13], see `metrics.functional`. images: ids. cell_types: of the images. metrics: the logged
    scores by name, float64. overlaps: float64 [P, 6], see `metrics.instance_scores`; None: not asked for.
    """

    rows: Ints
    images: tuple[str, ...]
    cell_types: tuple[str, ...]
    metrics: dict[str, float]
    overlaps: Floats | None = None


@dataclass
class Validation:
    """A validation in progress, Lightning's sanity check aside.

    finalise: the post-processing of its images. result: set by `CompetitionScore` when all images are scored; None
    before that, without that callback, and where there was no image.
    """

    trainer: Trainer
    module: SegmentationModule
    finalise: Finalise
    result: CompetitionResult | None = None

    @property
    def in_fit(self) -> bool:
        """Whether this is a validation within a fit, and not that of the best checkpoint after it."""
        return self.trainer.state.fn == TrainerFn.FITTING

    def clear(self, folder: Path, pattern: str) -> None:
        """Delete the files that an earlier validation wrote, before any process writes new ones; a collective call."""
        if self.trainer.is_global_zero:
            for path in folder.glob(pattern):
                path.unlink()
        self.trainer.strategy.barrier(f"cleared {folder}")

    def log(self, metrics: Mapping[str, float], score: str, count: int) -> None:
        """Log means over `count` images or cells, and the one called `score` to the progress bar.

        Loggers get those of a fit only: the curve of the fit ends with the fit.
        """
        self.module.log_dict(dict(metrics), logger=self.in_fit, batch_size=count)
        self.module.log("score", metrics[score], prog_bar=True, logger=False, batch_size=count)


class ImageCallback(Callback):
    """A callback that takes the validation images of this process, from the run's `ScoredImages`."""

    def on_scoring_start(self, validation: Validation) -> None:
        """Prepare for the images of a validation."""

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Take one image."""

    def on_scoring_end(self, validation: Validation) -> None:
        """Log or write, once all images are scored; every process calls it, with or without images."""


class ScoredImages(Callback):
    """Dispatcher of validated images to the run's ImageCallbacks, in the order of the config; none in the sanity check.

    postprocess: turns Detections into Finalised, once an image and only where a callback asks for it.
    """

    def __init__(self, postprocess: Finalise) -> None:
        self.postprocess = postprocess
        self._callbacks: list[ImageCallback] = []
        self._validation: Validation | None = None

    def setup(self, trainer: Trainer, pl_module: SegmentationModule, stage: str) -> None:
        """Find the callbacks that take images."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._callbacks = [callback for callback in callbacks if isinstance(callback, ImageCallback)]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: SegmentationModule) -> None:
        """Start a validation."""
        self._validation = None if trainer.sanity_checking else Validation(trainer, pl_module, self.postprocess)
        if self._validation is not None:
            for callback in self._callbacks:
                callback.on_scoring_start(self._validation)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: SegmentationModule, outputs: Sequence[Detections], batch: Batch, *_: Any
    ) -> None:
        """Hand over the images of a batch, one after the other."""
        if self._validation is None:
            return
        for image, target, detections in zip(batch.images, batch.targets, outputs, strict=True):
            scored = ScoredImage(image, target, detections, self.postprocess)
            for callback in self._callbacks:
                callback.on_scored_image(self._validation, scored)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: SegmentationModule) -> None:
        """End the validation; a collective call."""
        if self._validation is not None:
            for callback in self._callbacks:
                callback.on_scoring_end(self._validation)


def gather_images(values: dict[int, T]) -> dict[int, T]:
    """Return the values (picklable) of all processes by image index, each image once; `values` itself in a single one.

    A collective call.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return {index: value for part in parts for index, value in part.items()}

"""The members of a LightningModule that callbacks, commands and figures rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from torch import Tensor

from sartorius.errors import InputError
from sartorius.inference.scaled import detect_scaled
from sartorius.structures.constructible import config_of

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch, Target
    from sartorius.inference.windows import Windows
    from sartorius.structures.arrays import ColourImage
    from sartorius.structures.detections import Detections
    from sartorius.visualise.targets import Panel


class SegmentationModule(pl.LightningModule):
    """A model that predicts Detections; its steps of validation, test and prediction return those of the batch.

    `hparams`, Lightning's, is the checkpoint metadata that `running.building` fills in (see
    `networks.checkpoints`) and Lightning stores with every checkpoint.

    cell_type_names: in the order of the cell types' indices. inference: the windows through which images are
    predicted; None for a module that takes whole images only.
    """

    inference: Windows | None = None

    def __init__(self, cell_type_names: Sequence[str]) -> None:
        super().__init__()
        self.cell_type_names = tuple(cell_type_names)

    @property
    def export_settings(self) -> dict[str, Any] | None:
        """The settings that decided which detections were exported, for `meta.json`; None where there are none."""
        return None

    def detect(self, batch: Batch) -> list[Detections]:
        """Detect the cells of every image: NumPy, on the CPU; an image may have none."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detect the cells of every image of the batch; callbacks score them."""
        return self.detect(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detect the cells of every image of the batch at its target's scale, in the pixels of its file."""
        return detect_scaled(self.detect, batch)

    def take_capped(self) -> str | None:
        """Name the images, detected since the last call, of which not all detections were kept; None for none."""
        return None

    def change_windows(self, change: Callable[[Windows], Windows]) -> None:
        """Predict from now on through what `change` makes of each network's windows.

        Raises InputError where the module takes whole images only.
        """
        if self.inference is None:
            raise InputError(f"a {type(self).__name__} takes whole images only; leave out inference= and tta=")
        self.inference = change(self.inference)

    def described(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return `model`, the config that the module was built from, with the windows that it has now."""
        return dict(model) if self.inference is None else {**model, "inference": config_of(self.inference)}

    def target_panels(self, image: Tensor, target: Target, canvas: ColourImage, scale: int) -> list[Panel]:
        """Draw the training targets of a sample, as in `visualise.targets.DrawsTargets`."""
        return []

    def memory_advice(self, stage: str) -> list[str]:
        """List settings of this model, in words, that need less memory in `training` or another stage."""
        return []


@runtime_checkable
class ForegroundModule(Protocol):
    """A module that keeps the foreground of the last batch that it validated or tested.

    foreground: for each image float [H, W], the probability 0..1 that a pixel is any cell's.
    """

    foreground: list[Tensor]


@runtime_checkable
class BoxPromptedModule(Protocol):
    """A module that segments given boxes; its detections are in the order of the image's cells."""

    def given_boxes(self, target: Target) -> Tensor:
        """Make the boxes of an image's cells that the module is given in validation, float32 [N, 4]."""

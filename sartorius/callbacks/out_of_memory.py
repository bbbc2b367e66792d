"""Explain that memory ran out on a batch: its images and cells, and the settings that need less."""

from __future__ import annotations

import math
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from sartorius.errors import InputError
from sartorius.inference.windows import Whole
from sartorius.modules.base import SegmentationModule

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch

# In the text of errors that are plain RuntimeErrors: torch's CPU allocator on Linux and Windows, cuBLAS's and cuDNN's
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "bad_alloc")


def _note(stage: str) -> Any:
    def hook(self: OutOfMemory, trainer: Any, pl_module: Any, batch: Batch, *_: Any, **__: Any) -> None:
        self.stage, self.batch = stage, _describe(batch)

    return hook


class OutOfMemory(Callback):
    """The batch in progress (its images' ids and sizes, not the images), for `explain_memory`.

    large: pixels of an image that is predicted whole from which on it warns, since the system may kill a process whose
    memory runs out.
    """

    def __init__(self, large: int = 25_000_000) -> None:
        self.stage = ""
        self.batch = ""
        self.large = large

    on_train_batch_start = _note("training")
    on_validation_batch_start = _note("validation")
    on_test_batch_start = _note("test")

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the batch, and warn of its first image that is large."""
        self.stage, self.batch = "prediction", _describe(batch)
        whole = isinstance(pl_module, SegmentationModule) and isinstance(pl_module.inference, Whole)
        if whole and any(math.prod(image.shape[-2:]) > self.large for image in batch.images):
            warnings.warn(f"{self.batch}: large for one piece; if memory runs out: inference=tiles", stacklevel=2)
            self.large = sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device or of the machine ran out."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS))


def explain_memory(error: BaseException, trainer: Trainer) -> InputError | None:
    """Return the error to raise in place of one of the device's or the machine's memory; None for any other error."""
    if not is_out_of_memory(error):
        return None
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    noted = next((c for c in callbacks if isinstance(c, OutOfMemory)), OutOfMemory())
    place = f" in {noted.stage} on {noted.batch}" if noted.stage else ""
    reason = " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__
    advice = "; ".join(_advice(noted.stage, trainer))
    return InputError(f"memory ran out{place} ({reason}). What helps, one at a time: {advice}")


def _describe(batch: Batch) -> str:
    """Return a text such as "a1, b2 (batch of 2, 520x704 pixels, 547 cells)"."""
    names = [target.image_id for target in batch.targets]
    sizes = sorted({"x".join(str(side) for side in image.shape[-2:]) for image in batch.images})
    cells = sum(len(target) for target in batch.targets)
    return f"{', '.join(names)} (batch of {len(names)}, {' and '.join(sizes)} pixels, {cells} cells)"


def _advice(stage: str, trainer: Trainer) -> list[str]:
    module = trainer.lightning_module
    model = module.memory_advice(stage) if isinstance(module, SegmentationModule) else []
    mixed = [] if "16" in str(trainer.precision) else ["trainer.precision=bf16-mixed"]
    if stage != "training":
        batch = "a lower data.batch_size" if stage == "prediction" else "a lower data.val_batch_size"
        return ["inference=tiles, or with it a lower inference.batch", batch, *mixed, *model]
    steps = trainer.accumulate_grad_batches
    batch = f"a lower data.batch_size, with trainer.accumulate_grad_batches above {steps} for steps of the same size"
    return [batch, "a smaller transform.crop", *mixed, *model]

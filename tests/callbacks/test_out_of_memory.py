"""Memory that runs out names the batch and the settings; other errors stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from sartorius.callbacks.out_of_memory import OutOfMemory, explain_memory
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.errors import InputError
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.train import train
from tests.doubles import ToyModule

CPU = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)


class Hungry(ToyModule):
    """Raises in a step of a stage."""

    def __init__(self, error: Exception, stage: str) -> None:
        super().__init__()
        self.error, self.stage = error, stage

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.stage == "training":
            raise self.error
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        if self.stage == "validation":
            raise self.error
        return super().validation_step(batch, batch_idx)

    memory_advice = MaskRCNNModule.memory_advice

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.stage == "backward":
            raise self.error


def run(root: Path, module: ToyModule, *callbacks: pl.Callback) -> None:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip
    train(module, SupervisedDataModule(root, batch_size=3, fold=0, n_folds=4), trainer)


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError(CPU)]
)
@pytest.mark.parametrize("stage", ["training", "backward", "validation"])
def test_the_error_names_the_batch_and_what_to_turn(tiny_competition: Path, error: Exception, stage: str) -> None:
    with pytest.raises(InputError, match="memory ran out") as caught:
        run(tiny_competition, Hungry(error, stage), OutOfMemory())
    text = str(caught.value)
    assert str(error)[:40] in text
    assert "48x64 pixels" in text and " cells)" in text
    if stage == "validation":
        assert "in validation on" in text and "batch of 1," in text
        assert "inference=tiles" in text and "data.val_batch_size" in text
        assert "transform.crop" not in text
    else:
        assert "in training on" in text and "batch of 3," in text
        for setting in (
            "data.batch_size", "transform.crop", "trainer.accumulate_grad_batches", "trainer.precision",
            "checkpoint_activations", "roi_heads.batch",
        ):  # fmt: skip
            assert setting in text


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_other_errors_stay_as_they_are(tiny_competition: Path) -> None:
    for error in (RuntimeError("shapes differ"), ValueError("out of memory, it says"), InputError("bad")):
        with pytest.raises(type(error), match=str(error)) as caught:
            run(tiny_competition, Hungry(error, "training"), OutOfMemory())
        assert caught.value is error


def test_without_the_callback_the_settings_are_named_all_the_same() -> None:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, max_epochs=1
    )
    trainer.strategy.connect(ToyModule())
    explained = explain_memory(MemoryError(), trainer)
    assert "memory ran out (MemoryError). What helps" in str(explained)
    assert "roi_heads" not in str(explained)

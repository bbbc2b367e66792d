"""What the ranks of these tests do: functions that `ranks.launch` finds by name in new processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class Signal(pl.Callback):
    """Sends a signal to this process in an epoch, after a training batch, if it is the one of that number."""

    def __init__(self, epoch: int, batch: int, number: int = 0, signum: int = signal.SIGKILL) -> None:
        self.place, self.number, self.signum = (epoch, batch), number, signum

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.place and trainer.global_rank == self.number:
            os.kill(os.getpid(), self.signum)


def in_turn(calls: list[tuple[Any, list[Any]]]) -> list[Any]:
    """What these functions return: processes take seconds to start."""
    return [function(*arguments) for function, arguments in calls]


class Scored(pl.LightningModule):
    """Its score after epoch e is `slope` * (e + 1) in the first process, far better in the others."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.weight = slope, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("score", self.slope * (self.current_epoch + 1) + 100 * self.global_rank)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_in_search(folder: Path, trial: int, slope: float, epochs: int = 4, processes: int = 1) -> list[int]:
    """Train as a trial of the search in `folder`; returns the number of epochs, of each process."""
    import optuna

    from sartorius.callbacks.pruning import Pruning

    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    pruning = Pruning(folder, folder / "study.journal", trial, pruner, "score")
    options = {"max_epochs": epochs, "num_sanity_val_steps": 1, "enable_checkpointing": False}
    running = trainer(processes, callbacks=[pruning], **options)
    loader: Any = torch.utils.data.DataLoader(torch.ones(4, 1))
    running.fit(Scored(slope), loader, loader)
    found: list[Any] = [running.current_epoch]
    if processes > 1:
        found = [None] * processes
        torch.distributed.all_gather_object(found, running.current_epoch)
    return found


def trainer(processes: int, **options: Any) -> pl.Trainer:
    """On the CPU, with gloo between several processes; silent."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {"devices": 1}
    return pl.Trainer(accelerator="cpu", **{**quiet, **strategy, **options})


def validate(root: Path, folder: Path, processes: int, batch_size: int = 1) -> dict[str, Any]:
    """Score 3 images with every callback that gathers; returns all that they found."""
    from sartorius.callbacks.competition_score import CompetitionScore
    from sartorius.callbacks.overlays import Overlays
    from sartorius.callbacks.pixel_report import PixelReport
    from sartorius.callbacks.prediction_writer import PredictionWriter
    from sartorius.callbacks.scored_images import ScoredImages
    from sartorius.data.competition.datamodule import SupervisedDataModule
    from tests.postprocess.pipelines import pipeline
    from tests.toy_segmenter import ToySegmenter

    postprocess = pipeline(score=0.1, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
    scored, pixels = CompetitionScore(), PixelReport(folder)
    drawn = Overlays(folder / "overlays", images=2)
    callbacks = [ScoredImages(postprocess), scored, pixels, drawn, PredictionWriter(folder / "detections")]
    running = trainer(processes, callbacks=callbacks, enable_checkpointing=False)
    data = SupervisedDataModule(root, fold=0, n_folds=4, val_batch_size=batch_size)
    running.validate(ToySegmenter(), data, verbose=False)
    return {
        "rows": scored.result.rows.tolist(), "images": scored.result.images, "scores": scored.result.metrics,
        "pixels": pixels.table.to_dict("list"), "pixel scores": pixels.results,
        "logged": {name: float(value) for name, value in running.callback_metrics.items()},
    }  # fmt: skip


def fit(
    root: Path, folder: Path, processes: int, stop: Signal | None = None, resume: bool = False, **last: Any
) -> dict[str, Any]:
    """Train the toy for 3 epochs; returns its number, and the images that this process saw, by order."""
    from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
    from sartorius.callbacks.checkpoints import LastCheckpoint
    from sartorius.data.competition.datamodule import SupervisedDataModule
    from tests.doubles import ToyModule

    module = ToyModule()
    data = SupervisedDataModule(root, fold=0, n_folds=4, batch_size=1, train_repeats=2)
    running = trainer(
        processes, callbacks=[*([stop] if stop else []), LastCheckpoint(folder, **last)], max_epochs=3,
        num_sanity_val_steps=0, plugins=[AtomicCheckpointIO()], accumulate_grad_batches=2,
    )  # fmt: skip
    try:
        running.fit(module, data, ckpt_path=folder / "last.ckpt" if resume else None)
    except SystemExit:
        raise KeyboardInterrupt from None
    if torch.distributed.is_initialized():
        levels: list[Any] = [None] * processes
        torch.distributed.all_gather_object(levels, module.level.tolist())
        assert np.ptp(np.array(levels)) == 0
    return {"level": module.level.tolist(), "seen": module.seen}


def fit_with(root: Path, folder: Path, processes: int, options: Any, more: dict[str, Any]) -> dict[str, Any]:
    """`fit` with both kinds of arguments."""
    return fit(root, folder, processes, *options, **more)

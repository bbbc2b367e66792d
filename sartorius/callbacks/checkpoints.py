"""Checkpoints that survive a kill, and a last one that is always there to resume from."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.errors import InputError
from sartorius.files import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name beside it and moves it: a kill leaves the previous file whole.

    Lightning's own goes through the system's temporary folder, and a move between file systems is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; raises InputError where the disk is full or the folder cannot be written."""
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
            raise InputError(f"{path}: could not be written ({error}); is the disk full?") from error


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: the state after the last whole epoch, or after the batch in which Ctrl-C stopped the run.

    Ctrl-C waits for the batch in progress, or for the validation in progress, so that a resumed run repeats and skips
    nothing; a scheduler's SIGTERM waits for the batch. A second Ctrl-C does not wait and leaves the last whole epoch's
    file, as does any exception: weights in the middle of a step may be broken.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "last.ckpt"
        self._stopping = False
        self._handler: Any = None  # of SIGINT, as it was before the fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C; with several processes Lightning's way stays, for they would stop at different batches."""
        self._stopping = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._stop_soon)

    def _stop_soon(self, signum: int, frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        print("\nstopping after this batch or validation; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a run was stopped within an epoch, leave out the samples of it that were trained on."""
        if trainer.fit_loop.restarted_mid_epoch:
            loader: Any = trainer.train_dataloader
            progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            loader.sampler.skip = progress.processed * loader.batch_size

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Stop here when asked to, unless the epoch is over and its validation comes next."""
        if (self._stopping or trainer.received_sigterm) and not trainer.is_last_batch:
            self._save(trainer)
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation, so that the best score so far is in it."""
        self._save(trainer)
        if self._stopping:
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save when a person does not wait in the first epoch: nothing better is there."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if isinstance(exception, KeyboardInterrupt) and fitting and not self.path.exists():
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None

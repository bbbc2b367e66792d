"""Checkpoints that survive a kill, and a last one that is always there to resume from."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from sartorius.files import atomic_path
from sartorius.structures import checks


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are written under a temporary name and moved: a kill leaves the previous file whole.

    Lightning's own goes through the system's temporary folder, and a move between file systems is a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unwritten: set[str] = set()  # paths whose last save failed

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; where that fails (a full disk) warn, keep the previous file and let the training continue.

        The training is worth more than a clean end; the next save tries again.
        """
        try:
            with atomic_path(path) as temporary:
                torch.save(checkpoint, temporary)
            self.unwritten.discard(str(path))
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
            self.unwritten.add(str(path))
            kept = "the previous one stays" if Path(path).is_file() else "there is none"
            rank_zero_warn(
                f"{path}: THE CHECKPOINT of epoch {checkpoint.get('epoch')}, step {checkpoint.get('global_step')}, "
                f"COULD NOT BE WRITTEN ({error}); {kept}, and the training continues. Is the disk full?"
            )


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for one file, aware of files that `AtomicCheckpointIO` could not write.

    The best score then stays that of the weights in the file, so that the next epoch above it is saved: Lightning would
    wait for one above the score whose weights are lost.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning would; a collective call, as is the other."""
        with self._taken_back_if_unwritten(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning would."""
        with self._taken_back_if_unwritten(trainer):
            super().on_validation_end(trainer, pl_module)

    @contextmanager
    def _taken_back_if_unwritten(self, trainer: Trainer) -> Iterator[None]:
        before = {**self.state_dict(), "best_k_models": dict(self.best_k_models)}
        yield
        writer = trainer.strategy.checkpoint_io  # only the first process writes
        unwritten = writer.unwritten if isinstance(writer, AtomicCheckpointIO) else ()
        if trainer.strategy.broadcast(self.best_model_path in unwritten):
            self.load_state_dict(before)


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, the state after the last whole epoch, or after the batch in which Ctrl-C stopped the run.

    Ctrl-C waits for the optimizer step in progress, or for the validation in progress, so that a resumed run repeats
    and skips nothing; so does a scheduler's SIGTERM. Several processes agree on where to stop: a signal to one of them
    is enough. A second Ctrl-C does not wait and leaves the earlier file, as does any exception: weights in the middle
    of a step may be broken. Steps that are lost after a kill are repeated with the same random numbers.

    folder: of the checkpoints. every_n_steps: also saved within an epoch, each so many optimizer steps; 0: after whole
    epochs only.
    """

    def __init__(self, folder: str | Path, every_n_steps: int = 0) -> None:
        checks.whole("callbacks.last_checkpoint", 0, every_n_steps=every_n_steps)
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._stopping = False
        self._prints = True
        self._handlers: dict[int, Any] = {}  # of signals, as they were before the fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C."""
        self._stopping, self._prints = False, trainer.is_global_zero
        self._take_over(signal.SIGINT)

    def _take_over(self, signum: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers[signum] = signal.signal(signum, self._stop_soon)

    def _stop_soon(self, signum: int, frame: FrameType | None) -> None:
        if self._stopping and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._stopping = True
        if self._prints:
            print("\nstopping after this batch or validation; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over SIGTERM; where a run was stopped within an epoch, skip the samples that were trained on.

        Lightning's own handler of SIGTERM, set up by now, calls the other processes from within the signal handler,
        whatever they are doing.
        """
        self._take_over(signal.SIGTERM)
        if trainer.fit_loop.restarted_mid_epoch:
            loader: Any = trainer.train_dataloader
            progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            loader.sampler.skip = progress.processed * loader.batch_size

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here when asked to, unless gradients accumulate over the next batch, or the epoch is over and its
        validation comes next."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._asked(trainer):
            self._save(trainer)
            raise KeyboardInterrupt
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation, so that the best score so far is in it."""
        self._save(trainer)
        if self._asked(trainer):
            raise KeyboardInterrupt

    def _asked(self, trainer: Trainer) -> bool:
        """Return whether any process was asked to stop; a collective call."""
        return trainer.strategy.reduce_boolean_decision(self._stopping, all=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """On a second Ctrl-C before the first checkpoint, save anyway.

        Not with several processes: all of them save, and some may not come here.
        """
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and trainer.world_size == 1
        if isinstance(exception, KeyboardInterrupt) and fitting and not self.path.exists():
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}

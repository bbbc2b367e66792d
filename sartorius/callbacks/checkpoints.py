"""The best checkpoint, and a last one that is always there to resume from."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.errors import InputError
from sartorius.structures import checks

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # of ModelCheckpoint's state
_PROCESSES = "processes"  # key of a checkpoint: how many trained


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for one file, of weights alone, aware of files that `AtomicCheckpointIO` could not
    write. Without a monitor it is the file of the last epoch.

    The best score then stays that of the weights in the file, so that the next epoch above it is saved: Lightning would
    wait for one above the score whose weights are lost. A run folder may be moved: the state names files within
    `dirpath`, where Lightning's forgets the best score when the path changes.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state with the names of files for their paths."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in _PATHS}
        return {**state, **names, "best_k_models": {Path(k).name: v for k, v in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the files of these names in the present folder."""
        paths = {key: self._path(state_dict[key]) for key in _PATHS}
        best = {self._path(name): score for name, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})

    def _path(self, name: str) -> str:
        return str(Path(self.dirpath or "", name)) if name else ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the best score where its file is not here any more."""
        lost = bool(self.best_model_path) and not Path(self.best_model_path).is_file()
        if trainer.strategy.broadcast(lost):
            score = self.best_model_score
            forgotten = "" if score is None else f", and its score {float(score):.4f} is forgotten"
            rank_zero_warn(f"{self.best_model_path}: not found{forgotten}")
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning would; a collective call, as is the other."""
        with self._weights_of_the_best(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning would."""
        with self._weights_of_the_best(trainer):
            super().on_validation_end(trainer, pl_module)

    @contextmanager
    def _weights_of_the_best(self, trainer: Trainer) -> Iterator[None]:
        """Save weights alone, and take back the score of a file that could not be written."""
        before = self.state_dict()
        writer = trainer.strategy.checkpoint_io
        if not isinstance(writer, AtomicCheckpointIO):
            yield
            return
        with writer.weights_only():
            yield
        if trainer.strategy.broadcast(self.best_model_path in writer.unwritten):  # only the first process writes
            self.load_state_dict(before)


def best_checkpoint(trainer: Trainer) -> str:
    """Find the checkpoint with the best score, or of the last epoch where nothing is monitored; "" when none was
    scored or it could not be written."""
    best = (
        callback.best_model_path for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)
    )
    return next((path for path in best if Path(path).is_file()), "")


def unscored_checkpoint(trainer: Trainer) -> str:
    """Find the checkpoint of a fit without validation, at its end; "" of another fit, and in all processes but one."""
    return "" if trainer.limit_val_batches or not trainer.is_global_zero else best_checkpoint(trainer)


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
        self._ending = False  # something else ends the fit
        self._resumed_at = -1  # optimizer step
        self._saved_within = -1  # optimizer step of the last save within an epoch
        self._handlers: dict[int, Any] = {}  # of signals, as they were before the fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C."""
        self._stopping, self._prints, self._ending, self._saved_within = False, trainer.is_global_zero, False, -1
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
        """Stop here when asked to, or save where the fit ends.

        Not where gradients accumulate over the next batch, or the epoch is over and its validation comes next.
        """
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches:
            # what ends the fit (`trainer.max_time`) waits for the optimizer step
            self._ending, trainer.should_stop = self._ending or trainer.should_stop, False
            return
        trainer.should_stop = trainer.should_stop or self._ending
        if trainer.is_last_batch:
            return
        if self._asked(trainer):
            self._save(trainer)
            raise KeyboardInterrupt
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if ends or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer)
            self._saved_within = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation, so that the best score so far is in it.

        An epoch that `trainer.max_time` or `trainer.max_steps` ended early is not over: its state is saved already.
        """
        if trainer.is_last_batch or self._saved_within != trainer.global_step:
            self._save(trainer)
        if self._asked(trainer):
            raise KeyboardInterrupt

    def _asked(self, trainer: Trainer) -> bool:
        """Return whether any process was asked to stop; a collective call."""
        return trainer.strategy.reduce_boolean_decision(self._stopping, all=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the number of processes."""
        checkpoint[_PROCESSES] = trainer.world_size

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raise InputError where another number of processes resumes: each of its steps would take other samples."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._resumed_at = checkpoint["global_step"]
        if (before := checkpoint.get(_PROCESSES)) not in (None, now := trainer.world_size):
            raise InputError(
                f"{trainer.ckpt_path}: was trained by {before} processes, resumed by {now} (trainer.devices, "
                "trainer.num_nodes); resume with as many, or start a new run with model.weights= this checkpoint"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of a resumed run that was over."""
        if trainer.global_step == self._resumed_at:
            rank_zero_warn(
                f"{trainer.ckpt_path}: the run was over, and nothing more was trained; raise trainer.max_epochs, "
                "trainer.max_steps, trainer.max_time or callbacks.early_stopping.patience"
            )
        self._resumed_at = -1

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

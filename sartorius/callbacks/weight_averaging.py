"""Averages of the weights over the training: validated, saved and used in place of the last step's.

Not Lightning's callbacks. WeightAveraging (2.6) and its EMA have no warm-up of the decay, average counters and leave
batch norm to the user, copy the whole module, trainer and all, and mix up both sets of weights in a checkpoint that
is written during a validation. StochasticWeightAveraging validates and saves the weights of the last step until the
training ends, and cannot be resumed while it averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from sartorius.callbacks.batch_norm import estimate_batch_norm, has_batch_norm
from sartorius.errors import InputError

KEY = "averaging"  # of what a checkpoint needs to go on; its state_dict holds the averages


class WeightAveraging(Callback):
    """Keeps an average of the parameters that learn and of the float buffers, updated after optimizer steps.

    A validation during the fit, every checkpoint, and the module after the fit have the average; training goes on with
    its own weights, which a checkpoint holds beside it, so that a resumed run ends as one that was never stopped. Until
    the first update there is one set of weights. Kinds differ in `weight`, `due` and in what they do to batch norm.
    """

    estimates_batch_norm = False  # anew for the averaged weights, instead of averaging the statistics

    batches = 0  # of training batches for that

    def __init__(self) -> None:
        self._average: dict[str, Tensor] = {}  # by name; the training's own weights while `_shown`
        self._shown = False  # whether the module holds the average
        self._updates = 0  # so far
        self._step = 0  # optimizer steps that were looked at
        self._stale = False  # whether the statistics of batch norm are older than the average

    def weight(self, updates: int) -> float:
        """The share that the present weights get in the average, after so many updates; 1 after none."""
        raise NotImplementedError

    def due(self, trainer: Trainer) -> bool:
        """Whether the optimizer step that was just made is averaged."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Every fit starts its own average, or gets that of its checkpoint after this."""
        if stage == "fit":
            self._average, self._shown, self._updates, self._step, self._stale = {}, False, 0, 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move what a checkpoint brought to the module's device, outside validation's inference mode."""
        self._average = {name: value.to(pl_module.device) for name, value in self._average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Update the average where this batch ended in an optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if not self.due(trainer):
            return
        present = _averaged(pl_module)
        if self._average:
            average = [self._average[name] for name in present]
            torch._foreach_lerp_(average, list(present.values()), self.weight(self._updates))
        else:
            self._average = {name: value.detach().clone() for name, value in present.items()}
        self._updates, self._stale = self._updates + 1, True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average, where there is one."""
        if self._running(trainer):
            self._exchange(pl_module)
            self._estimate(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the training's own weights."""
        if self._running(trainer) and self._shown:
            self._exchange(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        if self._average and not self._shown:
            with self._average_in(trainer, pl_module):
                final = {name: value.detach().clone() for name, value in _averaged(pl_module).items()}
            pl_module.load_state_dict(final, strict=False)
            self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the weights, and those beside it."""
        own: dict[str, Tensor] = {}
        if self._average:
            with self._average_in(trainer, pl_module):
                average = {name: value.detach().clone() for name, value in _averaged(pl_module).items()}
                own = {name: value.clone() for name, value in self._average.items()}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}
        checkpoint[KEY] = {"weights": own, "updates": self._updates, "step": self._step, "stale": self._stale}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from both sets of weights; a checkpoint that was trained without an average starts one."""
        if trainer.state.fn != TrainerFn.FITTING or KEY not in checkpoint:
            return
        saved = checkpoint[KEY]
        self._updates, self._step, self._stale = saved["updates"], saved["step"], saved["stale"]
        self._average = {name: checkpoint["state_dict"][name].clone() for name in saved["weights"]}
        pl_module.load_state_dict(saved["weights"], strict=False)

    def _running(self, trainer: Trainer) -> bool:
        return bool(self._average) and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    @contextmanager
    def _average_in(self, trainer: Trainer, module: LightningModule) -> Iterator[None]:
        """The module with the average, and afterwards as it was."""
        shown = self._shown
        if not shown:
            self._exchange(module)
        try:
            self._estimate(trainer, module)
            yield
        finally:
            if not shown:
                self._exchange(module)

    @torch.no_grad()
    def _exchange(self, module: LightningModule) -> None:
        """Swap the module's weights and the stored ones, in place: the optimizer holds on to the module's."""
        for name, value in _averaged(module).items():
            other = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(other)
        self._shown = not self._shown

    def _estimate(self, trainer: Trainer, module: LightningModule) -> None:
        """Bring the statistics of batch norm up to date with the average, which is in the module."""
        if self.estimates_batch_norm and self._stale and has_batch_norm(module):
            estimate_batch_norm(trainer, module, self.batches)
        self._stale = False


class EMA(WeightAveraging):
    """Exponential moving average: each step the average moves by 1 - d to the weights (Polyak & Juditsky 1992).

    decay: d in the long run, 0 to below 1; 0.999 remembers about 1,000 steps. warmup: after n updates d is at most
    (1 + n) / (warmup + n), at least 1, as TensorFlow's: early weights are forgotten fast. The statistics of batch norm
    are averaged as the weights are. Raises InputError for values out of range.
    """

    def __init__(self, decay: float, warmup: float) -> None:
        super().__init__()
        if not 0 <= decay < 1 or warmup < 1:
            raise InputError(
                f"averaging.decay={decay} averaging.warmup={warmup}: expected 0 to below 1, and at least 1 step"
            )
        self.decay, self.warmup = decay, warmup

    def weight(self, updates: int) -> float:
        """1 - d."""
        return 1 - min(self.decay, (1 + updates) / (self.warmup + updates))

    def due(self, trainer: Trainer) -> bool:
        """Every step."""
        return True


class SWA(WeightAveraging):
    """Stochastic weight averaging: the plain mean of the weights late in a training at a constant rate.

    Izmailov et al. (2018). start: from which share of all optimizer steps on, 0 to below 1. every: steps from one
    update to the next. rate: of the optimizer's learning rate while it averages, in place of the schedule's; None keeps
    the schedule. batches: of training batches, with the average as weights, over which the statistics of batch norm are
    estimated before it is validated or saved; networks without batch norm need no such pass.

    Raises InputError for values out of range, and when a fit starts whose number of steps is not known.
    """

    estimates_batch_norm = True

    def __init__(self, start: float, every: int, rate: float | None, batches: int) -> None:
        super().__init__()
        if not 0 <= start < 1 or every < 1 or (rate is not None and rate <= 0) or batches < 1:
            raise InputError(
                f"averaging: start={start} every={every} rate={rate} batches={batches}: expected start 0 to below 1, "
                "every and batches at least 1, rate positive or null"
            )
        self.start, self.every, self.rate, self.batches = start, every, rate, batches
        self._first = 0  # optimizer step that is averaged first, counted from 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the first step, and note the optimizer's own rates."""
        super().on_train_start(trainer, pl_module)
        total = trainer.estimated_stepping_batches
        if not 0 <= total < float("inf"):
            raise InputError("averaging=swa starts at a share of all steps; set trainer.max_epochs or max_steps")
        self._first = int(self.start * total)
        for group in _groups(trainer):
            group.setdefault("initial_lr", group["lr"])  # a schedule has noted it already

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Set the rate; the schedule sets its own after every step."""
        if self.rate is not None and trainer.global_step >= self._first:
            for group in _groups(trainer):
                group["lr"] = group["initial_lr"] * self.rate

    def weight(self, updates: int) -> float:
        """That of the plain mean."""
        return 1 / (updates + 1)

    def due(self, trainer: Trainer) -> bool:
        """The first step of the last part of the training, and every so many after it."""
        made = trainer.global_step - 1 - self._first
        return made >= 0 and made % self.every == 0


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    """The parameter groups of all optimizers."""
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


def _averaged(module: LightningModule) -> dict[str, Tensor]:
    """The parameters that learn and the float buffers of a module by name; they are the module's own tensors."""
    saved = module.state_dict(keep_vars=True)
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in saved.items() if value.is_floating_point() and name not in frozen}

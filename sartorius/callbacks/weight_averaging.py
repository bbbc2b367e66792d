"""Exponential moving average of the weights: validated, saved and used in place of the last step's.

Not Lightning's callbacks: WeightAveraging (2.6) and its EMA have no warm-up of the decay, average counters and leave
batch norm to the user, copy the whole module, trainer and all, and mix up both sets of weights in a checkpoint that
is written during a validation.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from sartorius.errors import InputError

KEY = "averaging"  # of the training's own weights in a checkpoint, whose state_dict holds the average


class EMA(Callback):
    """Average of the parameters that learn and of the float buffers, which moves by 1 - d to them after each step.

    A validation during the fit, every checkpoint, and the module after the fit have the average (Polyak & Juditsky
    1992). Training continues with its own weights, which a checkpoint holds beside the average, so that a resumed run
    ends as one that was never stopped. Until the first optimizer step there is one set of weights. The statistics of
    batch norm are averaged as the weights are.

    decay: d in the long run, 0 to below 1; 0.999 averages about 1,000 steps. warmup: after n updates d is at most
    (1 + n) / (warmup + n), at least 1, as TensorFlow's: early weights are forgotten fast. Raises InputError for values
    out of range.
    """

    def __init__(self, decay: float, warmup: float) -> None:
        if not 0 <= decay < 1 or warmup < 1:
            raise InputError(
                f"averaging.decay={decay} averaging.warmup={warmup}: expected 0 to below 1, and at least 1 step"
            )
        self.decay, self.warmup = decay, warmup
        self._average: dict[str, Tensor] = {}  # by name; the training's own weights while `_swapped`
        self._swapped = False  # whether the module holds the average
        self._updates = 0
        self._step = 0  # optimizer steps up to the last update

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the average of a fit, which gets that of its checkpoint after this."""
        if stage == "fit":
            self._average, self._swapped, self._updates, self._step = {}, False, 0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average of a checkpoint to the module's device, outside validation's inference mode."""
        self._average = {name: value.to(pl_module.device) for name, value in self._average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Update the average where this batch ended in an optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        present = _averaged(pl_module)
        if self._average:
            average = [self._average[name] for name in present]
            decay = min(self.decay, (1 + self._updates) / (self.warmup + self._updates))
            torch._foreach_lerp_(average, list(present.values()), 1 - decay)
        else:
            self._average = {name: value.detach().clone() for name, value in present.items()}
        self._updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average, where there is one."""
        if self._running(trainer):
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the training's own weights."""
        if self._running(trainer) and self._swapped:
            self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        if self._average and not self._swapped:
            pl_module.load_state_dict(self._average, strict=False)
            self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the weights, and those beside it."""
        weights: dict[str, Tensor] = {}
        if self._average:
            present = {name: value.detach().clone() for name, value in _averaged(pl_module).items()}
            stored = {name: value.clone() for name, value in self._average.items()}
            average, weights = (present, stored) if self._swapped else (stored, present)
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}
        checkpoint[KEY] = {"weights": weights, "updates": self._updates, "step": self._step}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue from both sets of weights; a checkpoint that was trained without an average starts one."""
        if trainer.state.fn != TrainerFn.FITTING or KEY not in checkpoint:
            return
        saved = checkpoint[KEY]
        self._updates, self._step = saved["updates"], saved["step"]
        self._average = {name: checkpoint["state_dict"][name].clone() for name in saved["weights"]}
        pl_module.load_state_dict(saved["weights"], strict=False)

    def _running(self, trainer: Trainer) -> bool:
        return bool(self._average) and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        """Swap the module's weights and the stored ones, in place: the optimizer holds on to the module's."""
        for name, value in _averaged(module).items():
            other = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(other)
        self._swapped = not self._swapped


def _averaged(module: LightningModule) -> dict[str, Tensor]:
    """Get the parameters that learn and the float buffers of a module by name; they are the module's own tensors."""
    saved = module.state_dict(keep_vars=True)
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in saved.items() if value.is_floating_point() and name not in frozen}

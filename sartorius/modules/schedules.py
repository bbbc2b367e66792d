"""Schedules of the learning rate: warm-up, then cosine, steps, constant, or one cycle.

A schedule is called with the optimizer and `total_steps`, optimizer steps of the whole training: batches divided by
`trainer.accumulate_grad_batches`. Each is a function of the step alone, so a resumed run continues where it stopped,
over the steps that it has now. Groups with rates of their own (`lr_decay`) keep their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.constructible import constructible


@constructible
def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int, final_fraction: float) -> LambdaLR:
    """Warm up linearly over `warmup_steps`, then half a cosine down to `final_fraction` at `total_steps`."""
    checks.whole("scheduler", 0, warmup_steps=warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warm(step, warmup_steps)
        return _cosine(1.0, final_fraction, (step - warmup_steps) / max(total_steps - warmup_steps, 1))

    return LambdaLR(optimizer, factor)


@constructible
def warmup_steps_down(
    optimizer: Optimizer, total_steps: int, warmup_steps: int, milestones: Sequence[float], gamma: float
) -> LambdaLR:
    """Warm up linearly, then multiply the rate by `gamma` at each of `milestones` (fractions of `total_steps`)."""
    checks.whole("scheduler", 0, warmup_steps=warmup_steps)

    def factor(step: int) -> float:
        return _warm(step, warmup_steps) * gamma ** sum(step >= milestone * total_steps for milestone in milestones)

    return LambdaLR(optimizer, factor)


@constructible
def warmup_constant(optimizer: Optimizer, total_steps: int, warmup_steps: int) -> LambdaLR:
    """Warm up linearly over `warmup_steps`, then keep the optimizer's rate to the end."""
    checks.whole("scheduler", 0, warmup_steps=warmup_steps)
    return LambdaLR(optimizer, lambda step: _warm(step, warmup_steps))


@constructible
def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int | None,
    warmup_fraction: float,
    start_fraction: float,
    final_fraction: float,
    momentum: Sequence[float] | None,
) -> LambdaLR:
    """Rise by half a cosine to the optimizer's rate, fall by another to the last step (Smith & Topin 2019).

    The rates of torch's OneCycleLR, which cannot be resumed over another number of steps and divides by zero where
    `warmup_fraction` of them is exactly one. warmup_steps: up to the highest rate; None for warmup_fraction (0..1) of
    `total_steps`. start_fraction, final_fraction: of the optimizer's rate, at the first and the last step. momentum:
    (at the highest rate, at both ends), against the rate: SGD's momentum, or the first beta of Adam's kind; None leaves
    it alone.

    Raises InputError for fractions outside 0..1, and for a momentum where the optimizer has none.
    """
    checks.fractions(
        "scheduler", warmup_fraction=warmup_fraction, start_fraction=start_fraction, final_fraction=final_fraction
    )
    if momentum is not None and not {"betas", "momentum"} & set(optimizer.defaults):
        raise InputError(f"scheduler.momentum: {type(optimizer).__name__} has none; set scheduler.momentum=null")
    peak = max(warmup_fraction * total_steps - 1, 0.0) if warmup_steps is None else float(warmup_steps)

    def between(step: int, start: float, top: float, final: float) -> float:
        if step < peak:
            return _cosine(start, top, step / peak)
        return _cosine(top, final, (step - peak) / max(total_steps - 1 - peak, 1e-9))

    def rate(step: int) -> float:
        return between(step, start_fraction, 1.0, final_fraction)

    if momentum is None:
        return LambdaLR(optimizer, rate)
    low, high = momentum
    return _WithMomentum(optimizer, rate, lambda step: between(step, high, low, high))


class _WithMomentum(LambdaLR):
    """A LambdaLR that sets the momentum too, to `momentum(step)` for all groups."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float], momentum: Callable[[int], float]) -> None:
        self.momentum = momentum
        super().__init__(optimizer, factor)

    def step(self, epoch: int | None = None) -> None:
        """Set rate and momentum; LambdaLR calls it once when it is made."""
        super().step(epoch)
        value = self.momentum(self.last_epoch)
        for group in self.optimizer.param_groups:
            group.update({"betas": (value, *group["betas"][1:])} if "betas" in group else {"momentum": value})

    def state_dict(self) -> dict[str, Any]:
        """Return LambdaLR's state without the function, which the config supplies."""
        return {key: value for key, value in super().state_dict().items() if key != "momentum"}


def _warm(step: int, warmup_steps: int) -> float:
    return min((step + 1) / (warmup_steps + 1), 1.0)


def _cosine(start: float, end: float, progress: float) -> float:
    """Interpolate from start (progress 0) to end (1 and beyond) by half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

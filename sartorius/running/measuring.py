"""The cost of a training step, measured by training a few of them."""

from __future__ import annotations

import logging
import math
import warnings
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sartorius.running import failures, processes
from sartorius.running.building import build_training
from sartorius.running.signals import KilledError
from sartorius.running.wiring import NOTHING_ELSE

if TYPE_CHECKING:
    from sartorius.planning.costs import StepCost


def measure_step(cfg: DictConfig, batches: int) -> StepCost:
    """Train so many batches (at least 2) of a training's config, of which nothing is kept or written.

    The cost of a batch: seconds with its loading, and memory; infinite memory where that of the device is not enough.
    It trains in a new process, since the largest memory of one counts from its start. Raises InputError as
    `build_training` does, and for whatever the data refuse.
    """
    import torch

    from sartorius.planning.costs import StepCost

    try:
        cost: StepCost = processes.launch(_measure, [cfg, batches, torch.get_num_threads()], 1)
    except KilledError:
        cost = StepCost(None, math.inf, measured=True)
    return cost


def _measure(cfg: DictConfig, batches: int, threads: int) -> StepCost:
    """Do so in this process, whose memory counts from its start."""
    import torch

    from sartorius.callbacks.out_of_memory import is_out_of_memory
    from sartorius.callbacks.step_timer import StepTimer
    from sartorius.planning.costs import StepCost

    torch.set_num_threads(threads)
    for key in ("callbacks", "logger", "averaging", "compile", "leaderboard"):
        OmegaConf.update(cfg, key, None, force_add=True)
    changes = {"max_epochs": batches, "limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    for key, value in {**changes, **NOTHING_ELSE, "plugins": None}.items():
        OmegaConf.update(cfg, f"trainer.{key}", value, force_add=True)
    logging.disable(logging.WARNING)  # tips and echoes of the config; the training itself warns
    warnings.simplefilter("ignore")
    timer = StepTimer(batches)
    try:
        with failures.as_input_errors():
            training = build_training(cfg)
            training.trainer.callbacks.append(timer)  # type: ignore[attr-defined]
            training.trainer.fit(training.module, training.datamodule)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return StepCost(None, math.inf, measured=True)
    return StepCost(float(f"{timer.seconds:.2g}"), timer.megabytes, measured=True)

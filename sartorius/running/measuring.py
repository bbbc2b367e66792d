"""The cost of a training step, measured by training a few of them."""

from __future__ import annotations

import logging
import math
import warnings
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sartorius.running.building import build_training
from sartorius.running.wiring import NOTHING_ELSE

if TYPE_CHECKING:
    from sartorius.planning.costs import StepCost


def measure_step(cfg: DictConfig, batches: int) -> StepCost:
    """Train so many batches (at least 2) of a training's config, of which nothing is kept or written.

    The cost of a batch: seconds with its loading, and memory; infinite memory where the GPU's is not enough. Raises
    InputError as `build_training` does, and for whatever the data refuse.
    """
    import torch

    from sartorius.callbacks.step_timer import StepTimer
    from sartorius.planning.costs import StepCost

    cfg = cfg.copy()
    for key in ("callbacks", "logger", "averaging", "compile", "leaderboard"):
        OmegaConf.update(cfg, key, None, force_add=True)
    changes = {"max_epochs": batches, "limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    for key, value in {**changes, **NOTHING_ELSE, "plugins": None}.items():
        OmegaConf.update(cfg, f"trainer.{key}", value, force_add=True)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # tips and echoes of the config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training itself warns
        training = build_training(cfg)
        timer = StepTimer(batches)
        training.trainer.callbacks.append(timer)  # type: ignore[attr-defined]
        try:
            training.trainer.fit(training.module, training.datamodule)
        except torch.OutOfMemoryError:
            del training
            torch.cuda.empty_cache()
            return StepCost(None, math.inf, measured=True)
    return StepCost(float(f"{timer.seconds:.2g}"), timer.megabytes, measured=True)

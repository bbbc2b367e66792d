"""The statistics of batch norm for weights that were never trained with: estimated by a pass over training batches."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any part keeps running statistics (frozen batch norm does not)."""
    return bool(_norms(module))


@torch.no_grad()
def estimate_batch_norm(trainer: Trainer, module: LightningModule, batches: int) -> None:
    """Set the running statistics to the mean over the first `batches` training batches of the present epoch.

    Loaded in this process, a second time, so that the training's own loader is left alone; the state of the random
    numbers and the mode of every part are afterwards as before. It is a function of weights, epoch and seed: a resumed
    run gets the same numbers.
    """
    norms = _norms(module)
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    modes = [(part, part.training) for part in module.modules()]
    logs, module.logs = getattr(module, "logs", True), False  # type: ignore[assignment]
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            module.train()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # plain means
            for number, batch in enumerate(islice(_again(trainer), batches)):
                torch.manual_seed(number)
                moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
                with trainer.precision_plugin.forward_context():
                    module.training_step(moved, number)
        finally:
            module.logs = logs  # type: ignore[assignment]
            for norm, momentum, seen in before:
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(seen)
            for part, training in modes:
                part.training = training


def _norms(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]


def _again(trainer: Trainer) -> DataLoader[Any]:
    """A loader over the batches of the present epoch, without worker processes."""
    loader: Any = trainer.train_dataloader
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
    )

"""What every LightningModule here shares: optimizer and schedule, seeds of a step, the stop on a broken loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sartorius.errors import InputError
from sartorius.losses import sum_losses

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch


class NonFiniteLossError(InputError):
    """The loss is NaN or infinite: the message names the pictures and every loss term."""

    def __init__(self, pictures: Sequence[str], losses: Mapping[str, Tensor]) -> None:
        terms = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        super().__init__(
            f"the loss is not finite on {', '.join(pictures)}: {terms}. Lower optimizer.lr, lengthen the warm-up, or "
            "train with trainer.precision=32-true; last.ckpt holds the last whole epoch"
        )


class TrainedModule(pl.LightningModule):
    """A network with its optimizer and schedule, and the step that they share.

    optimizer: called with groups of the parameters that learn; scheduler: called with the optimizer and `total_steps`,
    stepped every batch; None for a constant rate. loss_weights: factor of each loss term by name (1 where absent).
    seed: what a step draws at random is a function of it and the step, so a resumed run repeats it.

    recipe: what is needed to use the weights later, stored with every checkpoint.
    """

    recipe: dict[str, Any]

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None,
        cell_type_names: Sequence[str],
        loss_weights: Mapping[str, float] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.cell_type_names = tuple(cell_type_names)
        self.loss_weights, self.seed = dict(loss_weights or {}), seed
        self.recipe = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what the network and the sampling of regions draw in this step."""
        seed_step(self.seed, self.global_step, batch_idx, self.global_rank)

    def total(self, terms: Mapping[str, Tensor], batch: Batch, samples: int | None = None) -> Tensor:
        """The weighted sum of the loss terms, logged as train/loss and train/<term>.

        samples: what the logged means are over, the pictures of the batch where None. Raises NonFiniteLossError where
        the sum is not finite.
        """
        loss = sum_losses(terms, self.loss_weights)
        if not torch.isfinite(loss):
            raise NonFiniteLossError([target.picture for target in batch.targets], terms)
        count = len(batch.images) if samples is None else samples
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=count)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimizer over the parameters that learn, and the schedule over all steps of the training."""
        return configure(self, self.optimizer, self.scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what is needed to use the weights later."""
        checkpoint["sartorius"] = self.recipe


def configure(
    module: pl.LightningModule, optimizer: Callable[..., Optimizer], scheduler: Callable[..., Any] | None
) -> Any:
    """Lightning's configure_optimizers: weight decay only where it belongs, the schedule stepped every batch.

    Biases and the parameters of norms are not decayed (they have one dimension; Goyal et al. 2017, 5.3).
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learning if p.ndim > 1]},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    built = optimizer([group for group in groups if group["params"]])
    if not scheduler:  # None, or the empty config of scheduler=none
        return built
    schedule = scheduler(built, total_steps=int(module.trainer.estimated_stepping_batches))
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def seed_step(*key: int) -> None:
    """Make torch's random numbers of this training step a function of `key`: seed, step, batch of the epoch, rank."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int, final_fraction: float) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_fraction` of the rate at `total_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def warmup_steps_down(
    optimizer: Optimizer, total_steps: int, warmup_steps: int, milestones: Sequence[float], gamma: float
) -> LambdaLR:
    """Linear warm-up, then the rate times `gamma` at each of `milestones` (fractions of `total_steps`)."""

    def factor(step: int) -> float:
        warm = min((step + 1) / (warmup_steps + 1), 1.0)
        return warm * gamma ** sum(step >= milestone * total_steps for milestone in milestones)

    return LambdaLR(optimizer, factor)

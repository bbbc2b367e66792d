"""What every LightningModule here shares: optimizer and schedule, seeds of a step, the stop on a broken loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.modules.layer_rates import LayerRates

# checkpoints of earlier versions name them here
from sartorius.modules.schedules import warmup_cosine as warmup_cosine
from sartorius.modules.schedules import warmup_steps_down as warmup_steps_down
from sartorius.networks.losses import sum_losses

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch
    from sartorius.networks.weights import LoadReport


class NonFiniteLossError(InputError):
    """The loss is NaN or infinite: the message names the images and every loss term."""

    def __init__(self, images: Sequence[str], losses: Mapping[str, Tensor]) -> None:
        terms = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        super().__init__(
            f"the loss is not finite on {', '.join(images)}: {terms}. Lower optimizer.lr, lengthen the warm-up, or "
            "train with trainer.precision=32-true; last.ckpt holds the last whole epoch"
        )


class TrainedModule(pl.LightningModule):
    """A network with its optimizer and schedule, and the step that they share.

    optimizer: called with groups of the parameters that learn; scheduler: called with the optimizer and `total_steps`,
    stepped after every optimizer step; None for a constant rate. loss_weights: factor of each loss term by name (1
    where absent). seed: what a step draws at random is a function of it and the step, so a resumed run repeats it.

    recipe: what is needed to use the weights later, stored with every checkpoint. layer_rates: lower rates in the
    backbone, None for none. logs: whether steps log their losses. started_from: the weights that the whole network
    started from, None for none.
    """

    recipe: dict[str, Any]
    layer_rates: LayerRates | None = None
    logs: bool = True
    started_from: LoadReport | None = None

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

    def setup(self, stage: str) -> None:
        """Before a fit: note in the recipe which images have a part in the weights.

        Raises InputError where the weights it starts from have seen images that are held back here.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None:
            start = self.started_from
            recipe, source = (None, None) if start is None else (start.recipe, start.source)
            provenance.note(self.recipe, datamodule, recipe, source)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run started from what the first one started from."""
        earlier = checkpoint.get("sartorius", {}).get(provenance.KEY)
        if earlier is not None:
            self.recipe[provenance.KEY] = {**earlier, **self.recipe.get(provenance.KEY, {})}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what the network and the sampling of regions draw in this step."""
        seed_step(self.seed, self.global_step, batch_idx, self.global_rank)

    def total(self, terms: Mapping[str, Tensor], batch: Batch, samples: int | None = None) -> Tensor:
        """The weighted sum of the loss terms, logged as train/loss and train/<term> (where `logs`).

        samples: what the logged means are over, the images of the batch where None. Raises NonFiniteLossError where
        the sum is not finite.
        """
        loss = sum_losses(terms, self.loss_weights)
        if not torch.isfinite(loss):
            raise NonFiniteLossError([target.image_id for target in batch.targets], terms)
        if not self.logs:
            return loss
        count = len(batch.images) if samples is None else samples
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=count)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimizer over the parameters that learn, and the schedule over all steps of the training."""
        return configure(self, self.optimizer, self.scheduler, self.layer_rates)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what is needed to use the weights later."""
        checkpoint["sartorius"] = self.recipe


def configure(
    module: pl.LightningModule,
    optimizer: Callable[..., Optimizer],
    scheduler: Callable[..., Any] | None,
    rates: LayerRates | None = None,
) -> Any:
    """Lightning's configure_optimizers: weight decay only where it belongs, the schedule stepped with the optimizer.

    Biases and the parameters of norms are not decayed (they have one dimension; Goyal et al. 2017, 5.3). The schedule
    gets the number of optimizer steps up to trainer.max_epochs or max_steps; trainer.max_time may end it early.

    Raises InputError where a schedule is asked for and nothing but trainer.max_time ends the training, and for options
    that it does not have.
    """
    factors = {} if rates is None else rates.factors(module)
    groups, scales = _groups(module, factors)
    built = optimizer(groups)
    for group, scale in zip(built.param_groups, scales, strict=True):
        group["lr"] *= scale
    if not callable(scheduler):  # None, or the config of scheduler=none: empty, or what an experiment set for another
        return built
    steps = total_steps(module.trainer)
    try:
        schedule = scheduler(built, total_steps=steps)
    except TypeError as error:
        raise InputError(f"scheduler: {error}; leave out an option of another schedule by ~scheduler.<name>") from error
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _groups(module: nn.Module, factors: Mapping[str, float]) -> tuple[list[dict[str, Any]], list[float]]:
    """Groups of the parameters that learn, and the factor of the rate of each: the lowest rate last."""
    learning = [(factors.get(name, 1.0), p) for name, p in module.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    scales = []
    for scale in sorted({scale for scale, _ in learning}, reverse=True):
        own = [p for factor, p in learning if factor == scale]
        for group in (
            {"params": [p for p in own if p.ndim > 1]},
            {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0},
        ):
            if group["params"]:
                groups.append(group)
                scales.append(scale)
    return groups, scales


def total_steps(trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole training; raises InputError where only the clock or a person ends it."""
    steps = trainer.estimated_stepping_batches
    if not 0 <= steps < float("inf"):
        raise InputError(
            "trainer.max_epochs=-1: a schedule goes by the share of all steps; set trainer.max_epochs or "
            "trainer.max_steps (trainer.max_time may stop the training earlier), or scheduler=none"
        )
    return int(steps)


def seed_step(*key: int) -> None:
    """Make torch's random numbers of this training step a function of `key`: seed, step, batch of the epoch, rank."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))

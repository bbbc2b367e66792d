"""The base of the modules that are trained: optimizer and schedule, seeds of a step, the stop on a broken loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.modules.base import SegmentationModule
from sartorius.modules.lr_decay import LRDecay
from sartorius.networks.checkpoints import KEY
from sartorius.networks.losses import sum_losses
from sartorius.structures.cell_types import CELL_TYPES

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch
    from sartorius.networks.weights import LoadReport


class NonFiniteLossError(InputError):
    """A loss that is NaN or infinite: the message names the images and every loss term."""

    def __init__(self, images: Sequence[str], losses: Mapping[str, Tensor]) -> None:
        terms = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        super().__init__(
            f"the loss is not finite on {', '.join(images)}: {terms}. Lower optimizer.lr, lengthen the warm-up, or "
            "train with trainer.precision=32-true; last.ckpt holds the last whole epoch"
        )


class TrainingOptions(TypedDict, total=False):
    """The arguments of TrainedModule that every module hands on."""

    scheduler: Callable[..., Any] | None
    lr_decay: LRDecay | None
    loss_weights: Mapping[str, float] | None
    seed: int
    cell_type_names: Sequence[str]


class TrainedModule(SegmentationModule):
    """A network with its optimizer and schedule, and the training step that they share.

    optimizer: called with groups of the parameters that learn. scheduler: called with the optimizer and `total_steps`,
    stepped after every optimizer step; None for a constant rate. lr_decay: lower rates in the backbone, None for none.
    loss_weights: factor of each loss term by name (1 where absent). seed: random numbers of a step are a function of it
    and the step, so a resumed run repeats them.

    started_from: the weights that the whole network started from, None for none.
    """

    started_from: LoadReport | None = None

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        lr_decay: LRDecay | None = None,
        loss_weights: Mapping[str, float] | None = None,
        seed: int = 0,
        cell_type_names: Sequence[str] = CELL_TYPES,
    ) -> None:
        super().__init__(cell_type_names)
        self.network, self.optimizer, self.scheduler, self.lr_decay = network, optimizer, scheduler, lr_decay
        self.loss_weights, self.seed = dict(loss_weights or {}), seed
        self._fits = False  # or validates, tests, predicts

    def setup(self, stage: str) -> None:
        """Before a fit, record in `hparams` the images that the weights are trained on.

        Raises InputError where the weights it starts from were trained on images that are held back here.
        """
        self._fits = stage == "fit"
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if self._fits and datamodule is not None:
            start = self.started_from
            metadata, source = (None, None) if start is None else (start.metadata, start.source)
            provenance.note(self.hparams, datamodule, metadata, source)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the images that the resumed run had started from."""
        earlier = checkpoint.get(KEY, {}).get(provenance.KEY)
        if earlier is not None:
            self.hparams[provenance.KEY] = {**earlier, **self.hparams.get(provenance.KEY, {})}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of the network and of the sampling of regions in this step."""
        seed_step(self.seed, self.global_step, batch_idx, self.global_rank)

    def total(self, terms: Mapping[str, Tensor], batch: Batch, samples: int | None = None) -> Tensor:
        """Compute the weighted sum of the loss terms, logged as train/loss and train/<term>.

        samples: how many the logged means are over, the images of the batch where None. Raises NonFiniteLossError where
        the sum is not finite.
        """
        loss = sum_losses(terms, self.loss_weights)
        if not torch.isfinite(loss):
            raise NonFiniteLossError([target.image_id for target in batch.targets], terms)
        count = len(batch.images) if samples is None else samples
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=count)
        return loss

    def log_scores(self, scores: Mapping[str, Tensor], count: int) -> None:
        """Log means over `count` images or cells of a validation or test; loggers get those of a fit only.

        The best checkpoint is validated after the fit, and would be a point at the end of its curve.
        """
        self.log_dict(dict(scores), logger=self._fits, batch_size=count, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the parameters that learn, and the schedule over all steps of the training."""
        return configure(self, self.optimizer, self.scheduler, self.lr_decay)


def configure(
    module: pl.LightningModule,
    optimizer: Callable[..., Optimizer],
    scheduler: Callable[..., Any] | None,
    lr_decay: LRDecay | None = None,
) -> Any:
    """Build Lightning's optimizers: weight decay only where it belongs, the schedule stepped with the optimizer.

    Biases and the parameters of norms are not decayed (they have one dimension; Goyal et al. 2017, 5.3). The schedule
    gets the number of optimizer steps up to trainer.max_epochs or max_steps; trainer.max_time may end it early.

    Raises InputError for a schedule where nothing but trainer.max_time ends the training, and for options that it or
    the optimizer does not have.
    """
    factors = {} if lr_decay is None else lr_decay.factors(module)
    groups, scales = _groups(module, factors)
    try:
        built = optimizer(groups)
    except (ValueError, TypeError) as error:  # such as nesterov without momentum, or an option of another optimizer
        raise InputError(f"optimizer: {error}") from error
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
    """Make groups of the parameters that learn, and the factor of the rate of each: the lowest rate last."""
    learning = [(factors.get(name, 1.0), p) for name, p in module.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    scales = []
    for scale in sorted({scale for scale, _ in learning}, reverse=True):
        members = [p for factor, p in learning if factor == scale]
        for group in (
            {"params": [p for p in members if p.ndim > 1]},
            {"params": [p for p in members if p.ndim <= 1], "weight_decay": 0.0},
        ):
            if group["params"]:
                groups.append(group)
                scales.append(scale)
    return groups, scales


def total_steps(trainer: pl.Trainer) -> int:
    """Count the optimizer steps of the whole training; raises InputError where only the clock or a person ends it."""
    steps = trainer.estimated_stepping_batches
    if not 0 <= steps < float("inf"):
        raise InputError(
            "trainer.max_epochs=-1: a schedule goes by the share of all steps; set trainer.max_epochs or "
            "trainer.max_steps (trainer.max_time may stop the training earlier), or scheduler=none"
        )
    return int(steps)


def seed_step(*key: int) -> None:
    """Seed torch's random numbers of this training step by `key`: seed, step, batch of the epoch, rank."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))

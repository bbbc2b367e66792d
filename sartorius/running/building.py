"""The objects of a training, built from its config."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sartorius.networks import checkpoints
from sartorius.running import all_images, precision, resume_check
from sartorius.running.wiring import build_trainer, instantiate, instantiate_all, plain
from sartorius.structures.constructible import check_calls

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, Trainer

    from sartorius.loggers.tolerant import TolerantLogger
    from sartorius.modules.base import SegmentationModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """A module, its data and the trainer that fits it."""

    module: SegmentationModule
    datamodule: LightningDataModule
    trainer: Trainer


def build_training(cfg: DictConfig) -> Training:
    """Seed everything, then build the module, the data and the trainer (with callbacks and loggers) of a config.

    Raises InputError for a model or post-processing that its own checkpoints could not be used with, a checkpoint to
    resume that does not fit, and a precision that the device lacks.
    """
    from sartorius.data.loading.labelled import LabelledDataModule
    from sartorius.postprocess.saved import build as build_postprocess  # SciPy: not for --help

    seed_everything(cfg.seed)
    resolve_precision(cfg.trainer)
    datamodule = instantiate(cfg.data)
    all_images.switch_off(cfg)
    check_calls(plain(cfg.model), "model")  # or its checkpoints could be trained but not used
    if cfg.get("postprocess"):
        build_postprocess(plain(cfg.postprocess), "train")  # likewise
    module = build_module(cfg, pretrained=cfg.ckpt_path is None)
    if isinstance(datamodule, LabelledDataModule):
        module.hparams.update(pixel_size=datamodule.pixel_size, reading=dict(datamodule.reading))
    if cfg.ckpt_path is not None:
        resume_check.check_resume(cfg.ckpt_path, module, datamodule)
    if cfg.compile:
        instantiate(cfg.compile, network=module.network)
    callbacks = instantiate_all(cfg.callbacks)
    if cfg.averaging:  # first: the others see the weights that it puts in place
        callbacks.insert(0, instantiate(cfg.averaging))
    loggers = build_loggers(cfg.logger)
    if not loggers:
        callbacks = [callback for callback in callbacks if not needs_logger(callback)]
    return Training(module, datamodule, build_trainer(cfg.trainer, callbacks=callbacks, logger=loggers))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, dataloader workers too."""
    import pytorch_lightning as pl

    pl.seed_everything(seed, workers=True, verbose=False)


def build_module(cfg: DictConfig, pretrained: bool = True) -> SegmentationModule:
    """Build the module of `cfg.model`, with the metadata of its checkpoints as `hparams` (see `networks.checkpoints`).

    pretrained=False skips pretrained weights; a checkpoint supplies them.
    """
    model = plain(cfg.model)  # resolved first: the choice of norm layers depends on the weights
    module: SegmentationModule = instantiate(model if pretrained else checkpoints.without_weights(model))
    module.hparams.update(
        format_version=checkpoints.FORMAT_VERSION,
        model=model,
        cell_types=list(module.cell_type_names),
        postprocess=plain(cfg.get("postprocess")),
        data=OmegaConf.select(cfg, "data.name"),
        pixel_size=OmegaConf.select(cfg, "data.pixel_size"),
        config=plain(cfg),
    )
    return module


def build_loggers(cfg: DictConfig | None) -> list[TolerantLogger]:
    """Build the loggers of the config, none of which can stop the training; entries set to null are left out."""
    from sartorius.loggers.tolerant import TolerantLogger

    names = [name for name, entry in (cfg or {}).items() if entry is not None]
    return [
        TolerantLogger(logger, f"logger.{name!s}") for name, logger in zip(names, instantiate_all(cfg), strict=True)
    ]


def needs_logger(callback: Callback) -> bool:
    """Whether Lightning refuses the callback where there is no logger at all."""
    from pytorch_lightning.callbacks import LearningRateMonitor

    return isinstance(callback, LearningRateMonitor)


def resolve_precision(trainer: DictConfig) -> None:
    """Replace `trainer.precision=auto` by the precision for this machine, in place, and log it in one line.

    Called before anything is built or saved from the config, so that the run records the precision that it has. Raises
    InputError as `precision.resolve` does.
    """
    resolved, reason = precision.resolve(trainer.precision, trainer.accelerator, precision.read_hardware())
    if reason:
        log.info("trainer.precision=%s (auto: %s)", resolved, reason)
    trainer.precision = resolved

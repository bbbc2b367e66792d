"""Predictions over images, built from the config of a command; and of one image, in Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.running import loading
from sartorius.running.building import resolve_precision
from sartorius.running.freed_memory import keep_freed_memory
from sartorius.running.wiring import NOTHING_ELSE, build_trainer, instantiate_all, plain

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

    from sartorius.inference.tta import Augmented
    from sartorius.modules.base import SegmentationModule
    from sartorius.postprocess.finalise import Finalised
    from sartorius.structures.arrays import GreyImage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One pass of a module over the images, whose trainer writes detections into `folder`.

    view: the windows to predict through; None: those that the module has.
    """

    folder: Path
    trainer: Trainer
    view: Augmented | None = None


def model_source(checkpoint: str | None, stages: Mapping[str, Any] | None) -> str:
    """Describe the model in a few words; raises InputError unless it is either a checkpoint or two trained stages."""
    stages = stages or {}
    if not stages and checkpoint is not None:
        return str(checkpoint)
    if checkpoint is not None or not stages.get("first") or not stages.get("second"):
        raise InputError(
            "give either checkpoint=runs/<run>/checkpoints/best.ckpt, or model=two_stage with model.first=<a "
            "checkpoint or a folder of detections> and model.second=<a crop segmenter's checkpoint>"
        )
    return f"{stages['first']} + {stages['second']}"


def build_predictions(cfg: DictConfig, images: Sequence[str]) -> tuple[SegmentationModule, list[Prediction]]:
    """Load the model of a config and build its pass over the images: one a view where `tta.fuse` is null, else one.

    images: ids. Those that the model was trained on are warned of, and named in meta.json for whoever scores them.
    Detections are saved with the post-processing and the filter that the config adds to those of the checkpoint; a
    single pass writes the cells of `write` too. Raises InputError as `model_source` does, and for what does not fit the
    checkpoint.
    """
    from sartorius.postprocess.saved import from_saved, to_saved
    from sartorius.rescoring import saved as saved_filter

    source = model_source(cfg.checkpoint, plain(cfg.get("model")))
    if cfg.checkpoint is not None:
        module = loading.load_module(cfg.checkpoint, cfg.inference)
    else:
        module = loading.load_stages(cfg.model, cfg.inference)
    postprocess = from_saved(module.hparams.get("postprocess"), plain(cfg.postprocess), source)
    meta: dict[str, Any] = {
        "checkpoint": source,
        "images": str(cfg.images),
        "tta": plain(cfg.tta) or None,
        "postprocess": to_saved(postprocess),
        "overlaps": cfg.overlaps,
        saved_filter.KEY: saved_filter.to_save(cfg.filter, module.cell_type_names),
        provenance.KEY: _trained_on(module, images, source),
    }
    folder = Path(cfg.callbacks.prediction_writer.folder)
    views = loading.add_tta(module, cfg.tta, source) if cfg.tta else None
    if views is None or views.fuse is not None:
        shown = saved_filter.with_filter(postprocess, saved_filter.from_entry(meta[saved_filter.KEY], source))
        callbacks = instantiate_all(cfg.callbacks, cells={"postprocess": shown}, prediction_writer={"meta": meta})
        return module, [Prediction(folder, build_predictor(cfg.trainer, callbacks))]
    without_cells = DictConfig({**plain(cfg.callbacks), "cells": None})
    predictions = []
    for name, view in views.apart().items():
        own = folder.with_name(f"{folder.name}_{name}")
        writer = {"folder": str(own), "meta": {**meta, "view": name}}
        callbacks = instantiate_all(without_cells, prediction_writer=writer)
        predictions.append(Prediction(own, build_predictor(cfg.trainer, callbacks), view))
    return module, predictions


def _trained_on(module: SegmentationModule, images: Sequence[str], source: str) -> dict[str, str]:
    """Choose those of the images that the model was trained on, id -> place, and warn of them."""
    if seen := provenance.seen_among(images, module.hparams.get(provenance.KEY)):
        log.warning(
            "%s: was trained on %d of these %d images (%s, ...): their detections flatter any score and any threshold",
            source, len(seen), len(images), next(iter(seen)),
        )  # fmt: skip
    return seen


def build_predictor(trainer: DictConfig, callbacks: Sequence[Callback]) -> Trainer:
    """Build the trainer of a config, with these callbacks, `OutOfMemory` and `Sigterm` alone: no logger."""
    from sartorius.callbacks.out_of_memory import OutOfMemory
    from sartorius.callbacks.sigterm import Sigterm

    resolve_precision(trainer)
    keep_freed_memory()
    return build_trainer(trainer, callbacks=[*callbacks, OutOfMemory(), Sigterm()], **NOTHING_ELSE)


def run_prediction(module: LightningModule, datamodule: LightningDataModule, trainer: Trainer) -> None:
    """Apply the module to the images, of which each process takes its share; the trainer's callbacks write the results.

    Returns when all processes are done. Raises KeyboardInterrupt when a person stops it, InputError where memory runs
    out.
    """
    from sartorius.callbacks.out_of_memory import explain_memory

    try:
        trainer.predict(module, datamodule, return_predictions=False)
        trainer.strategy.barrier("predicted")
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        if (known := explain_memory(error, trainer)) is not None:
            raise known from error
        raise


def predict_image(module: SegmentationModule, image: GreyImage) -> Finalised:
    """Predict the cells of one grey image, uint8 [H, W], through the module's windows and its own post-processing."""
    import torch

    from sartorius.data.dataset import Batch, Target
    from sartorius.postprocess.saved import from_saved
    from sartorius.structures.instances import Instances

    target = Target.from_instances("image", 0, Instances.empty(*image.shape))
    trained = module.training
    with torch.inference_mode():
        batch = Batch([torch.from_numpy(image)[None].to(module.device)], [target])
        (detections,) = module.eval().predict_step(batch, 0)
    module.train(trained)
    return from_saved(module.hparams.get("postprocess"), None, "the module")(detections)

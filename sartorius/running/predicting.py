"""Predictions over images, built from the config of a command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.data import provenance
from sartorius.data.files.reading import Reading
from sartorius.errors import InputError
from sartorius.running import continued, loading, processes
from sartorius.running.building import resolve_precision
from sartorius.running.views import describe_views, describe_windows, limit_views
from sartorius.running.wiring import NOTHING_ELSE, build_trainer, instantiate, instantiate_all, plain
from sartorius.structures.freed_memory import keep_freed_memory

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

    from sartorius.data.files.source import FileImages
    from sartorius.data.loading.images import ImagesDataModule
    from sartorius.inference.tta import Augmented
    from sartorius.modules.base import SegmentationModule
    from sartorius.postprocess.finalise import Postprocess

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One pass of a module over the images, whose trainer writes detections into `folder`.

    view: the windows to predict through; None: those that the module has.
    """

    folder: Path
    trainer: Trainer
    view: Augmented | None = None


_FILES = ("first", "second", "members")  # settings of a model that is put together


def model_source(checkpoint: str | None, model: Mapping[str, Any] | None) -> str:
    """Describe the model in a few words; raises InputError as `model_files`."""
    return " + ".join(model_files(checkpoint, model).values())


def model_files(checkpoint: str | None, model: Mapping[str, Any] | None) -> dict[str, str]:
    """List the files of a model by what they are in it: `checkpoint`, `first` and `second`, or the names of members.

    Raises InputError unless it is either a checkpoint, or put together of two trained stages or of several members.
    """
    model = model or {}
    if not model and checkpoint is not None:
        return {"checkpoint": str(checkpoint)}
    if checkpoint is None and (members := model.get("members")):
        named = members.items() if isinstance(members, dict) else enumerate(members)
        return {str(name): str(file) for name, file in named}
    if checkpoint is not None or not model.get("first") or not model.get("second"):
        raise InputError(
            "give either checkpoint=runs/<run>/checkpoints/best.ckpt, or model=two_stage with model.first=<a "
            "checkpoint or a folder of detections> and model.second=<a crop segmenter's checkpoint>, or model=joined "
            "with 'model.members={a: A.ckpt, b: B.ckpt}'"
        )
    return {name: str(model[name]) for name in ("first", "second")}


def load_model(cfg: DictConfig) -> SegmentationModule:
    """Load the model of a config; raises InputError as `model_source` does and for what does not fit the checkpoint."""
    model_source(cfg.checkpoint, plain(cfg.get("model")))
    if cfg.checkpoint is not None:
        return loading.load_module(cfg.checkpoint, cfg.inference)
    load = loading.load_joined if "members" in cfg.model else loading.load_stages
    return load(cfg.model, cfg.inference)


def build_images(cfg: DictConfig, module: SegmentationModule) -> ImagesDataModule:
    """Build the images of a config, at the grey levels, the scale and the reading of those of the module's training."""
    metadata = module.hparams
    read = _read_alike(cfg.data, metadata)
    told = {key: cfg.data[key] for key in ("mean_tolerance", "std_factor") if cfg.data.get(key) is not None}
    read |= {**asdict(Reading.of_training(metadata, read["levels"]).levels), **told}
    images: ImagesDataModule = instantiate(cfg.data, **read, trained_at=metadata.get("pixel_size"))
    return images


def _read_alike(data: DictConfig, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return how files are read: as told or, where nothing is, as those of the training; both are logged."""
    told = {"channel": data.channel, "pages": data.pages, "levels": data.levels}
    trained, usual = Reading.of_training(metadata).options(), Reading().options()
    read = {key: trained[key] if value is None else value for key, value in told.items()}
    taken = [key for key, value in told.items() if value is None and trained[key] != usual[key]]
    other = [key for key, value in told.items() if metadata.get("reading") and read[key] != trained[key]]
    if taken:
        settings = ", ".join(f"{key}={read[key]}" for key in taken)
        log.info("files are read as those of the training, where no option tells another way: %s", settings)
    if other:
        settings = ", ".join(f"{key}={read[key]} in place of {key}={trained[key]}" for key in other)
        log.warning("files are read in another way than those of the training: %s", settings.replace("=None", "=null"))
    return read


def build_predictions(cfg: DictConfig, module: SegmentationModule, images: ImagesDataModule) -> list[Prediction]:
    """Build the pass of a module over the images: one a view where `tta.fuse` is null, else one; sets the images up.

    Those that an earlier run of the same command predicted are left out. Those that the model was trained on are warned
    of, and named in meta.json for whoever scores them. Detections are saved with the post-processing and the filter
    that the config adds to those of the checkpoint; a single pass writes the cells of `write` too. Raises InputError as
    `Continued` and the setup of the images do, and for what does not fit the checkpoint.
    """
    from sartorius.postprocess.saved import from_saved
    from sartorius.rescoring import saved as saved_filter

    source = model_source(cfg.checkpoint, plain(cfg.get("model")))
    postprocess = from_saved(module.hparams.get("postprocess"), plain(cfg.postprocess), source, module.cell_type_names)
    fitted = saved_filter.entry_of(cfg.filter, module.hparams, module.cell_type_names, source)
    if fitted and cfg.filter == saved_filter.SAVED:
        log.info("%s: its filter, %s, drops false positives; filter=none leaves it out", source, fitted.get("file"))
    folder = Path(cfg.callbacks.prediction_writer.folder)
    views = loading.add_tta(module, cfg.tta, source) if cfg.tta else None
    if cfg.views is not None:
        limit_views(module, cfg.views)
        views = views and views.limited(cfg.views)
    meta = _describe(cfg, module, images, postprocess, fitted)
    meta |= {"checkpoint": source, provenance.KEY: _trained_on(module, images.source, source)}
    apart = views.apart() if views is not None and views.fuse is None else {}
    folders = [folder.with_name(f"{folder.name}_{name}") for name in apart] or [folder]
    earlier = continued.Continued(Path(str(cfg.output)), folders, meta[continued.KEY], images.source.ids)
    images.setup("predict", earlier.is_done(images.source.path))
    meta["skipped"] = images.problems
    log.info("where this is stopped, the same command with output=%s continues it", cfg.output)
    if not apart:
        shown = saved_filter.with_filter(postprocess, saved_filter.from_entry(fitted, source))
        callbacks = instantiate_all(cfg.callbacks, cells={"postprocess": shown}, prediction_writer={"meta": meta})
        return [Prediction(folder, build_predictor(cfg.trainer, callbacks))]
    without_cells = DictConfig({**plain(cfg.callbacks), "cells": None})
    predictions = []
    for own, (name, view) in zip(folders, apart.items(), strict=True):
        writer = {"folder": str(own), "meta": {**meta, "view": name}}
        callbacks = instantiate_all(without_cells, prediction_writer=writer)
        predictions.append(Prediction(own, build_predictor(cfg.trainer, callbacks), view))
    return predictions


def _describe(
    cfg: DictConfig,
    module: SegmentationModule,
    images: ImagesDataModule,
    postprocess: Postprocess,
    fitted: dict[str, str] | None,
) -> dict[str, Any]:
    """Make the entries of meta.json that tell how the images are predicted, and which command continues this one."""
    from sartorius.postprocess.saved import to_saved
    from sartorius.rescoring import saved as saved_filter

    shared = {
        "reading": images.settings,
        "tta": describe_views(module),
        "postprocess": to_saved(postprocess),
        "overlaps": cfg.overlaps,
    }
    model = plain(cfg.get("model")) or {}
    files = model_files(cfg.checkpoint, model)
    made_with = {
        "checkpoint": [[name, continued.fingerprint(file)] for name, file in files.items()],  # their order decides too
        "model": {key: value for key, value in model.items() if key not in _FILES},
        "inference": describe_windows(module),
        "large": plain(cfg.large),
        saved_filter.KEY: fitted and fitted["content"],
        **shared,
    }
    return {**shared, "images": images.files, saved_filter.KEY: fitted, continued.KEY: made_with}


def _trained_on(module: SegmentationModule, images: FileImages, source: str) -> dict[str, str]:
    """Choose those of the images that the model was trained on, id -> place, and warn of them.

    An image is known by its id or the name of its file, in whatever folder that lies.
    """
    names = {image_id: (images.path(image_id).stem, image_id) for image_id in images.ids}
    every = {name for pair in names.values() for name in pair}
    found = provenance.seen_among(every, module.hparams.get(provenance.KEY))
    if seen := {image_id: found[name] for image_id, pair in names.items() for name in pair if name in found}:
        log.warning(
            "%s: was trained on %d of these %d images (%s, ...): their detections flatter any score and any threshold",
            source, len(seen), len(images.ids), next(iter(seen)),
        )  # fmt: skip
    return seen


def build_predictor(trainer: DictConfig, callbacks: Sequence[Callback]) -> Trainer:
    """Build the trainer of a config, with these callbacks, `OutOfMemory` and `Sigterm` alone: no logger."""
    from sartorius.callbacks.out_of_memory import OutOfMemory
    from sartorius.callbacks.sigterm import Sigterm

    resolve_precision(trainer)
    keep_freed_memory()
    return build_trainer(trainer, callbacks=[*callbacks, OutOfMemory(), Sigterm()], **NOTHING_ELSE)


def run_left(module: SegmentationModule, images: ImagesDataModule, trainer: Trainer) -> None:
    """Apply the module to the images that are left, see `run_prediction`, and write the files of all images."""
    from sartorius.callbacks.cells_writer import CellsWriter

    if images.left:
        run_prediction(module, images, trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, CellsWriter) and processes.rank() == 0:
            callback.finish(images)


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

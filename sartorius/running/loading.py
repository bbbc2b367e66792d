"""Trained modules, loaded from the checkpoints that `sartorius.train` writes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running.wiring import Config, instantiate, plain

if TYPE_CHECKING:
    from sartorius.inference.tta import Augmented
    from sartorius.modules.base import SegmentationModule
    from sartorius.structures.detections import DetectionsFolder


log = logging.getLogger(__name__)


def load_module(checkpoint: str | Path, inference: Config | None = None) -> SegmentationModule:
    """Load the module of a checkpoint that `sartorius.train` wrote, or of a bundle, on the CPU in eval mode.

    inference: config of the windows through which it predicts, in place of those in its metadata, under the same views;
    None or an empty one (`inference: saved`) changes nothing. Nothing is downloaded: pretrained weights of the
    metadata are skipped, the checkpoint holds them all.

    Raises InputError as `checkpoints.read_checkpoint` and `build_model` do (a checkpoint may come from anywhere), when
    the weights do not fit the model, and for windows that it does not take.
    """
    from sartorius.inference.tta import replaced
    from sartorius.modules.base import SegmentationModule

    state = checkpoints.read_checkpoint(checkpoint)
    metadata = state[checkpoints.KEY]
    module = checkpoints.build_model(metadata, state["state_dict"], checkpoint)
    if not isinstance(module, SegmentationModule):
        raise InputError(f"{checkpoint}: refused, its metadata describe a {type(module).__name__}, which is no model")
    checkpoints.load_weights(module, state, checkpoint)
    module.hparams.update(metadata)
    if inference:
        if module.inference is None:
            raise InputError(f"{checkpoint}: a {type(module).__name__} takes whole images only; leave out inference=")
        module.change_windows(partial(replaced, new=instantiate(inference)))
        module.hparams["model"] = module.described(metadata["model"])
    return module.eval()


def load_stages(model: DictConfig, inference: Config | None = None) -> SegmentationModule:
    """Load a model of two trained stages (`conf/model/two_stage.yaml`) in eval mode.

    `first` is a checkpoint, whose windows `inference` replaces as in `load_module`, or a folder of detections; `second`
    a checkpoint. Raises InputError as `load_module` does, for a folder that is not one of detections, and for windows
    with a folder, which was predicted already.
    """
    from sartorius.structures.detections import DetectionsFolder

    first: SegmentationModule | DetectionsFolder
    if Path(str(model.first)).is_dir():
        if inference:
            raise InputError(f"inference= is for a network; {model.first} holds its detections already")
        first = DetectionsFolder(model.first)
    else:
        first = load_module(model.first, inference)
    second = load_module(model.second)
    _tell_filter(model.first, first.meta if isinstance(first, DetectionsFolder) else first.hparams, "two-stage")
    _tell_filter(model.second, second.hparams, "two-stage")
    options = {key: value for key, value in plain(model).items() if key not in ("first", "second")}
    module: SegmentationModule = instantiate(options, first=first, second=second)
    return module.eval()


def load_joined(model: DictConfig, inference: Config | None = None) -> SegmentationModule:
    """Load several trained models as one (`conf/model/joined.yaml`) in eval mode.

    `members` are checkpoints or bundles, by name or in a list; `inference` replaces the windows of each. Raises
    InputError as `load_module`, `members.shared_names`, `members.weight_table` and `joined.joined_metadata` do, and
    for a member that finds no cells by itself.
    """
    import numpy as np

    from sartorius.fusion.members import shared_names, weight_table
    from sartorius.fusion.sources import saved_thresholds
    from sartorius.modules.crop_segmenter import CropSegmenterModule
    from sartorius.modules.joined import joined_metadata

    options = plain(model)
    given, weights = options.pop("members"), options.pop("member_weights")
    files = {str(name): str(file) for name, file in (given.items() if isinstance(given, dict) else enumerate(given))}
    modules = {name: load_module(file, inference) for name, file in files.items()}
    for name, module in modules.items():
        if isinstance(module, CropSegmenterModule):
            raise InputError(f"model.members.{name}: {files[name]} is a crop segmenter; give it as model.second=")
        _tell_filter(files[name], module.hparams, "joined")
    types = {name: module.cell_type_names for name, module in modules.items()}
    names = shared_names({Path(files[name]): listed for name, listed in types.items()}, ())
    known = {name: np.isin(names, listed) for name, listed in types.items()}
    thresholds = {
        name: saved_thresholds(module.hparams.get("postprocess"), types[name], names, files[name]).tolist()
        for name, module in modules.items()
    }
    table = {name: w.tolist() for name, w in weight_table(known, weights, names, "model.member_weights").items()}
    parts = {"member_weights": table, "mask_thresholds": thresholds, "cell_type_names": names}
    joined = instantiate(options, members=modules, **parts)
    joined.hparams.update(joined_metadata(joined))
    return cast("SegmentationModule", joined.eval())


def _tell_filter(file: str, metadata: Mapping[str, Any], kind: str) -> None:
    """Warn of the false-positive filter of a part of a model."""
    if metadata.get("filter"):
        log.warning("%s: its filter is of its own cells, and is left out of the %s model", file, kind)


def add_tta(module: SegmentationModule, tta: Config, source: str) -> Augmented | None:
    """Apply a module to several views of each image, through the windows that it has; returns the `Augmented`.

    They replace the views that the module came with; `tta=none` removes those and returns None. Of a two-stage model
    the first stage takes them. Raises InputError, naming `source`, for a module that takes whole images only and for a
    first stage that was predicted already.
    """
    from sartorius.inference.tta import Augmented, unaugmented
    from sartorius.inference.windows import Whole

    views = instantiate(tta, windows=unaugmented(module.inference or Whole()))
    if module.inference is None and isinstance(views, Augmented):
        raise InputError(f"{source}: tta= is for a network, not for a {type(module).__name__}; leave it out")
    if module.inference is not None:
        module.change_windows(lambda windows: instantiate(tta, windows=unaugmented(windows)))
    return views if isinstance(views, Augmented) else None

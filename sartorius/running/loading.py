"""Trained modules, loaded from the checkpoints that `sartorius.train` writes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running.wiring import Config, instantiate, plain

if TYPE_CHECKING:
    from sartorius.inference.tta import Augmented
    from sartorius.modules.base import SegmentationModule
    from sartorius.structures.detections import DetectionsFolder


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
    options = {key: value for key, value in plain(model).items() if key not in ("first", "second")}
    module: SegmentationModule = instantiate(options, first=first, second=load_module(model.second))
    return module.eval()


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

"""Trained modules, loaded from the checkpoints that `sartorius.train` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running.wiring import Config, instantiate, plain

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule


def load_module(checkpoint: str | Path, inference: Config | None = None) -> tuple[LightningModule, dict[str, Any]]:
    """Load the module of a checkpoint that `sartorius.train` wrote, on the CPU in eval mode, with its recipe.

    inference: config of the windows it is applied to, in place of the recipe's; None or an empty one
    (`inference: saved`) changes nothing.
    Nothing is downloaded: pretrained weights that the recipe names are skipped, the checkpoint holds them all.
    Raises InputError as `checkpoints.read_checkpoint` does, when the recipe builds anything but models (a checkpoint
    may come from anywhere), when the weights do not fit the model, and for windows that it does not take.
    """
    state = checkpoints.read_checkpoint(checkpoint)
    recipe = state[checkpoints.KEY]
    module: LightningModule = instantiate(checkpoints.model_config(recipe, checkpoint))
    checkpoints.load_weights(module, state, checkpoint)
    if inference:
        if not hasattr(module, "inference"):
            raise InputError(f"{checkpoint}: a {type(module).__name__} sees whole images only; leave out inference=")
        module.inference = instantiate(inference)
        recipe = {**recipe, "model": {**recipe["model"], "inference": plain(inference)}}
    module.recipe = recipe
    return module.eval(), recipe


def load_stages(model: DictConfig, inference: Config | None = None) -> tuple[LightningModule, dict[str, Any]]:
    """Load a model of two trained stages (`conf/model/two_stage.yaml`) in eval mode, with the recipe of the second.

    `first` is a checkpoint, whose windows `inference` replaces as in `load_module`, or a folder of detections; `second`
    a checkpoint. Raises InputError as `load_module` does, for a folder that is not one of detections, and for windows
    with a folder, which was predicted already.
    """
    from sartorius.structures.detections import DetectionsFolder

    first: Any
    if Path(model.first).is_dir():
        if inference:
            raise InputError(
                f"inference= says how a network looks at images; {model.first} holds its detections already"
            )
        first = DetectionsFolder(model.first)
    else:
        first, _ = load_module(model.first, inference)
    second, _ = load_module(model.second)
    options = {key: value for key, value in plain(model).items() if key not in ("first", "second")}
    module: LightningModule = instantiate(options, first=first, second=second)
    return module.eval(), module.recipe  # type: ignore[return-value]


def add_tta(module: LightningModule, tta: Config, source: str) -> Any:
    """Apply a module to several views of each image, through the windows that it has; returns the `Augmented`.

    Of a two-stage model the first stage takes them. Raises InputError, naming `source`, for a module that takes whole
    images only and for a first stage that was predicted already.
    """
    looking: Any = getattr(module, "first", module)
    if not hasattr(looking, "inference"):
        raise InputError(f"{source}: tta= is for a network, not for a {type(looking).__name__}; leave it out")
    looking.inference = instantiate(tta, windows=looking.inference)
    return looking.inference

"""Where configs become objects: the only library file that knows Hydra and OmegaConf.

Everything below this layer takes objects and numbers. The verbs (`python -m sartorius.<verb>`) are thin:
`@wiring.verb("train")` turns `main(cfg)` into a Hydra program whose input errors end in one line.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import hydra.utils
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running import failures, resolvers
from sartorius.sweeps.job import MembersFailed, in_multirun, run_member
from sartorius.sweeps.sweepers import register

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

_PACKAGE = Path(__file__).resolve().parent.parent
# Inside the package in an installed wheel; beside it in a checkout. Absolute: a relative config_path breaks when
# `main` is imported from elsewhere.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

Config = DictConfig | ListConfig | dict[str, Any] | list[Any]

resolvers.register()


def plain(cfg: Config | None) -> Any:
    """The config as plain dicts, lists and scalars with every interpolation resolved (a container comes back as it is).

    Raises InputError when a mandatory value (`???`) is missing.
    """
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(failures.missing(error)) from error


def listed(value: Any) -> list[str]:
    """What an option gives that takes one path, several or none (null)."""
    return [] if value is None else [str(one) for one in ([value] if isinstance(value, str | int | float) else value)]


def instantiate(cfg: Config, **objects: Any) -> Any:
    """Build what `cfg._target_` names, with plain containers (never a DictConfig) and `objects` as its arguments.

    An InputError raised by a constructor comes out as itself, without Hydra's wrapping. From 1.4 on Hydra wants to be
    told which packages a config may name; the user's own config may name any.
    """
    options: dict[str, Any] = {"_convert_": "all"}
    if (unrestricted := getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)) is not None:
        options["_execution_whitelist_"] = unrestricted
    if objects:  # kept out of Hydra's hands, which would turn dataclasses into configs
        options["_partial_"] = True
    try:
        built = hydra.utils.instantiate(cfg, **options)
        return built(**objects) if objects else built
    except InstantiationException as error:
        if (cause := failures.expected(error)) is not None:
            raise cause from error
        raise


def instantiate_all(cfgs: DictConfig | None, **objects: dict[str, Any]) -> list[Any]:
    """The objects of a dict of configs (callbacks, loggers) in its order; entries set to null are left out.

    `objects` holds further arguments by entry: `overlays={"postprocess": postprocess}`.
    """
    return [instantiate(cfg, **objects.get(str(k), {})) for k, cfg in (cfgs or {}).items() if cfg is not None]


def ignore_noise() -> None:
    """Ignore warnings of other libraries that ask for nothing."""
    # Lightning 2.6 with torch 2.15, at every fit
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*", FutureWarning)
    # scores are of the rows of all processes: alike in each, every image counted once
    warnings.filterwarnings("ignore", ".*sync_dist=True.*", UserWarning)
    warnings.filterwarnings("ignore", "Using `DistributedSampler` with the dataloaders.*", UserWarning)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, dataloader workers too."""
    import pytorch_lightning as pl

    pl.seed_everything(seed, workers=True, verbose=False)


def build_module(cfg: DictConfig, pretrained: bool = True) -> LightningModule:
    """The LightningModule of `cfg.model`, with `recipe` set: what its checkpoints need to be used later.

    pretrained=False fetches no weights that the config names: a checkpoint will bring them.

    The recipe is a plain dict: `format_version`, `model` (the resolved config of the module, network, optimizer and
    scheduler), `cell_types`, `postprocess`, `data` (its name) and `config` (the whole resolved config).
    """
    model = plain(cfg.model)  # resolved first: the choice of norm layers depends on the weights
    module: LightningModule = instantiate(model if pretrained else checkpoints.without_weights(model))
    module.recipe = {  # type: ignore[assignment]
        "format_version": checkpoints.FORMAT_VERSION,
        "model": model,
        "cell_types": list(module.cell_type_names),  # type: ignore[arg-type]
        "postprocess": plain(cfg.get("postprocess")),
        "data": OmegaConf.select(cfg, "data.name"),
        "config": plain(cfg),
    }
    return module


def load_module(checkpoint: str | Path, inference: Config | None = None) -> tuple[LightningModule, dict[str, Any]]:
    """The module of a checkpoint that `sartorius.train` wrote, on the CPU in eval mode, and its recipe.

    inference: config of the windows in which it looks at images, in place of the recipe's; None or an empty one
    (`inference: saved`) changes nothing.
    Nothing is downloaded: pretrained weights that the recipe names are skipped, the checkpoint holds them all.
    Raises InputError as `recipes.read_checkpoint` does, when the recipe builds anything but models (a checkpoint
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


def add_tta(module: LightningModule, tta: Config, source: str) -> Any:
    """Let a module see several views of each image, through the windows that it has; returns the `Augmented`.

    Of a two-stage model the first stage sees them. Raises InputError, naming `source`, for a module that looks at whole
    images only and for a first stage that was predicted already.
    """
    looking: Any = getattr(module, "first", module)
    if not hasattr(looking, "inference"):
        raise InputError(f"{source}: tta= is for a network, not for a {type(looking).__name__}; leave it out")
    looking.inference = instantiate(tta, windows=looking.inference)
    return looking.inference


def load_stages(model: DictConfig, inference: Config | None = None) -> tuple[LightningModule, dict[str, Any]]:
    """A model of two trained stages (`conf/model/two_stage.yaml`) in eval mode, and its recipe.

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


def verb(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """Decorate `main(cfg)`: a Hydra program over conf/<config_name>.yaml; `main(cfg)` can still be called in Python.

    Bad input, a mistyped option, a missing value and a file that cannot be read or written end in one line
    `error: ...` on stderr and exit code 1, Ctrl-C in exit code 130; a bug keeps its traceback. In a multirun a failed
    member does not stop the others, whatever its error; the exit code is 1 all the same (see `multirun`).
    """

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        @functools.wraps(main)
        def job(cfg: DictConfig) -> Any:
            _keep_typed_paths(cfg)
            if in_multirun():
                ignore_noise()  # in this process too, which a launcher may have started
                return run_member(main, cfg, failures.line_of)
            try:
                return main(cfg)
            except Exception as error:
                _end(error)

        @functools.wraps(main)
        def program(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return main(cfg)
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand errors over instead of printing them
            ignore_noise()
            register()
            try:
                return hydra.main(str(CONF_DIR), config_name, version_base="1.3")(job)()
            except MembersFailed:
                sys.exit(1)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(128 + signal.SIGINT)
            except Exception as error:
                _end(error)

        return program

    return decorate


_PATHS = (  # keys of files and folders
    "against", "checkpoint", "ckpt_path", "data.fold_file", "data.root", "detections", "filter", "images",
    "leaderboard", "members", "model.first", "model.second", "model.weights", "output", "paths.data_dir",
    "paths.runs_dir", "postprocess.file", "predictions", "pseudo_labels.cut_offs", "pseudo_labels.file", "run", "truth",
    "validate",
)  # fmt: skip


def _keep_typed_paths(cfg: DictConfig) -> None:
    """Make text again of a file or folder that was named by a number, `output=123`: it is what was typed."""
    for override in HydraConfig.get().overrides.task:
        key, _, text = override.lstrip("+").partition("=")
        value = OmegaConf.select(cfg, key) if key in _PATHS else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            OmegaConf.update(cfg, key, text)


def _end(error: Exception) -> NoReturn:
    """Print one line and exit with 1 when `error` is the user's to mend, raise it again when it is ours."""
    if failures.expected(error) is None:
        raise error
    print(f"error: {failures.message(error)}", file=sys.stderr)
    sys.exit(1)

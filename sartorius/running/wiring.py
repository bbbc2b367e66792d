"""Compose configs and build the objects that they name, with Hydra and OmegaConf."""

from __future__ import annotations

import traceback
from contextlib import nullcontext
from typing import Any

import hydra
import hydra.utils
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from sartorius.errors import InputError
from sartorius.running import failures, resolvers, settings
from sartorius.running.console import CONF_DIR
from sartorius.running.settings.typed import as_typed

Config = DictConfig | ListConfig | dict[str, Any] | list[Any]
NOTHING_ELSE = {"logger": False, "enable_checkpointing": False}  # of a trainer whose callbacks write everything

resolvers.register()


def compose(command: str, overrides: list[str] | None = None) -> DictConfig:
    """Compose the config of a command, as its command line does: `compose("train", ["experiment=unet_cpu"])`.

    Raises InputError for settings that the command would refuse, see `settings.check`.
    """
    inside = GlobalHydra.instance().is_initialized()  # of a command
    with nullcontext() if inside else hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose(command, as_typed(command, without_null_groups(overrides or [])))
    settings.check(cfg, command)
    return cfg


def without_null_groups(overrides: list[str]) -> list[str]:
    """Replace `GROUP=null` by `~GROUP`, as Hydra calls it: `cleaning=null`."""
    return [
        f"~{group}" if value == "null" and group and (CONF_DIR / group).is_dir() else override
        for override in overrides
        for group, _, value in [override.partition("=")]
    ]


def plain(cfg: Config | None) -> Any:
    """Resolve a config to plain dicts, lists and scalars; a plain container comes back as it is.

    Raises InputError when a mandatory value (`???`) is missing.
    """
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(failures.missing(error)) from error


def path_list(value: Any) -> list[str]:
    """List the paths of an option that takes one, several or none (null)."""
    return [] if value is None else [str(path) for path in ([value] if isinstance(value, str | int | float) else value)]


def instantiate(cfg: Config, **objects: Any) -> Any:
    """Build what `cfg._target_` names, with plain containers (never a DictConfig) and `objects` as its arguments.

    An InputError raised by a constructor comes out as itself, without Hydra's wrapping. From 1.4 on Hydra wants to be
    told which packages a config may name; the user's own config may name any.
    """
    options: dict[str, Any] = {"_convert_": "all"}
    # of Hydra 1.4 and newer
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
        if _is_of_call(error.__cause__):
            raise InputError(
                f"{' '.join(str(error).split())}; an option of another class is left out by ~KEY, of a group by "
                "choosing the group anew"
            ) from error
        raise


def _is_of_call(error: BaseException | None) -> bool:
    """Whether a class or function was called with arguments that it does not have, or without some that it needs."""
    return isinstance(error, TypeError) and traceback.extract_tb(error.__traceback__)[-1].name == "_call_target"


def build_trainer(cfg: Config, **objects: Any) -> Any:
    """Build Lightning's trainer; raises InputError where it refuses a setting, or lacks such a device."""
    try:
        return instantiate(cfg, **objects)
    except (TypeError, ValueError, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, TypeError | ValueError) and not isinstance(cause, InputError):
            raise InputError(f"trainer: {' '.join(str(cause).split())}") from error
        raise


def instantiate_all(cfgs: DictConfig | None, **objects: dict[str, Any]) -> list[Any]:
    """Build the objects of a dict of configs (callbacks, loggers) in its order; entries set to null are left out.

    `objects` holds further arguments by entry: `cells={"postprocess": postprocess}`.
    """
    return [instantiate(cfg, **objects.get(str(k), {})) for k, cfg in (cfgs or {}).items() if cfg is not None]

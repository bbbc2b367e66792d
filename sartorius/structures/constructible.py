"""The classes and functions that a checkpoint may name, which comes from anywhere, as the parts of its model.

`@constructible` marks them where they are defined; of torch a fixed list is taken. Nothing else is called, and none of
Hydra's other features are available: no positional arguments, no interpolations.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from sartorius.errors import InputError
from sartorius.structures.reading import plain

TORCH = frozenset(
    [
        f"torch.nn.{name}"
        for name in ["ELU", "GELU", "Hardswish", "Identity", "LeakyReLU", "Mish", "ReLU", "SiLU", "Tanh"]
    ]
    + [f"torch.optim.{name}" for name in ["Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD"]]
    + ["torch.optim.lr_scheduler.OneCycleLR"]
)
PARTIAL = ("optimizer", "scheduler")  # settings that are functions with some of their arguments given
LARGEST = 10**6  # number in a model's config; seeds may be larger
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_marked: set[Any] = set()
T = TypeVar("T", bound=Callable[..., Any])


def constructible(part: T) -> T:
    """Let checkpoints name this class or function as a part of a model.

    Its arguments may then come from anywhere. It must not write or open files by them, download, or allocate more than
    the weights of a checkpoint take; `weights` is always None there.
    """
    _marked.add(part)
    return part


def check_calls(config: Any, source: str) -> None:
    """Raise InputError where the resolved config of a model calls anything that is not `constructible`.

    Also for what `plain` refuses, for text with an interpolation and for Hydra's keys but `_target_` and `_partial_`.
    `source` is what the message names.
    """
    _walk(plain(config, source), source, None, _call_nothing)


def build(config: Any, source: str) -> Any:
    """Build the object that the config of a checkpoint describes; raises InputError as `check_calls` and where it
    cannot be built with these arguments."""

    def call(part: Callable[..., Any], arguments: Mapping[str, Any], is_partial: bool) -> Any:
        try:
            return partial(part, **arguments) if is_partial else part(**arguments)
        except InputError:
            raise
        except Exception as error:  # whatever a constructor raises for arguments that it was never tried with
            name = f"{part.__module__}.{part.__qualname__}"
            raise InputError(f"{source}: its metadata do not build a model: {name}: {error}") from error

    config = plain(config, source)
    _walk(config, source, None, _call_nothing)  # all of it, before any of it is called
    return _walk(config, source, None, call)


def config_of(part: Any) -> Any:
    """Return the config from which `build` makes a part again: a dataclass of plain values and of such parts."""
    if is_dataclass(part) and not isinstance(part, type):
        values = {field.name: config_of(vars(part)[field.name]) for field in fields(part)}
        return {"_target_": f"{type(part).__module__}.{type(part).__qualname__}", **values}
    if isinstance(part, Mapping):
        return {key: config_of(value) for key, value in part.items()}
    return [config_of(value) for value in part] if isinstance(part, list | tuple) else part


def _walk(node: Any, source: str, key: Any, call: Callable[[Any, Mapping[str, Any], bool], Any]) -> Any:
    """Replace each dict with a `_target_` by the result of `call`, innermost first."""
    if isinstance(node, list):
        return [_walk(value, source, key, call) for value in node]
    if not isinstance(node, dict):
        _check_value(node, source, key)
        return node
    reserved = [name for name in node if isinstance(name, str) and name.startswith("_") and name.endswith("_")]
    if unknown := [name for name in reserved if name not in ("_target_", "_partial_")]:
        raise InputError(f"{source}: refused, a model's config has no {unknown[0]}; give arguments by name")
    arguments = {name: _walk(value, source, name, call) for name, value in node.items() if name not in reserved}
    if "_target_" not in node:
        if reserved:
            raise InputError(f"{source}: refused, _partial_ without _target_")
        return arguments
    is_partial = _flag(node.get("_partial_", False), source)
    part = _find(node["_target_"], source)
    if is_partial and key not in PARTIAL:
        raise InputError(f"{source}: refused, {key}: _partial_ is for {' and '.join(PARTIAL)} only")
    return call(part, arguments, is_partial)


def _call_nothing(part: Callable[..., Any], arguments: Mapping[str, Any], is_partial: bool) -> None:
    """Stand in for the call where a config is only checked."""


def _flag(value: Any, source: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{source}: refused, _partial_: expected true or false, got {value!r}")
    return value


def _check_value(value: Any, source: str, key: Any) -> None:
    if isinstance(value, str) and "${" in value:
        raise InputError(f"{source}: refused, '{value}' is not a resolved value of a model's config")
    if isinstance(value, int | float) and key != "seed" and not abs(value) <= LARGEST:
        raise InputError(f"{source}: refused, {key}={value}: expected at most {LARGEST} in a model's config")


def _find(target: Any, source: str) -> Any:
    """Find what a `_target_` names. Modules of this package are imported, others only looked up."""
    if isinstance(target, str) and _NAME.fullmatch(target):
        module, _, name = target.rpartition(".")
        ours = module.startswith("sartorius.")
        try:
            found = importlib.import_module(module) if ours or target in TORCH else sys.modules.get(module)
        except ImportError as error:
            raise InputError(f"{source}: there is no {module}, which its config calls ({error})") from error
        part = None if found is None else vars(found).get(name)
        if part is None and ours:
            raise InputError(f"{source}: there is no {target}, which its config calls")
        if target in TORCH or any(part is marked for marked in _marked):
            return part
    raise InputError(
        f"{source}: refused, it calls {target}; a model is built from what is marked @constructible, and torch's "
        "activations and optimizers: put one of your own into a module of sartorius, and mark it"
    )

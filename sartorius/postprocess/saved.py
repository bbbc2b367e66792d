"""Post-processing as plain settings: saved with a checkpoint, a folder of detections or in a file, and changed.

Settings are what conf/postprocess holds: a mapping of steps by name, each with the `_target_` of its class. Saved ones
come from elsewhere, so nothing is built from them but steps that are defined in this package.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from sartorius.errors import InputError
from sartorius.files import write_text
from sartorius.postprocess.finalise import Postprocess, settings_of
from sartorius.postprocess.step import Step
from sartorius.postprocess.thresholds import DEFAULT
from sartorius.structures.reading import read_yaml

FORMAT_VERSION = 2  # of a file
_PACKAGE = __name__.rpartition(".")[0]
_TARGET = f"{_PACKAGE}.{Postprocess.__name__}"  # as configs name it
_HINT = "choose one with postprocess=default"
_NO_STEPS = ("_target_", "order")


def from_saved(
    saved: Mapping[str, Any] | None, changes: Mapping[str, Any] | None, source: str,
    cell_types: Sequence[str] = (),
) -> Postprocess:  # fmt: skip
    """Build the post-processing `saved` in `source` with `changes` on top; see `changed`. Raises as it and `build`."""
    return build(*changed(saved, changes, source, cell_types))


def changed(
    saved: Mapping[str, Any] | None, changes: Mapping[str, Any] | None, source: str,
    cell_types: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Put the changes that a command line made on top of saved settings; returns the settings and where they are from.

    Changes that name a `_target_` are a whole post-processing and replace what was saved; a `file` among them, as
    `to_file` writes it, replaces it too, and the other changes lie on top of that. null leaves a step out; a mapping
    changes the settings that it names, for each cell type that it names. cell_types: those that may be named beside
    those saved. Raises InputError where nothing was saved, for an unknown step or cell type, and as `read_file` does.
    """
    given = dict(changes or {})
    if (file := given.pop("file", None)) is not None:
        saved, source = read_file(file), str(file)
    if "_target_" in given:
        return given, source
    if not saved:
        raise InputError(f"{source}: no post-processing was saved with it; {_HINT}")
    if not isinstance(saved, Mapping):
        raise InputError(f"{source}: expected the settings of post-processing by step, got {saved!r}; {_HINT}")
    settings = dict(saved)
    for name, change in given.items():
        settings[name] = change if name in _NO_STEPS else _changed_step(name, settings, change, source, cell_types)
    return settings, source


def _changed_step(
    name: str, steps: Mapping[str, Any], change: Any, source: str, cell_types: Sequence[str]
) -> dict[str, Any] | None:
    """Change the settings of one step; None leaves it out."""
    if isinstance(change, Mapping) and "_target_" in change:
        return dict(change)
    old = steps.get(name)
    if name not in steps or (change is not None and old is None):
        present = ", ".join(key for key, step in steps.items() if step is not None and key not in _NO_STEPS)
        raise InputError(
            f"postprocess.{name}: the post-processing of {source} has no such step, only {present}; add one with "
            f"postprocess.{name}={{_target_: ...}}"
        )
    if change is None or old is None:
        return None
    if not isinstance(change, Mapping):
        raise InputError(f"postprocess.{name}: expected settings of the step or null, got {change!r}")
    return {
        **old,
        **{key: _per_type(f"{name}.{key}", old.get(key), value, cell_types) for key, value in change.items()},
    }


def _per_type(key: str, old: Any, change: Any, cell_types: Sequence[str]) -> Any:
    """Change a setting. A number for all types becomes the `default` beside those that a mapping names."""
    if not isinstance(change, Mapping):
        return change
    values = dict(old) if isinstance(old, Mapping) else {} if old is None else {DEFAULT: old}
    known = dict.fromkeys((*values, *cell_types, DEFAULT))
    if unknown := next((name for name in change if name not in known), None):
        raise InputError(f"postprocess.{key}.{unknown}: no such cell type; there are {', '.join(known)}")
    return {name: value for name, value in {**values, **change}.items() if value is not None}


def build(settings: Mapping[str, Any], source: str) -> Postprocess:
    """Build post-processing from its plain settings.

    Raises InputError for a class that is not a step of this package, and for unknown, missing or bad settings.
    """
    if (target := settings.get("_target_", _TARGET)) != _TARGET:
        raise InputError(f"{source}: its post-processing is {target}, this program reads {_TARGET}; {_HINT}")
    steps = {str(name): _build_step(name, step, source) for name, step in settings.items() if name not in _NO_STEPS}
    if not isinstance(order := settings.get("order"), list | tuple | None):
        raise InputError(f"{source}: postprocess.order: expected names of steps or null, got {order!r}")
    return Postprocess(order and [str(name) for name in order], **steps)


def _build_step(name: str, settings: Any, source: str) -> Step | None:
    if settings is None:
        return None
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise InputError(f"{source}: postprocess.{name}: expected the settings of a step, got {settings!r}; {_HINT}")
    kind, given = _step_class(name, str(settings["_target_"]), source), {**settings}
    del given["_target_"]
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := next((key for key in given if key not in known), None):
        there = f"only {', '.join(known)}" if known else "it has none"
        raise InputError(f"{source}: postprocess.{name}.{unknown}: {kind.__name__} has no such setting, {there}")
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(f"{source}: postprocess.{name}: incomplete settings ({error}); {_HINT}") from error


def _step_class(name: str, target: str, source: str) -> type[Step]:
    """Import the class that a `_target_` names; raises InputError for anything but a step defined in this package."""
    module, _, kind = target.rpartition(".")
    step: Any = None
    if f"{module}.".startswith(f"{_PACKAGE}."):
        try:
            step = vars(importlib.import_module(module)).get(kind)
        except (ImportError, ValueError) as error:
            raise InputError(f"{source}: postprocess.{name}: there is no {module} ({error})") from error
    is_step = isinstance(step, type) and Step in step.__mro__ and step is not Step
    if not (is_step and step.__module__.startswith(f"{_PACKAGE}.")):
        raise InputError(
            f"{source}: postprocess.{name}: refused, {target} is no step of {_PACKAGE}: put one of your own there"
        )
    return step


def to_saved(post: Postprocess) -> dict[str, Any]:
    """Return the plain settings that `from_saved` reads, `_target_` first."""
    steps = {
        name: {"_target_": f"{type(step).__module__}.{type(step).__qualname__}", **settings_of(step)}
        for name, step in post.steps.items()
    }
    return {"_target_": _TARGET, **steps}


def to_file(path: str | Path, post: Postprocess, comment: str) -> None:
    """Write the settings as YAML, atomically, under lines of comment: what `postprocess.file=` reads."""
    lines = [f"# {line}\n" for line in comment.splitlines()]
    content = {"format_version": FORMAT_VERSION, **to_saved(post)}
    write_text(path, "".join(lines) + yaml.safe_dump(content, sort_keys=False))


def read_file(path: str | Path) -> dict[str, Any]:
    """Read the settings that `to_file` wrote; raises InputError for a missing or older file, and for something else."""
    hint = "`python -m sartorius.tune` writes one, postprocess.yaml"
    path = str(path)
    if not Path(path).is_file():
        raise InputError(f"postprocess.file={path}: no such file; {hint}")
    values = read_yaml(Path(path), f"postprocess.file={path}", hint)
    if not isinstance(values, dict):
        raise InputError(f"postprocess.file={path}: expected steps of post-processing, got {values!r}; {hint}")
    if (version := values.pop("format_version", 1)) != FORMAT_VERSION:
        raise InputError(
            f"postprocess.file={path}: format version {version}, this program reads {FORMAT_VERSION}; {hint}"
        )
    return values

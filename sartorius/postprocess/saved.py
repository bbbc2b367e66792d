"""Post-processing as it was saved with a checkpoint, a folder of detections or in a file, with changes on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from sartorius.errors import InputError
from sartorius.files import write_text
from sartorius.postprocess.finalise import Postprocess

_TARGET = f"{Postprocess.__module__.rpartition('.')[0]}.{Postprocess.__name__}"  # as configs name it
_HINT = "choose one with postprocess=default"


def from_saved(saved: Mapping[str, Any] | None, changes: Mapping[str, Any] | None, source: str) -> Postprocess:
    """The post-processing `saved` in `source` with `changes` (None entries change nothing) on top.

    Changes that name a `_target_` are a whole post-processing and replace what was saved; a `file` among them, as
    `to_file` writes it, replaces it too, and the other changes lie on top of that. Saved files come from elsewhere, so
    nothing but Postprocess is built from them. Raises InputError where nothing was saved, it is another class, or it
    holds unknown or missing settings, and for a file that is missing or no post-processing.
    """
    changed = without_none(changes or {})
    if (file := changed.pop("file", None)) is not None:
        saved, source = read_file(file), str(file)
    whole = "_target_" in changed
    values = changed if whole else merge(saved or {}, changed)
    if not whole and not saved:
        raise InputError(f"{source}: no post-processing was saved with it; {_HINT}")
    target = values.pop("_target_", _TARGET)
    if target != _TARGET:
        raise InputError(f"{source}: its post-processing is {target}, this program reads {_TARGET}; {_HINT}")
    known = {field.name for field in fields(Postprocess) if field.init}
    if unknown := sorted(values.keys() - known):
        raise InputError(f"{source}: unknown post-processing settings {', '.join(unknown)}; {_HINT}")
    try:
        return Postprocess(**values)
    except TypeError as error:
        raise InputError(f"{source}: incomplete post-processing ({error}); {_HINT}") from error


def to_saved(post: Postprocess) -> dict[str, Any]:
    """The plain settings that `from_saved` reads, `_target_` first."""
    values = {field.name: getattr(post, field.name) for field in fields(post) if field.init}
    return {"_target_": _TARGET, **{key: _plain(value) for key, value in values.items()}}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def to_file(path: str | Path, post: Postprocess, comment: str) -> None:
    """Write the settings as YAML, atomically, under lines of comment: what `postprocess.file=` reads."""
    lines = [f"# {line}\n" for line in comment.splitlines()]
    write_text(path, "".join(lines) + yaml.safe_dump(to_saved(post), sort_keys=False))


def read_file(path: str | Path) -> dict[str, Any]:
    """The settings in a file that `to_file` wrote; raises InputError where it is missing or no mapping of settings."""
    hint = "`python -m sartorius.tune` writes one, postprocess.yaml"
    if not Path(path).is_file():
        raise InputError(f"postprocess.file={path}: no such file; {hint}")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"postprocess.file={path}: not valid YAML ({' '.join(str(error).split())}); {hint}") from error
    if not isinstance(values, dict):
        raise InputError(f"postprocess.file={path}: expected settings such as 'score: 0.5', got {values!r}; {hint}")
    return values


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; where both have a value, that of `above`. A number below a mapping is its `default`."""
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and key in result:
            old = result[key]
            value = merge(old if isinstance(old, Mapping) else {"default": old}, value)
        result[key] = value
    return result


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested mapping without None entries, nor mappings that held nothing else."""
    cleaned = {key: without_none(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}

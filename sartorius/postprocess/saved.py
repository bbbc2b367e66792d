"""Post-processing as it was saved with a checkpoint or a folder of detections, with changes on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sartorius.errors import InputError
from sartorius.postprocess.finalise import Postprocess

_TARGET = f"{Postprocess.__module__.rpartition('.')[0]}.{Postprocess.__name__}"  # as configs name it
_HINT = "choose one with postprocess=default"


def from_saved(saved: Mapping[str, Any] | None, changes: Mapping[str, Any] | None, source: str) -> Postprocess:
    """The post-processing `saved` in `source` with `changes` (None entries change nothing) on top.

    Changes that name a `_target_` are a whole post-processing and replace what was saved. Saved files come from
    elsewhere, so nothing but Postprocess is built from them. Raises InputError where nothing was saved, it is another
    class, or it holds unknown or missing settings.
    """
    changed = without_none(changes or {})
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

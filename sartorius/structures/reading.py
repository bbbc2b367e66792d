"""Files of this program that may come from anywhere, read in bounded memory: NumPy archives, JSON and YAML."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError

DEEPEST = 32  # nested dicts and lists of settings
MOST = 100_000  # values of settings


def read_arrays(source: Path | bytes, limit: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a NumPy archive (.npz), or those of `names` that are in it, and verify their sums.

    limit: bytes that they may unpack to, as the archive declares it. No pickle is read. Raises ValueError for larger
    ones, and whatever `zipfile` and NumPy raise for a damaged file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        if file.read(4) != b"PK\3\4":
            raise ValueError("no zip archive")
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            chosen = {name: members[name] for name in names or members if name in members}
            if (size := sum(member.file_size for member in chosen.values())) > limit:
                raise ValueError(f"it unpacks to {size:,} bytes, expected {limit:,} at most")
            return {name: _read_array(archive, member) for name, member in chosen.items()}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in another way than NumPy does")
    with archive.open(member) as file:
        content = file.read(member.file_size)  # with its size: read() would unpack more than the file declares
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array


def read_json(path: Path, remedy: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; hook: see `json.load`. Raises InputError, which ends in `remedy`, for other content."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_hook=hook)
    except (ValueError, RecursionError) as error:  # of json, of text that is not UTF-8, of brackets in brackets
        raise InputError(f"{path}: not valid JSON ({error}); {remedy}") from error


def read_yaml(path: Path, source: str, remedy: str) -> Any:
    """Read the plain values of a YAML file; raises InputError, between `source` and `remedy`, for other content."""
    import yaml

    try:
        return plain(yaml.safe_load(path.read_text(encoding="utf-8")), source)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not valid YAML ({' '.join(str(error).split())}); {remedy}") from error


def plain(node: Any, source: str, most: int = MOST) -> Any:
    """Copy nested dicts, lists and tuples (as lists) of text, numbers, booleans and None.

    Raises InputError, naming `source`, for anything else, for more than DEEPEST levels and more than `most` values, as
    references to one list by many others give them.
    """
    left = most

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            limit = f"{most} values" if left < 0 else f"{DEEPEST} levels"
            raise InputError(
                f"{source}: refused, more than {limit} of settings in it; no file of this program has that"
            )
        if isinstance(value, dict):
            if bad := [key for key in value if not isinstance(key, str | int | float)]:
                raise InputError(f"{source}: refused, a key {bad[0]!r} in its settings; expected text")
            return {key: copy(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [copy(entry, depth + 1) for entry in value]
        if value is None or type(value) in (str, int, float, bool):
            return value
        raise InputError(f"{source}: refused, a {type(value).__name__} in its settings; expected text and numbers")

    return copy(node, 0)

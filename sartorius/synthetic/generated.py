"""Folders of generated images: kept where their settings are those asked for, else replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from sartorius.data.competition.folder import MARKER
from sartorius.errors import InputError
from sartorius.files import atomic_folder, locked, write_json
from sartorius.structures.reading import read_json


def write_whole(
    folder: Path,
    what: str,
    made_with: Mapping[str, Any],
    contents: Collection[str],
    proof: str,
    write: Callable[[Path], None],
) -> Path:
    """Let `write` fill a new folder, mark it with `made_with` and move it onto `folder`, which is returned.

    A folder with the same settings is kept as it is. One with other settings is replaced at the end, so that a stopped
    run leaves the old one. Raises InputError for a folder without the marker or the file `proof` (it is not `what` it
    should be), and for one to be replaced that holds more than its `contents` (names). Of two processes with one folder
    the second waits for the first.
    """
    with locked(folder, wait=True):
        if _is_written(folder, what, made_with, contents, proof):
            return folder
        with atomic_folder(folder) as partial:
            write(partial)
            write_json(partial / MARKER, dict(made_with))
        return folder


def _is_written(folder: Path, what: str, made_with: Mapping[str, Any], contents: Collection[str], proof: str) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    if not folder.is_dir() or not marker.is_file() or not (folder / proof).is_file():
        raise InputError(f"{folder}: holds something that is not {what}; choose another folder")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in {*contents, MARKER})
    try:
        if read_json(marker, "") == made_with:
            return True
    except InputError:
        pass  # a damaged marker: written anew
    if foreign:
        raise InputError(f"{folder}: would be replaced, but also holds {', '.join(foreign[:3])}; move that away first")
    return False

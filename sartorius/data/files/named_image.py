"""Images by id and path, and patterns that are searched in their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sartorius.errors import InputError


@dataclass(frozen=True)
class NamedImage:
    """An image by its id, its path and that within the folder of all, with slashes."""

    image_id: str
    path: Path
    inner: str

    @classmethod
    def within(cls, base: Path, image_id: str, path: Path) -> NamedImage:
        """Name an image that lies in the folder `base` of all."""
        return cls(image_id, path, Path(os.path.relpath(os.path.abspath(path), os.path.abspath(base))).as_posix())

    @classmethod
    def by_id(cls, image_id: str, path: Path) -> NamedImage:
        """Name an image whose file is called by its id, in which `__` stands for the slashes."""
        return cls(image_id, path, image_id.replace("__", "/") + path.suffix)


def searching(option: str, group: str, pattern: str) -> Callable[[NamedImage], str]:
    """Return the function that finds the named group of a pattern in the path of an image.

    Raises InputError for a pattern that is none or has no such group; the function does where it finds none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{option}={pattern}: not a regular expression ({error})") from error
    if group not in compiled.groupindex:
        raise InputError(f"{option}={pattern}: has no group (?P<{group}>...), whose text is taken")

    def search(image: NamedImage) -> str:
        found = compiled.search(image.inner)
        if found is None or not found[group]:
            raise InputError(f"{image.path}: {option}={pattern} finds nothing in '{image.inner}'")
        return str(found[group])

    return search

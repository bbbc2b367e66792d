"""One image read as predict reads it."""

from pathlib import Path
from typing import Any

import numpy as np

from sartorius.data.files.source import FileImages
from sartorius.data.levels import Levels
from sartorius.errors import raise_all


def source(images: Any, levels: str = "exact", **options: Any) -> FileImages:
    found = FileImages(images if isinstance(images, list) else str(images), levels=Levels(levels=levels), **options)
    raise_all(list(found.problems.values()))
    return found


def read(path: Path, levels: str = "exact", **options: Any) -> np.ndarray:
    """The first image of a file."""
    found = source(path, levels, **options)
    return found.image(found.ids[0])

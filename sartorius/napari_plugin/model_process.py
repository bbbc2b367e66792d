"""Models that run in a process of their own, which lasts as long as napari.

Torch stays out of the process that draws: its compiler and the LLVM of software OpenGL crash when they meet.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sartorius.errors import InputError

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells
    from sartorius.running.model import Model


def find_cells(path: str, options: tuple[str, ...], pixels: NDArray[Any], pixel_size: float | None, name: str) -> Cells:
    """Find the cells of an image [H, W] or [H, W, C], see `sartorius.load`; a model is loaded once.

    Raises InputError as it does, and where the process is killed.
    """
    stamp = Path(path).stat().st_mtime if Path(path).is_file() else 0.0
    try:
        return _process().submit(_find, path, options, stamp, pixels, pixel_size, name).result()
    except BrokenProcessPool as error:
        _process.cache_clear()
        raise InputError(f"{name}: the process of the model ended; is the memory full? Try `in tiles`") from error


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _find(
    path: str, options: tuple[str, ...], stamp: float, pixels: NDArray[Any], pixel_size: float | None, name: str
) -> Cells:
    return _loaded(path, options, stamp)(pixels, pixel_size=pixel_size, image_id=name)


@lru_cache(maxsize=2)
def _loaded(path: str, options: tuple[str, ...], stamp: float) -> Model:
    """Load a model, anew where its file has another time `stamp`."""
    from sartorius.running.model import Model

    return Model(path, options)

"""A `map` over images by several processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

from sartorius.errors import InputError
from sartorius.running.commands import tame_warnings

_CHUNK = 8  # images that a worker gets at once


@contextmanager
def worker_map(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Open a `map` of a picklable function over images by so many processes; results and errors keep the images' order.

    One worker is this process. Raises InputError where a worker is killed.
    """
    if workers == 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start)
    try:
        yield partial(pool.map, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker was killed; did the machine's memory run out? With fewer workers= the same command continues "
            "after the images that are done"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Leave Ctrl-C to the main process, and print warnings as it does."""
    tame_warnings()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

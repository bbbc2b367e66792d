"""Signals as exceptions: SIGTERM is one as Ctrl-C is, so that files in progress are deleted on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from sartorius.errors import InputError


class KilledError(InputError):
    """A process of ours was ended by SIGKILL, as the system does where the memory runs out."""


class Terminated(BaseException):
    """SIGTERM, in the main thread."""


def _terminate(signum: int, _: Any) -> NoReturn:
    raise Terminated


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise Terminated on SIGTERM; the default would end the process at once. Does nothing in a thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The progress bar of commands that go through many pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def watched(pictures: Sequence[str], what: str) -> Iterable[str]:
    """The pictures, under a bar named `what` where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(pictures, what, console=Console(stderr=True), disable=not sys.stderr.isatty())

"""The progress bar of commands that go through many images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def progress_bar(images: Sequence[str], what: str) -> Iterable[str]:
    """The images, under a bar named `what` where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(images, what, console=Console(stderr=True), disable=not sys.stderr.isatty())

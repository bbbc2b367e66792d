"""The last line of a command: what the next command could be, to be pasted into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # a word that a list on the command line takes without quotes
_silent = ContextVar("silent", default=False)


def print_next(command: str, options: Mapping[str, Any]) -> None:
    """Print a command of this package with these options; lists as Hydra takes them, words in capitals are for the
    reader to replace."""
    if not _silent.get():
        print(f"next: {command_line(command, options)}")


def command_line(command: str, options: Mapping[str, Any], *words: str) -> str:
    """Return a command of this package as it is pasted into a shell: `words`, then options as Hydra takes them."""
    given = (f"{key}={_text(value)}" for key, value in options.items())
    return shlex.join(["python", "-m", f"sartorius.{command}", *words, *given])


def print_next_program(*words: str) -> None:
    """Print a program with its arguments."""
    if not _silent.get():
        print(f"next: {shlex.join(words)}")


@contextmanager
def silent() -> Iterator[None]:
    """Print nothing in the block, the member of a multirun."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def model_of(detections: str | Path) -> dict[str, str]:
    """Return the option of `predict` that names the model of a run's folder of detections, where it has one still."""
    best = Path(detections).parent / "checkpoints" / "best.ckpt"
    return {"checkpoint": str(best) if best.is_file() else "CHECKPOINT", "images": "FOLDER"}


def _text(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _word(str(value)) if "," in str(value) else str(value)  # it would be a sweep
    return f"[{','.join(map(_word, map(str, value)))}]"


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return text if _PLAIN.fullmatch(text) else f"'{escaped}'"

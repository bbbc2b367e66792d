"""Commands of this package as processes of their own, which end with this one."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hydra.core.override_parser.types import Quote, QuotedString

from sartorius.running import processes
from sartorius.running.console import CONF_DIR


class Job(Protocol):
    """A command that is running."""

    def code(self) -> int | None:
        """Return its exit code, None while it runs."""

    def stop(self) -> None:
        """End it at once; what it has written stays."""


class StartJob(Protocol):
    """Starts commands."""

    def __call__(self, command: str, options: Mapping[str, Any], log: Path) -> Job:
        """Start a command with options of plain values; what it prints is appended to the file `log`."""


class ProcessJob:
    """A command in a process of its own; see `start_process`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Kill it: its files are whole at any time, and the same command continues it."""
        if self._process.poll() is None:
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)  # with its loaders of data
        self._process.communicate()


def start_process(command: str, options: Mapping[str, Any], log: Path) -> ProcessJob:
    """Start a command of this package; see `StartJob`. It ends when this process does, by a kill too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for key, value in options.items() for argument in _overrides(key, value)]
    with open(log, "ab") as file:
        program = [sys.executable, "-m", __name__, command, *arguments]
        pipe = subprocess.PIPE  # never written to, see `processes.end_with_starter`
        return ProcessJob(
            subprocess.Popen(program, stdin=pipe, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        )


def _overrides(key: str, value: Any) -> list[str]:
    """Write an option as Hydra reads it; a mapping stands in for the whole choice of a group."""
    if isinstance(value, Mapping) and (CONF_DIR / key).is_dir():
        return [f"~{key}", f"+{key}={hydra_text(value)}"]
    return [f"{key}={hydra_text(value)}"]


def hydra_text(value: Any) -> str:
    """Write plain values in the syntax of a command line of Hydra."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_text, value)) + "]"
    if isinstance(value, str):
        return str(QuotedString(value, Quote.double).with_quotes())
    return json.dumps(value)


def last_line(log: Path) -> str:
    """Return the last line of what a command printed that is not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


if __name__ == "__main__":
    threading.Thread(target=processes.end_with_starter, daemon=True).start()
    name, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(f"sartorius.{name}", run_name="__main__", alter_sys=True)

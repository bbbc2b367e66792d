"""What processes do in the tests of `ranks`; quick to import, for each of them does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from sartorius.errors import InputError

NUMBER = "LOCAL_RANK"


def own_number() -> int:
    return int(os.environ[NUMBER])


def tell(folder: Path) -> str:
    """Leave the environment that matters in a file, print, return the number."""
    names = (NUMBER, "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    (folder / f"{own_number()}.txt").write_text(" ".join(os.environ[name] for name in names))
    print(f"printed by {own_number()}", flush=True)
    return f"returned by {own_number()}"


def wait(folder: Path) -> None:
    """Say so in a file (its process id), then never end."""
    (folder / f"{own_number()}.started").write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def fail(folder: Path, failing: list[int], how: str) -> None:
    """Those that fail do so once all have started; the others wait."""
    if own_number() not in failing:
        wait(folder)
    others = [folder / f"{k}.started" for k in range(int(os.environ["WORLD_SIZE"])) if k not in failing]
    while not all(path.is_file() for path in others):
        time.sleep(0.02)
    if how == "input":
        raise InputError(f"wrong number {own_number()}")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "exit":
        os._exit(3)
    os.write(2, b"last words\n")
    os.kill(os.getpid(), signal.SIGKILL)

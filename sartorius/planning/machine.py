"""This machine, as far as settings follow from it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sartorius.errors import InputError

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """threads: that torch computes with on the CPU.  memory: MB (1e6 bytes) of the device that trains, a GPU's own or
    this machine's; None where the system does not tell.  gpu: its name, "" for the CPU.  ram: MB of the machine.
    """

    threads: int
    memory: float | None
    ram: float | None
    gpu: str = ""


def read_machine(accelerator: str) -> Machine:
    """Read what trains here: the first GPU, or the processor where there is none or accelerator is `cpu`.

    Raises InputError for accelerator `gpu` where there is none.
    """
    import torch

    ram, threads = memory_megabytes(), torch.get_num_threads()
    if accelerator == "cpu" or not torch.cuda.is_available():
        if accelerator == "gpu":
            raise InputError("accelerator=gpu: no GPU is to be seen here; plan on the machine that has one")
        return Machine(threads, ram, ram)
    found = torch.cuda.get_device_properties(0)
    return Machine(threads, found.total_memory / 1e6, ram, str(found.name))


def memory_megabytes(limits: tuple[Path, ...] = _LIMITS) -> float | None:
    """Return the memory of this machine, MB (1e6 bytes), or of its container where that is less; None if unknown.

    limits: files in which Linux tells the limit of a control group.
    """
    found = []
    with suppress(AttributeError, ValueError, OSError):  # Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            found.append(int(text))
    return min(found) / 1e6 if found else None

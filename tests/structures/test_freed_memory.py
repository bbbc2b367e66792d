"""Blocks that are freed and needed again do not go back to the system in between."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from sartorius.structures.freed_memory import MOST

PROGRAM = """
import resource, sys
from sartorius.structures.freed_memory import keep_freed_memory
if sys.argv[2:]:
    keep_freed_memory()
size = int(sys.argv[1])
b"x" * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_blocks_stay() -> None:
    size = MOST // 2

    def faults(*keep: str) -> int:
        command = [sys.executable, "-c", PROGRAM, str(size), *keep]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < size / resource.getpagesize() / 20
    assert faults() > 10 * faults("keep")

"""Memory that this process frees and needs again at once, as each layer of a network does."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MOST, KEPT = 1 << 27, 1 << 28  # bytes of a block that is kept, and of all that is kept free at the heap's end


def keep_freed_memory() -> None:
    """Let malloc keep the blocks of a network's activations for the next layer; does nothing without glibc.

    By itself it returns each to the system, which then clears every page anew: a quarter of the CPU time of a U-Net.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, MOST)
        libc.mallopt(_TRIM_THRESHOLD, KEPT)


def return_freed_memory() -> None:
    """Return to the system what malloc keeps free between blocks that are in use; does nothing without glibc."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None

"""How the C library hands out the memory of large arrays.

As it comes, glibc maps every block above some hundred kilobytes freshly from the system and unmaps it when it is
freed. A training step allocates the same large arrays again and again, and touching fresh pages costs as much as the
arithmetic on them: a step of the network in benchmarks/cnn_step.py took 33 ms of CPU time, 26 ms with memory kept.
"""

from __future__ import annotations

import os
import sys

# mallopt's numbers for its parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_VARIABLES = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
MAPPED_FROM = 128 << 20  # bytes; larger blocks still come from the system and go back to it at once
KEPT = 512 << 20  # bytes of freed memory at the end of the heap that are kept for the next step


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory for large arrays; True where that took effect.

    Elsewhere (macOS, Windows, musl), and where the user has chosen through the environment (GLIBC_TUNABLES, or the
    variables MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_), nothing changes. Source: `man 3 mallopt`.
    """
    chosen = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not _VARIABLES.isdisjoint(os.environ)
    if chosen or not sys.platform.startswith("linux"):
        return False
    import ctypes

    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl has no mallopt that does anything
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and library.mallopt(_TRIM_THRESHOLD, KEPT))

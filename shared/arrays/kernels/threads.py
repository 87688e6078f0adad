"""How many threads the Numba kernels use: as many as BLAS, which shares the cores with them."""

from __future__ import annotations

import os

import numba
from numba.core import config
from threadpoolctl import threadpool_info

# OpenMP where the system has it; Numba's own pool elsewhere (one caller at a time).
config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]

CHUNK = 16384  # elements a thread takes at a time: 64 KB of float32 per array, which fits the second-level cache
PARALLEL_FROM = 4 * CHUNK  # below, starting threads costs more than it saves


def match_blas() -> int:
    """Gives Numba the number of threads BLAS has; returns it."""
    counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    wanted = int(os.environ.get("NUMBA_NUM_THREADS", 0)) or (min(counts) if counts else 1)
    threads = max(1, min(wanted, config.NUMBA_NUM_THREADS))
    numba.set_num_threads(threads)
    return threads

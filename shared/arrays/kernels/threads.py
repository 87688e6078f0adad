"""How many threads the Numba kernels use: as many as BLAS, which shares the cores with them."""

from __future__ import annotations

import os

# OpenMP where the system has it; Numba's own pool elsewhere (one caller at a time). Read when Numba is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp workqueue tbb")
# An OpenMP thread that waits for another by spinning keeps the core from it: with a second program running on two
# cores, a step of a small network took 92 ms instead of 5. Read when libgomp is loaded, after Numba.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba  # noqa: E402
from threadpoolctl import threadpool_info  # noqa: E402

from shared.arrays.threads import share, take_turns  # noqa: E402

__all__ = ["PARALLEL_FROM", "match_blas", "share", "take_turns"]

PARALLEL_FROM = 1 << 16  # elements; below, starting threads costs more than it saves


def match_blas() -> int:
    """Gives Numba the number of threads BLAS has ($NUMBA_NUM_THREADS if set); returns it."""
    most = numba.get_num_threads()
    counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    wanted = most if "NUMBA_NUM_THREADS" in os.environ or not counts else min(counts)
    threads = max(1, min(wanted, most))
    numba.set_num_threads(threads)
    return threads

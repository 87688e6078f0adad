"""How many threads the Numba kernels use: as many as BLAS, which shares the cores with them."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

# OpenMP where the system has it; Numba's own pool elsewhere (one caller at a time). Read when Numba is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp workqueue tbb")
# An OpenMP thread that waits for another by spinning keeps the core from it: with a second program running on two
# cores, a step of a small network took 92 ms instead of 5. Read when libgomp is loaded, after Numba.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba  # noqa: E402
from threadpoolctl import ThreadpoolController, threadpool_info  # noqa: E402

CHUNK = 16384  # elements a thread takes at a time: 64 KB of float32 per array, which fits the second-level cache
PARALLEL_FROM = 4 * CHUNK  # below, starting threads costs more than it saves


def match_blas() -> int:
    """Gives Numba the number of threads BLAS has ($NUMBA_NUM_THREADS if set); returns it."""
    most = numba.get_num_threads()
    counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    wanted = most if "NUMBA_NUM_THREADS" in os.environ or not counts else min(counts)
    threads = max(1, min(wanted, most))
    numba.set_num_threads(threads)
    return threads


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads of Python that wait for kernels; a forked child, which has none of them, makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share(work: Callable[[int, int, int], Any], items: int, tasks: int) -> None:
    """Cuts range(items) into as many pieces as tasks and calls work(task, first, last) for each, on its own thread.

    For kernels compiled with nogil=True. Beside a `prange`, with which convolution and pooling took twice as long to
    compile, this costs 40 µs a call and no compilation: right for kernels that are long, in code and in time.
    """
    pieces = [(t, t * items // tasks, (t + 1) * items // tasks) for t in range(tasks)]
    if tasks == 1:
        work(*pieces[0])
        return
    with blas_on_one_thread():
        for done in [_pool(tasks).submit(work, *piece) for piece in pieces]:
            done.result()


@functools.cache
def _blas_of_numba() -> list:
    """The libraries that Numba's matrix products may run in (SciPy's BLAS), with a switch for their threads."""
    importlib.import_module("scipy.linalg.cython_blas")
    return ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Within, BLAS uses the thread that calls it: for products inside threads that have the cores already."""
    libraries = _blas_of_numba()
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)

"""Work shared among threads of Python, for array code that lets go of the interpreter: large products, kernels."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

SPINS = 18  # 2**18 ticks of the processor's clock, 0.1 ms


def let_blas_threads_sleep() -> None:
    """Has OpenBLAS's threads wait for the next product by spinning for 0.1 ms and then asleep; before NumPy is loaded.

    As they come they spin for some 20 ms, which keeps a core from the threads that share everything else. On two
    threads a step of benchmarks/cnn_step.py took 33 ms, and 66 ms of processor time, now 22 and 37; one of gpt_cpu.py
    46 and 92, now 43 and 73. A value that the user has chosen for OPENBLAS_THREAD_TIMEOUT stays.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", str(SPINS))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked child, which has none of them, makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="shared")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share(work: Callable[[int, int, int], Any], items: int, tasks: int, blas: bool = False) -> None:
    """Cuts range(items) into as many pieces as tasks and calls work(task, first, last) for each, on its own thread.

    The first piece runs on the thread that calls.

    `blas` says that the work multiplies matrices: BLAS, which would start threads of its own in each, then stays on
    the thread that calls it. Costs 40 µs a call and, other than Numba's `prange`, with which convolution and pooling
    took twice as long to compile, no compilation: right for work that is long, in code and in time.
    """
    pieces = [(t, t * items // tasks, (t + 1) * items // tasks) for t in range(tasks)]
    if tasks == 1:
        work(*pieces[0])
    elif blas:
        with blas_on_one_thread():
            _all(work, pieces)
    else:
        _all(work, pieces)


def _all(work: Callable[[int, int, int], Any], pieces: list[tuple[int, int, int]]) -> None:
    """The first piece on this thread, the others on threads of the pool; returns when all are done."""
    others = [_pool(len(pieces) - 1).submit(work, *piece) for piece in pieces[1:]]
    try:
        work(*pieces[0])
    finally:
        failed = [other.exception() for other in others]  # waits for them
    for error in filter(None, failed):
        raise error


def take_turns(work: Callable[[int, int, int], Any], items: int, pieces: int, threads: int) -> None:
    """Cuts range(items) into pieces and calls work(piece, first, last) for each; who is free takes the next one.

    For work of less than a millisecond: it takes up to 0.1 ms until another thread wakes. The thread that calls begins
    at once, others join it when they come, and one that comes too late, as on a machine with other things to do, is
    not waited for.
    """
    turns = iter([(p, p * items // pieces, (p + 1) * items // pieces) for p in range(pieces)])

    def take() -> None:
        for turn in turns:  # one thread at a time gets the next of a list's iterator
            work(*turn)

    others = [_pool(threads - 1).submit(take) for _ in range(min(threads, pieces) - 1)]
    try:
        take()
    finally:
        failed = [other.exception() for other in others if not other.cancel()]  # waits for those that have begun
    for error in filter(None, failed):
        raise error


@functools.cache
def _blas_libraries(scipys: bool) -> list:
    """Each BLAS that is loaded, with a switch for its threads: NumPy's, and SciPy's where Numba multiplies with it."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def _loaded() -> list:
    return _blas_libraries("scipy.linalg.cython_blas" in sys.modules)


def blas_threads() -> int:
    """How many threads a large matrix product uses; 1 where that cannot be found out."""
    return min((library.get_num_threads() for library in _loaded()), default=1)


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Within, BLAS uses the thread that calls it: for products inside threads that have the cores already."""
    libraries = _loaded()
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)

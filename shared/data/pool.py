"""A DataLoader's worker processes as the main process sees them: started, fed, heard, and surely ended."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import secrets
import shutil
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from multiprocessing import connection as mp_connection
from multiprocessing import resource_tracker
from typing import Any, NoReturn

from shared.data.worker import Recipe, RemoteError, read_parts, worker_main

FIRST_BLOCK = 1 << 20  # bytes; a block grows when a batch does not fit
GRACE = 1.0  # seconds a worker gets to finish by itself before it is terminated

GUARD = (
    "Worker processes import the main script anew, so what starts them must not run on import. Put it under\n\n"
    "    if __name__ == '__main__':\n        main()\n\n"
    "or use num_workers=0."
)


def default_context() -> Any:
    """How workers start: "forkserver" on Linux, "spawn" elsewhere, never "fork" (see the DataLoader)."""
    if sys.platform.startswith("linux"):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["shared.data.worker"])
        return context
    return multiprocessing.get_context("spawn")


class _Process:
    """One worker: its process, the connection to it, and which of its blocks are free."""

    def __init__(self, context: Any, worker_id: int, num_workers: int, places: int):
        self.id = worker_id
        self.free = list(range(places))
        self.blocks: dict[int, Any] = {}
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=worker_main,
            args=(worker_id, num_workers, theirs),
            name=f"DataLoader worker {worker_id}",
            daemon=True,
        )
        try:
            with _interrupts_blocked():
                self.process.start()
        finally:
            theirs.close()  # only the worker holds this end, so that its death closes the connection


class WorkerPool:
    """`num_workers` processes that make batches from `recipe`; at most `prefetch` batches at once for each.

    Tasks are numbered from 0 over the pool's life. Batches come back through blocks of shared memory which
    this process creates, uses again, and removes at the end, so that a killed worker leaves nothing behind.
    """

    def __init__(self, recipe: Recipe, num_workers: int, prefetch: int, context: Any = None):
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(f"a DataLoader with num_workers > 0 was started while a worker imports it. {GUARD}")
        payload = _pickled(recipe)
        self.workers: list[_Process] = []
        self.block_bytes = FIRST_BLOCK
        self.tasks: dict[int, tuple[_Process, int]] = {}  # number → worker and the place of its block
        self.numbers = itertools.count()
        self.oldest = 0  # the first number of this epoch: earlier results are dropped
        self.arrived: deque[tuple[int, str, Any]] = deque()
        self.heard_from: set[int] = set()
        self.close = weakref.finalize(self, _end, self.workers, os.getpid())
        context = context or default_context()
        try:
            for i in range(num_workers):
                self.workers.append(_Process(context, i, num_workers, prefetch))
            for worker in self.workers:
                self._tell(worker, dict(os.environ))
                self._tell(worker, payload, raw=True)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True once the processes were told to end."""
        return not self.close.alive

    def begin_epoch(self, seed: int) -> None:
        """Seeds the workers anew; tasks still under way belong to the past and their results are dropped."""
        for worker in self.workers:
            self._tell(worker, ("epoch", seed))
        self.oldest = next(self.numbers)
        self.arrived.clear()

    def submit(self, worker_id: int, index: Any) -> int:
        """Gives a worker a task; returns its number. Never more than `prefetch` unanswered ones for each."""
        worker = self.workers[worker_id]
        while not worker.free:  # its places are taken by tasks of an epoch that was left early
            self._listen(None)
        place, number = worker.free.pop(), next(self.numbers)
        block = worker.blocks.get(place)
        if block is None or block.size < self.block_bytes:
            block = self._new_block(worker, place, self.block_bytes)
        self.tasks[number] = (worker, place)
        self._tell(worker, ("task", number, index, place, block.name))
        return number

    def receive(self, timeout: float | None) -> tuple[int, str, Any]:
        """Waits for (number, "done", batch), (number, "end", None) or (number, "error", RemoteError)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.arrived:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
            self._listen(left)
        return self.arrived.popleft()

    def _listen(self, timeout: float | None) -> None:
        """Waits for one message of any worker, at most `timeout` seconds, and deals with it."""
        by_end = {worker.connection: worker for worker in self.workers}
        by_sentinel = {worker.process.sentinel: worker for worker in self.workers}
        ready = mp_connection.wait([*by_end, *by_sentinel], timeout)
        talking = [by_end[end] for end in ready if end in by_end]
        if talking:
            self._hear(talking[0])
        elif ready:
            self._report_death(by_sentinel[ready[0]])

    def _hear(self, worker: _Process) -> None:
        try:
            kind, number, *rest = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._report_death(worker)
        self.heard_from.add(worker.id)
        if number is None:
            raise _setup_error(rest[0])
        place, wanted = self.tasks[number][1], number >= self.oldest
        if kind == "need":
            self._tell(worker, ("block", self._new_block(worker, place, rest[0]).name if wanted else None))
            if wanted:
                return
        del self.tasks[number]
        worker.free.append(place)
        if wanted and kind == "done":
            self.arrived.append((number, kind, read_parts(rest[0], worker.blocks[place].buf)))
        elif wanted:
            self.arrived.append((number, kind, rest[0] if rest else None))

    def _new_block(self, worker: _Process, place: int, size: int) -> Any:
        from multiprocessing.shared_memory import SharedMemory

        self.block_bytes = max(self.block_bytes, size)
        _check_room(self.block_bytes)
        old = worker.blocks.pop(place, None)
        if old is not None:
            old.close()
            old.unlink()
        name = f"course_{os.getpid()}_{secrets.token_hex(4)}"
        worker.blocks[place] = SharedMemory(name, create=True, size=self.block_bytes)
        return worker.blocks[place]

    def _tell(self, worker: _Process, message: Any, raw: bool = False) -> None:
        try:
            worker.connection.send_bytes(message) if raw else worker.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._report_death(worker)

    def _report_death(self, worker: _Process) -> NoReturn:
        worker.process.join(GRACE)
        code, pid = worker.process.exitcode, worker.process.pid
        if code is not None and code < 0:
            how = f"was killed by signal {signal.Signals(-code).name}"
        else:
            how = f"exited unexpectedly with exit code {code}"
        message = f"DataLoader worker {worker.id} (pid {pid}) {how}."
        if code == -getattr(signal, "SIGBUS", 0):
            message += " Shared memory is full: use fewer workers or a lower prefetch_factor."
        elif code == -getattr(signal, "SIGKILL", 0):
            message += " If you did not do that, the machine ran out of memory: use fewer workers."
        elif worker.id not in self.heard_from:
            message += f" Its own message is above. {GUARD}"
        raise RuntimeError(message)


def _pickled(recipe: Recipe) -> bytes:
    try:
        return pickle.dumps(recipe, protocol=5)
    except Exception as error:
        names = ("dataset", "collate_fn", "worker_init_fn")
        culprit = next((name for name in names if not _pickles(getattr(recipe, name))), "dataset")
        raise RuntimeError(
            f"The {culprit} cannot be sent to worker processes: {error}. Workers get their own pickled copy: "
            f"use classes and functions defined at the top level of a file (no lambda, no local class), open files "
            f"in the worker rather than in __init__, or use num_workers=0."
        ) from error


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value, protocol=5)
    except Exception:
        return False
    return True


def _setup_error(error: RemoteError) -> Exception:
    """What a worker that could not read the dataset means for the user."""
    if "__main__" in error.text and "Can't get attribute" in error.text:
        return RuntimeError(
            "The dataset (or collate_fn, or worker_init_fn) is defined in a notebook or at the prompt, where worker "
            "processes cannot find it: move it into a .py file and import it, or use num_workers=0 "
            f"({error.text.strip().splitlines()[-1]})."
        )
    return error.exception()


def _check_room(size: int) -> None:
    folder = "/dev/shm"
    if os.path.isdir(folder) and shutil.disk_usage(folder).free < size:
        raise RuntimeError(
            f"A batch needs {size:,} bytes of shared memory and {folder} has less: use a smaller batch, fewer "
            f"workers or a lower prefetch_factor (in Docker, start with --shm-size=1g)."
        )


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Lets a starting worker inherit a blocked Ctrl-C, which it would otherwise answer with a traceback."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # now, since its own start would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(workers: list[_Process], owner: int) -> None:
    """Closes the connections, waits shortly, terminates who is still busy, removes the shared memory."""
    if os.getpid() != owner:  # a forked copy of the owner: the workers are not its children
        return
    for worker in workers:
        worker.connection.close()
    for seconds, insist in ((GRACE, None), (GRACE, "terminate"), (GRACE, "kill")):
        alive = [worker for worker in workers if worker.process.is_alive()]
        if insist is not None:
            for worker in alive:
                getattr(worker.process, insist)()
        deadline = time.monotonic() + seconds
        for worker in alive:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        for block in worker.blocks.values():
            block.close()
            block.unlink()
        worker.blocks.clear()
    workers.clear()

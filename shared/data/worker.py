"""What runs in a DataLoader's worker process, and how objects cross between the processes."""

from __future__ import annotations

import os
import pickle
import random
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.arrays.random import manual_seed
from shared.data.dataset import Dataset, IterableDataset


@dataclass(frozen=True)
class WorkerInfo:
    """Who a worker is. `dataset` is this worker's own copy; `seed` what its generators were seeded with."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process of a DataLoader its WorkerInfo, elsewhere None.

    >>> get_worker_info() is None
    True
    """
    return _info


# ----------------------------------------------------------------------------------- fetching, in any process


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make batches: sent whole to each worker."""

    dataset: Any
    collate_fn: Callable
    batched: bool
    drop_last: bool
    worker_init_fn: Callable[[int], None] | None = None


class Exhausted(Exception):
    """The IterableDataset has no more samples."""


def fetcher(recipe: Recipe) -> Callable[[Any], Any]:
    """The function from what the sampler gave (an index, or a list of them) to a batch."""
    if not isinstance(recipe.dataset, IterableDataset):
        return lambda index: fetch_by_index(recipe, index)
    stream = iter(recipe.dataset)
    return lambda index: _fetch_next(recipe, stream, index)


def fetch_by_index(recipe: Recipe, index: Any) -> Any:
    """What the loader hands over for `index`: the samples of `recipe.dataset`, put together by `recipe.collate_fn`.

    With `recipe.batched`, `index` is a list; the samples come from `dataset.__getitems__(index)` where the
    dataset has that method, else one by one, each asked for once. Without, `index` stands for a single sample,
    which is handed to `collate_fn` as it is.

    >>> fetch_by_index(Recipe("abcdef", list, batched=True, drop_last=False), [5, 0])
    ['f', 'a']
    """
    dataset: Dataset = recipe.dataset
    if not recipe.batched:
        return recipe.collate_fn(dataset[index])
    if hasattr(dataset, "__getitems__"):
        return recipe.collate_fn(dataset.__getitems__(index))
    return recipe.collate_fn([dataset[i] for i in index])


def _fetch_next(recipe: Recipe, stream: Iterator, index: Any) -> Any:
    if not recipe.batched:
        for sample in stream:
            return recipe.collate_fn(sample)
        raise Exhausted
    batch = [sample for _, sample in zip(index, stream, strict=False)]
    if not batch or (recipe.drop_last and len(batch) < len(index)):
        raise Exhausted
    return recipe.collate_fn(batch)


def seed_worker(epoch_seed: int, worker_id: int) -> int:
    """Seeds all three generators of this process by `epoch_seed + worker_id`, and returns that sum.

    They are the framework's (`manual_seed`), Python's `random` and NumPy's `np.random`, which takes
    only 32 bits: the sum modulo 2**32.

    >>> seed_worker(1000, worker_id=1)
    1001
    """
    seed = epoch_seed + worker_id
    manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    return seed


# ----------------------------------------------------------------------------------- objects in shared memory

ALIGNMENT = 64


def pack(value: Any) -> list[memoryview]:
    """`value` as pickle bytes followed by the memory of its contiguous arrays, without copying them."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [memoryview(head), *(buffer.raw() for buffer in buffers)]


def _ends(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of each part in one block, every start aligned."""
    places, start = [], 0
    for size in sizes:
        places.append((start, start + size))
        start += -(-size // ALIGNMENT) * ALIGNMENT
    return places


def total_bytes(sizes: Sequence[int]) -> int:
    """How large a block must be to hold parts of these sizes."""
    return _ends(sizes)[-1][1] if sizes else 0


def write_parts(parts: list[memoryview], block: memoryview) -> None:
    """Copies the parts that `pack` gave into a block."""
    target = np.frombuffer(block, dtype=np.uint8)
    for part, (start, stop) in zip(parts, _ends([p.nbytes for p in parts]), strict=True):
        target[start:stop] = np.frombuffer(part, dtype=np.uint8)


def read_parts(sizes: Sequence[int], block: memoryview) -> Any:
    """The value whose parts lie in a block; its arrays own their memory, so that the block can be used again.

    >>> parts = pack({"x": np.arange(3)})
    >>> sizes = [p.nbytes for p in parts]
    >>> block = memoryview(bytearray(total_bytes(sizes)))
    >>> write_parts(parts, block)
    >>> read_parts(sizes, block)["x"].tolist()
    [0, 1, 2]
    """
    own = np.frombuffer(block, dtype=np.uint8, count=total_bytes(sizes)).copy()
    head, *buffers = (memoryview(own)[start:stop] for start, stop in _ends(sizes))
    return pickle.loads(head, buffers=buffers)


# ------------------------------------------------------------------------------------ errors across processes


class RemoteError:
    """An exception from a worker: its class, its message and its traceback as text, and where it happened."""

    def __init__(self, error: BaseException, where: str):
        self.text = "".join(traceback.format_exception(error))[-20_000:]
        self.where = where
        self.name = type(error).__name__
        self.kind = type(error) if _can_be_pickled(type(error)) else RuntimeError

    def exception(self) -> Exception:
        """What to raise in the main process: the same class if it takes one message, else RuntimeError."""
        message = f"Caught {self.name} in {self.where}.\nOriginal {self.text}"
        if issubclass(self.kind, KeyError):  # its str() would show the newlines escaped
            return self.kind(_Plain(message))
        try:
            return self.kind(message)
        except Exception:
            return RuntimeError(message)


class _Plain(str):
    def __repr__(self) -> str:
        return str(self)


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


# ------------------------------------------------------------------------------------- the worker process


def worker_main(worker_id: int, num_workers: int, connection: Any) -> None:
    """A worker's life: read the recipe, then answer tasks until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which closes the connection
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        _Worker(worker_id, num_workers, connection).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the main process wants no more, or is gone


class _Worker:
    """Messages in: ("epoch", seed), ("task", number, index, place, block name), ("block", name or None).
    Messages out, all small: ("done", number, sizes), ("need", number, bytes), ("end", number), ("error", number, …).
    """

    def __init__(self, worker_id: int, num_workers: int, connection: Any):
        self.id = worker_id
        self.num_workers = num_workers
        self.connection = connection
        self.waiting: deque = deque()  # tasks that came while this worker waited for a larger block
        self.blocks: dict[int, Any] = {}  # place → SharedMemory
        self.where = f"DataLoader worker process {worker_id}"
        self.failure: RemoteError | None = None
        self.started = False

    def run(self) -> None:
        _one_thread()
        try:
            self.recipe: Recipe = self._read_recipe()
        except Exception as error:
            where = f"{self.where} while it read the dataset"
            self.connection.send(("error", None, RemoteError(error, where)))
            while True:  # until the main process, which may still be sending, has read that and closes
                self.connection.recv()
        while True:
            message = self.waiting.popleft() if self.waiting else self.connection.recv()
            if message[0] == "epoch":
                self._begin_epoch(message[1])
            elif message[0] == "task":
                self._task(*message[1:])

    def _read_recipe(self) -> Recipe:
        environment, payload = self.connection.recv(), self.connection.recv_bytes()
        os.environ.update(environment)
        return pickle.loads(payload)

    def _begin_epoch(self, seed: int) -> None:
        """Seeds every generator anew; an IterableDataset starts anew."""
        global _info
        self.failure = None
        try:
            seed = seed_worker(seed, self.id)
            _info = WorkerInfo(self.id, self.num_workers, seed, self.recipe.dataset)
            if self.recipe.worker_init_fn is not None and not self.started:
                self.recipe.worker_init_fn(self.id)
            self.started = True
            self.fetch = fetcher(self.recipe)
        except Exception as error:
            self.failure = RemoteError(error, self.where)

    def _task(self, number: int, index: Any, place: int, block_name: str) -> None:
        if self.failure is not None:
            self.connection.send(("error", number, self.failure))
            return
        try:
            parts = pack(self.fetch(index))
        except Exhausted:
            self.connection.send(("end", number))
            return
        except Exception as error:
            self.connection.send(("error", number, RemoteError(error, self.where)))
            return
        sizes = [part.nbytes for part in parts]
        block = self._block(place, block_name)
        if total_bytes(sizes) > block.size:
            block = self._larger_block(number, place, total_bytes(sizes))
        if block is not None:
            write_parts(parts, block.buf)
            self.connection.send(("done", number, sizes))

    def _block(self, place: int, name: str) -> Any:
        from multiprocessing.shared_memory import SharedMemory

        known = self.blocks.get(place)
        if known is None or known.name != name:
            if known is not None:
                known.close()
            self.blocks[place] = SharedMemory(name)
        return self.blocks[place]

    def _larger_block(self, number: int, place: int, size: int) -> Any:
        """Asks for a block of `size` bytes; None where the main process no longer wants this batch."""
        self.connection.send(("need", number, size))
        while True:
            message = self.connection.recv()
            if message[0] == "block":
                return None if message[1] is None else self._block(place, message[1])
            self.waiting.append(message)


def _one_thread() -> None:
    """One thread in each worker: the workers share the machine's cores with each other and with training."""
    from threadpoolctl import threadpool_limits

    os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)

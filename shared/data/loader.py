"""The DataLoader: batches from a dataset, in this process or made ahead by worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from shared.arrays.random import Generator
from shared.data.collate import default_collate, default_convert
from shared.data.dataset import IterableDataset
from shared.data.sampler import (
    BatchSampler,
    EndlessSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    draw_seed,
)
from shared.data.worker import Exhausted, Recipe, fetcher

T = TypeVar("T", covariant=True)


class DataLoader(Generic[T]):
    """Iterates over `dataset` in batches; signature and semantics of torch.utils.data.DataLoader.

    Order: `shuffle`, or a `sampler` of indices, or a `batch_sampler` of lists of indices. `batch_size=None`
    turns batching off. `collate_fn` makes a batch from a list of samples (see `default_collate`). Every pass
    draws a new order, and the seeds of the workers, from `generator` or the default one: `manual_seed` fixes
    all of it.

    With `num_workers` > 0 processes make up to `prefetch_factor` (2) batches each ahead of time and hand them
    over in shared memory, in the same order as without. They get a pickled copy of the dataset, so define it
    in a file and guard the script with `if __name__ == '__main__'`. They start by forkserver (Linux) or
    spawn, never by fork: a forked copy of a process that has run an OpenMP kernel dies in its own first one.
    `timeout` is in seconds for one batch; `persistent_workers` keeps the processes for the next pass;
    `multiprocessing_context` chooses the start. An exception in a worker ends the pass and is raised here
    with its traceback. `pin_memory` is accepted and has no effect.

    >>> [batch.tolist() for batch in DataLoader(range(5), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler | Iterable | None = None,
        batch_sampler: Sampler[list] | Iterable[list] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        if isinstance(dataset, IterableDataset):
            _check_iterable(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")

        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = _context(multiprocessing_context, num_workers)
        self.generator = generator
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler if sampler is not None else self._default_sampler(bool(shuffle))
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self._pool: Any = None  # of persistent workers
        self._ready = True

    def _default_sampler(self, shuffle: bool) -> Sampler:
        if isinstance(self.dataset, IterableDataset):
            return EndlessSampler()
        return RandomSampler(self.dataset, generator=self.generator) if shuffle else SequentialSampler(self.dataset)

    def __setattr__(self, name: str, value: Any) -> None:
        fixed = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
        if name in fixed and getattr(self, "_ready", False):
            raise ValueError(f"{name} attribute should not be set after DataLoader is initialized")
        super().__setattr__(name, value)

    @property
    def index_sampler(self) -> Any:
        """What the indices for one fetch come from: lists of them with batching, single ones without."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def recipe(self) -> Recipe:
        """What a process needs to make batches."""
        batched = self.batch_sampler is not None
        return Recipe(self.dataset, self.collate_fn, batched, self.drop_last, self.worker_init_fn)

    def __iter__(self) -> Iterator[T]:
        if self.num_workers == 0:
            return InProcessIterator(self)
        from shared.data.pool import WorkerPool

        pool = self._pool
        if pool is None or pool.closed:
            pool = WorkerPool(self.recipe(), self.num_workers, self.prefetch_factor, self.multiprocessing_context)
        if self.persistent_workers:
            self._pool = pool
        return WorkerIterator(self, pool)

    def __len__(self) -> int:
        """How many batches one pass has. TypeError where the dataset has no length."""
        if not isinstance(self.dataset, IterableDataset):
            return len(self.index_sampler)
        size = len(self.dataset)
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing. "
            "Let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError("prefetch_factor option should be positive")
    if persistent and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _context(choice: Any, num_workers: int) -> Any:
    """The multiprocessing context that the user chose, by name or as an object; None for the default."""
    if choice is None:
        return None
    if num_workers == 0:
        raise ValueError("multiprocessing_context can only be used with num_workers > 0")
    context = multiprocessing.get_context(choice) if isinstance(choice, str) else choice
    if context.get_start_method() == "fork":
        raise ValueError(
            "multiprocessing_context='fork' is not supported: a forked worker dies in its first OpenMP kernel. "
            "Use 'spawn' or 'forkserver'."
        )
    return context


def _check_iterable(shuffle: bool | None, sampler: Any, batch_sampler: Any) -> None:
    if shuffle:
        raise ValueError(f"DataLoader with IterableDataset: expected unspecified shuffle option, but got {shuffle=}")
    for name, option in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if option is not None:
            raise ValueError(f"DataLoader with IterableDataset: expected unspecified {name} option, but got {option}")


class InProcessIterator:
    """One pass without workers: fetch, collate, hand over."""

    def __init__(self, loader: DataLoader):
        draw_seed(loader.generator)  # the workers' seed, drawn here too: the order is the same with and without them
        self.indices = iter(loader.index_sampler)
        self.fetch = fetcher(loader.recipe())
        self.length = loader.__len__

    def __iter__(self) -> InProcessIterator:
        return self

    def __next__(self) -> Any:
        index = next(self.indices)
        try:
            return self.fetch(index)
        except Exhausted:
            raise StopIteration from None

    def __len__(self) -> int:
        return self.length()


class WorkerIterator:
    """One pass with workers: keeps each worker supplied with tasks and hands out the results in order."""

    def __init__(self, loader: DataLoader, pool: Any):
        self.pool = pool
        self.keep = loader.persistent_workers
        self.timeout = loader.timeout or None
        self.in_order = loader.in_order
        self.room = [int(loader.prefetch_factor)] * loader.num_workers
        self.turn = 0  # whose turn the next task is
        self.under_way: dict[int, int] = {}  # number of the task → worker, in order
        self.results: dict[int, tuple[str, Any]] = {}
        self.length = loader.__len__
        try:
            pool.begin_epoch(draw_seed(loader.generator))
            self.oldest = pool.oldest
            self.indices = iter(loader.index_sampler)
            for _ in range(loader.prefetch_factor * loader.num_workers):
                self._submit()
        except BaseException:
            pool.close()
            raise

    def __iter__(self) -> WorkerIterator:
        return self

    def __len__(self) -> int:
        return self.length()

    def __next__(self) -> Any:
        try:
            return self._next()
        except StopIteration:
            if not self.keep:
                self.pool.close()
            raise
        except BaseException:  # Ctrl-C included: no process and no shared memory stays behind
            self.pool.close()
            raise

    def _submit(self) -> None:
        """Gives the next of `self.indices` to the next worker in turn that has room, if there are both.

        `self.room[w]` is how many more tasks worker w may get, `self.turn` the worker whose turn it is: after
        worker w comes w + 1, after the last one 0, and one without room is passed over. So which worker makes
        which batch never depends on timing. `self.pool.submit(w, index)` hands the task over and returns
        its number, under which `self.under_way` notes the worker; it takes one place of that worker's room.
        Without room anywhere, no index is taken: it would be lost. (A worker whose stream has ended has no room.)
        """
        order = [(self.turn + i) % len(self.room) for i in range(len(self.room))]
        worker = next((w for w in order if self.room[w] > 0), None)
        if worker is None:
            return
        try:
            index = next(self.indices)
        except StopIteration:
            return
        self.under_way[self.pool.submit(worker, index)] = worker
        self.room[worker] -= 1
        self.turn = worker + 1

    def _next(self) -> Any:
        while self.under_way and not self.pool.closed:
            if self.pool.oldest != self.oldest:
                raise RuntimeError("the persistent workers have begun another pass over this DataLoader")
            number = self._arrived()
            if number is None:
                number, *result = self.pool.receive(self.timeout)
                self.results[number] = tuple(result)
                continue
            worker, (kind, value) = self.under_way.pop(number), self.results.pop(number)
            if kind == "end":
                self.room[worker] = 0  # an IterableDataset is exhausted there: no more tasks
            else:
                self.room[worker] += 1
            if kind == "error":
                raise value.exception()
            self._submit()
            if kind == "done":
                return value
        raise StopIteration

    def _arrived(self) -> int | None:
        """The number of the result to hand out now; None where one has to wait for it.

        `self.results` holds what has arrived, by the number of its task; `self.under_way` holds the tasks not
        yet handed out, in the order in which they were given. With `self.in_order` only the oldest task's
        result may be handed out, else any that has arrived, the first one first.
        """
        if self.in_order:
            first = next(iter(self.under_way))
            return first if first in self.results else None
        return next(iter(self.results), None)

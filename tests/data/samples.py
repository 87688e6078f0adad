"""Datasets for the tests. In a file of their own, because worker processes import them by name."""

from __future__ import annotations

import os
import random
import time
from collections import namedtuple

import numpy as np

from shared.arrays.random import default_generator
from shared.data import Dataset, IterableDataset, get_worker_info

Point = namedtuple("Point", "x y")


class Numbers(Dataset):
    """Sample i: (a row full of i, i)."""

    def __init__(self, size: int = 20, width: int = 4):
        self.size = size
        self.width = width

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        return np.full(self.width, index, dtype=np.float32), index


class Slow(Numbers):
    """Takes `seconds` for every sample."""

    def __init__(self, size: int, seconds: float):
        super().__init__(size)
        self.seconds = seconds

    def __getitem__(self, index: int):
        time.sleep(self.seconds)
        return super().__getitem__(index)


class Who(Numbers):
    """Sample i: (i, worker, pid, number of workers)."""

    def __getitem__(self, index: int):
        info = get_worker_info()
        return index, -1 if info is None else info.id, os.getpid(), 0 if info is None else info.num_workers


class Draws(Numbers):
    """Sample i: a number from each of the generators that a dataset may use."""

    def __getitem__(self, index: int):
        return default_generator().rng.random(), random.random(), np.random.rand()


class Strict(ValueError):
    """An exception that cannot be made from one message."""

    def __init__(self, a: int, b: int):
        super().__init__(f"{a} and {b}")


class Fails(Numbers):
    """Raises at index 5."""

    def __init__(self, kind: str = "value"):
        super().__init__()
        self.kind = kind

    def __getitem__(self, index: int):
        if index == 5:
            if self.kind == "strict":
                raise Strict(1, 2)
            if self.kind == "key":
                return {"a": 1}["b"]
            if self.kind == "exit":
                os._exit(3)
            raise ValueError("sample five is broken")
        return super().__getitem__(index)


class BreaksWhenRead(Numbers):
    """Can be pickled, cannot be read back."""

    def __setstate__(self, state: dict):
        raise OSError("the file behind it is gone")


class Stream(IterableDataset):
    """0, 1, …, size − 1, shared out among the workers."""

    def __init__(self, size: int):
        self.size = size

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.size, step))


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.size


class Ragged(Numbers):
    """Sample i has 100,000 · (i + 1) numbers: batches that outgrow their block of shared memory."""

    def __getitem__(self, index: int):
        return np.full(100_000 * (index + 1), index, dtype=np.float32)


def as_points(samples: list) -> Point:
    return Point(np.stack([x for x, _ in samples]), [f"number {y}" for _, y in samples])


def fail_to_start(worker_id: int) -> None:
    raise RuntimeError(f"worker {worker_id} has no licence")


def seed_by_worker(worker_id: int) -> None:
    np.random.seed(100 + worker_id)

"""A dataset that worker processes can import: a class of the test module itself they could not see."""

from __future__ import annotations

import os
import random
import time

import numpy as np

import shared
from shared.data import Dataset, get_worker_info


class Tagged(Dataset):
    """Example i is (an image (1, 3, 3) filled with i, its label i % 3, the process that made it, random numbers (3,)).

    The numbers come from the framework's, NumPy's and Python's generator. Example 0 takes a worker a while, so that
    the batches after its own are there first.
    """

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int, np.ndarray]:
        if index == 0 and get_worker_info() is not None:
            time.sleep(0.15)
        draws = np.array([shared.rand(1).item(), np.random.random(), random.random()])
        return np.full((1, 3, 3), index, dtype=np.float32), index % 3, os.getpid(), draws

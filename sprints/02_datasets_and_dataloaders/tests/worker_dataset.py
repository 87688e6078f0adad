"""A dataset that worker processes can import: a class of the test module itself they could not see."""

from __future__ import annotations

import os

import numpy as np

import shared
from shared.data import Dataset


class Tagged(Dataset):
    """Example i is (an image (1, 3, 3) filled with i, its label i % 3, the process that made it, a random number)."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int, float]:
        return np.full((1, 3, 3), index, dtype=np.float32), index % 3, os.getpid(), shared.rand(1).item()

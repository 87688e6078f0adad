"""The GPU under `torch.cuda`'s names; every question can be asked on a machine without one."""

from __future__ import annotations

from shared.arrays import device as _devices
from shared.arrays import random as _random

is_available = _devices.cuda_is_available
device_count = _devices.cuda_device_count
get_device_name = _devices.cuda_device_name
synchronize = _devices.synchronize
memory_allocated = _devices.cuda_memory_allocated
memory_reserved = _devices.cuda_memory_reserved
empty_cache = _devices.cuda_empty_cache


def manual_seed(seed: int) -> None:
    """Seeds the current GPU's generator; nothing where there is none."""
    if is_available():
        _random.default_generator("cuda").manual_seed(seed)


manual_seed_all = manual_seed

"""Floor 1: whether operations choose the dtype they compute in (`shared.amp.autocast`); each thread has its own state.

What each operation chooses is in `shared.ops.autocast`; here is what it looks at, and what a recomputation
(`autograd.checkpoint`) restores.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from shared.arrays import dtypes

DEFAULTS = {"cuda": dtypes.float16, "cpu": dtypes.bfloat16}  # device types, and the dtype of products if none is named


class AutocastMode(threading.local):
    """One thread's state; a new thread starts with autocast off."""

    def __init__(self) -> None:
        self.dtypes: dict[str, np.dtype] = {}  # the dtype of products on each device type where autocast is on
        self.cache_enabled = True
        self.depth = 0  # regions that were entered and not left
        self.casts: dict[int, Any] = {}  # what `shared.ops.autocast` keeps until the outermost region is left


mode = AutocastMode()
entered: list[Any] = []  # the regions that some thread is in; while it is empty, operations need not look at `mode`


class Region:
    """In a `with` block autocast is on for the device types in `dtypes`, off for the others.

    When the outermost region is left, the casts that were kept are forgotten.
    """

    def __init__(self, dtypes: dict[str, np.dtype], cache_enabled: bool):
        self.dtypes, self.cache_enabled = dtypes, cache_enabled
        self.previous: list[tuple[dict[str, np.dtype], bool]] = []

    def __enter__(self) -> None:
        self.previous.append((mode.dtypes, mode.cache_enabled))
        mode.dtypes, mode.cache_enabled = self.dtypes, self.cache_enabled
        mode.depth += 1
        entered.append(self)

    def __exit__(self, *exc: object) -> None:
        mode.dtypes, mode.cache_enabled = self.previous.pop()
        mode.depth -= 1
        entered.remove(self)
        if not mode.depth:
            mode.casts.clear()


def now() -> Region:
    """A region in which autocast is as it is now."""
    return Region(mode.dtypes, mode.cache_enabled)


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """True where autocast is on for `device_type`, "cuda" or "cpu"."""
    return _known(device_type) in mode.dtypes


def get_autocast_dtype(device_type: str) -> np.dtype:
    """The dtype of products under autocast: that of the region, or what `autocast(device_type)` would take."""
    return mode.dtypes.get(_known(device_type), DEFAULTS[device_type])


def is_autocast_cache_enabled() -> bool:
    """True where the casts of weights are kept until the outermost region is left."""
    return mode.cache_enabled


def clear_autocast_cache() -> None:
    """Forgets the casts of weights that were kept."""
    mode.casts.clear()


def is_autocast_available(device_type: str) -> bool:
    """True for the device types that there is autocast for, "cuda" and "cpu"."""
    return device_type in DEFAULTS


def _known(device_type: str) -> str:
    if not is_autocast_available(device_type):
        raise RuntimeError(
            f"unsupported autocast device_type {device_type!r}; expected one of {', '.join(map(repr, DEFAULTS))}"
        )
    return device_type

"""Floor 1: whether operations are recorded, whether backward looks for NaN, whether new layers draw their weights.

Each thread has modes of its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


class Modes(threading.local):
    """Each thread's modes; a new thread starts with these."""

    grad = True  # record operations
    anomaly = False  # look for NaN after every backward
    init = True  # the functions of nn.init fill what they are given


modes = Modes()


def is_grad_enabled() -> bool:
    """True where operations are recorded."""
    return modes.grad


class _GradMode:
    """Sets the grad mode for a `with` block or, as a decorator, for the calls of a function."""

    def __init__(self, mode: bool):
        self.mode = mode
        self.previous: list[bool] = []

    def __enter__(self) -> None:
        self.previous.append(modes.grad)
        modes.grad = self.mode

    def __exit__(self, *exc: object) -> None:
        modes.grad = self.previous.pop()

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(self.mode):
                return function(*args, **kwargs)

        return wrapped


def no_grad(function: Callable | None = None) -> Any:
    """Operations inside are not recorded: `with no_grad():`, `@no_grad()` or `@no_grad`.

    >>> import shared
    >>> x = shared.ones(2, requires_grad=True)
    >>> with shared.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return _GradMode(False) if function is None else _GradMode(False)(function)


def enable_grad(function: Callable | None = None) -> Any:
    """Operations inside are recorded, also within `no_grad`."""
    return _GradMode(True) if function is None else _GradMode(True)(function)


def inference_mode(mode: bool | Callable = True) -> Any:
    """`no_grad` under PyTorch's other name; `mode=False` records."""
    return no_grad(mode) if callable(mode) else _GradMode(not mode)


class set_grad_enabled(_GradMode):
    """Sets the grad mode at once; a `with` block restores the old one at its end, a decorator sets it for calls."""

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        self.previous.append(modes.grad)
        modes.grad = self.mode

    def __enter__(self) -> None:
        pass

    def __call__(self, function: Callable) -> Callable:
        modes.grad = self.previous.pop()
        return super().__call__(function)


class detect_anomaly:
    """Inside, a backward that makes a NaN raises an error that names its op and shows where the op was called.

    >>> import shared
    >>> x = shared.zeros(1, requires_grad=True)
    >>> with shared.autograd.detect_anomaly():
    ...     (x.sqrt() * 0).sum().backward()
    Traceback (most recent call last):
    RuntimeError: Function 'SqrtBackward0' returned nan values in its 0th output...
    """

    def __init__(self, check_nan: bool = True):
        self.mode = check_nan

    def __enter__(self) -> None:
        self.previous = modes.anomaly
        modes.anomaly = self.mode

    def __exit__(self, *exc: object) -> None:
        modes.anomaly = self.previous

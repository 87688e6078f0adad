"""Calls of kernels that cover every kernel: sizes around blocks and vectors, NaN and infinities, all options."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.arrays import dtypes
from shared.arrays.kernels.windows import Windows

Draw = Callable[..., np.ndarray]
WIDE = ("float32", "float64")
ALL = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Call:
    """`make(draw)` gives the arguments, draw(*shape) an array of standard normal numbers of the dtype in question."""

    family: str
    function: str
    name: str
    make: Callable[[Draw], list[Any]]
    launches: tuple[str, ...]  # the kernels it starts, in the order of their first start
    options: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = WIDE
    looser: float = 1.0

    def __str__(self) -> str:
        return f"{self.family}.{self.function} {self.name}"

    def arguments(self, dtype: str) -> list[Any]:
        """The same numbers on every machine."""
        rng = np.random.RandomState(zlib.crc32(str(self).encode()))

        def draw(*shape: int, special: bool = False) -> np.ndarray:
            values = np.asarray(rng.standard_normal(shape))
            if special and values.size > 8:
                values.reshape(-1)[[1, 4, 7]] = math.nan, math.inf, -math.inf
            return values.astype(dtypes.as_dtype(dtype))

        return self.make(draw)


# ---------------------------------------------------------------- optimizers

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}


def _adam(draw: Draw, *shape: int) -> list[Any]:
    return [draw(*shape), draw(*shape), draw(*shape), np.asarray(abs(draw(*shape)))]


def _optim() -> Iterator[Call]:
    for shape in ((), (7, 3), (1024 * 4 + 5,)):
        for decoupled in (False, True):
            options = {**ADAM, "decoupled": decoupled, "step": 3}
            yield Call(
                "optim", "adam", f"{shape} {decoupled}", lambda d, s=shape: _adam(d, *s), ("adam",), options, ALL
            )
        for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):

            def sgd(draw: Draw, s: tuple[int, ...] = shape, momentum: float = momentum) -> list[Any]:
                return [draw(*s), draw(*s), draw(*s) if momentum else None]

            options = {**SGD, "momentum": momentum, "nesterov": nesterov}
            yield Call("optim", "sgd", f"{shape} {momentum} {nesterov}", sgd, ("sgd",), options, ALL)
    yield Call("optim", "squares", "of many", lambda d: [[d(i % 7 + 1, i + 1) for i in range(70)]], ("squares",))
    yield Call("optim", "squares", "of one", lambda d: [[d(1500, 1001)]], ("squares",))
    yield Call("optim", "squares", "overflowing", lambda d: [[d(300) * 1e25]], ("squares",))
    yield Call("optim", "scale_all", "many", lambda d: [[d(i + 1, 9) for i in range(70)], 0.25], ("scale",), {}, ALL)
    yield Call("optim", "scale_all", "to zero", lambda d: [[d(40, special=True)], 0.0], ("scale",))


# ---------------------------------------------------------------- windows

WINDOWS = {
    "squares": ((2, 3, 6, 8), Windows((2, 2), (3, 4), (2, 2), (0, 0), (1, 1))),
    "overlapping": ((2, 3, 7, 5), Windows((3, 3), (4, 5), (2, 1), (1, 1), (1, 1))),
    "past the end": ((1, 2, 7), Windows((3,), (4,), (3,), (1,), (1,))),
    "dilated": ((2, 2, 9, 11), Windows((2, 3), (4, 3), (2, 3), (1, 2), (3, 2))),
    "gaps between": ((2, 2, 9), Windows((2,), (3,), (4,), (0,), (1,))),
    "three dimensions": ((2, 2, 4, 5, 6), Windows((2, 3, 2), (3, 3, 6), (1, 2, 1), (0, 1, 1), (1, 1, 2))),
    "many": ((2, 3, 30, 31), Windows((3, 3), (30, 31), (1, 1), (1, 1), (1, 1))),
}


def _pool() -> Iterator[Call]:
    for name, (shape, w) in WINDOWS.items():
        size, count = shape[2:], (*shape[:2], *w.count)

        def places(draw: Draw, shape: tuple[int, ...] = shape, w: Windows = w) -> list[Any]:
            from shared.arrays.kernels.pool import reference

            chosen = reference.max_pool(draw(*shape).astype(np.float32), w)[1]
            return [draw(*shape[:2], *w.count), chosen, shape[2:], w]

        def divisor(draw: Draw, w: Windows = w) -> np.ndarray:
            numbers = np.arange(1.0, 1 + w.positions).reshape(w.count)
            return numbers.astype(draw().dtype)

        special = name == "overlapping"
        yield Call("pool", "max_pool", name, lambda d, s=shape, w=w, n=special: [d(*s, special=n), w], ("max_pool",))
        yield Call("pool", "max_pool_input", name, places, ("max_pool_input",))
        yield Call(
            "pool",
            "avg_pool",
            name,
            lambda d, s=shape, w=w, n=special, parts=divisor: [d(*s, special=n), w, parts(d)],
            ("avg_pool",),
        )
        yield Call(
            "pool",
            "avg_pool_input",
            name,
            lambda d, c=count, s=size, w=w, parts=divisor: [d(*c), s, w, parts(d)],
            ("avg_pool_input",),
        )
    lowest = lambda d: [np.full((1, 1, 4), -np.inf, d().dtype), Windows((2,), (2,), (2,), (0,), (1,))]  # noqa: E731
    yield Call("pool", "max_pool", "of −inf", lowest, ("max_pool",), {}, ALL)


def _conv() -> Iterator[Call]:
    for name, (shape, w) in WINDOWS.items():
        for groups in (1, shape[1]):
            n, channels, outputs = shape[0], shape[1], 2 * shape[1]
            kernel, count, size = (outputs, channels // groups, *w.kernel_size), (n, outputs, *w.count), shape[2:]
            what = f"{name}, {groups} groups"
            yield Call(
                "conv",
                "conv",
                what,
                lambda d, s=shape, k=kernel, o=outputs, w=w, g=groups: [d(*s), d(*k), d(o), w, g],
                ("to_columns",),
            )
            yield Call(
                "conv",
                "conv_input",
                what,
                lambda d, c=count, k=kernel, s=size, w=w, g=groups: [d(*c), d(*k), s, w, g],
                ("from_columns",),
            )
            yield Call(
                "conv",
                "conv_weight",
                what,
                lambda d, c=count, s=shape, w=w, g=groups: [d(*c), d(*s), w, g],
                ("to_columns",),
                looser=5.0,
            )


CALLS = [*_optim(), *_pool(), *_conv()]

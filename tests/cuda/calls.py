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


class OnTheHost(list):
    """Arrays that stay NumPy's, such as counters of steps."""


def _together() -> Iterator[Call]:
    """Many parameters in a call: of several sizes, on steps of their own, more than fit into one launch."""
    shapes = [(), (5, 7), (2000,), (3,), *[(i + 1,) for i in range(70)]]

    def column(draw: Draw) -> list[np.ndarray]:
        return [draw(*s) for s in shapes]

    def adam(draw: Draw) -> list[Any]:
        steps = OnTheHost(np.array(float(i % 3), np.float32) for i in range(len(shapes)))
        return [column(draw), column(draw), column(draw), [np.asarray(abs(a)) for a in column(draw)], steps]

    for maximize in (False, True):
        options = {**ADAM, "decoupled": True, "maximize": maximize}
        yield Call("optim", "adam_all", f"{maximize}", adam, ("adam",), options)
        for momentum in (0.0, 0.9):
            options = {**SGD, "momentum": momentum, "nesterov": False, "maximize": maximize}
            made = lambda d, m=momentum: [column(d), column(d), column(d) if m else None]  # noqa: E731
            yield Call("optim", "sgd_all", f"{maximize} {momentum}", made, ("sgd",), options)


def _optim() -> Iterator[Call]:
    yield from _together()
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


# ---------------------------------------------------------------- rows

ROWS = [(1, 1), (3, 10), (5, 1), (70, 4), (6, 257), (2, 1000), (2, 3, 33)]


def _targets(rows: int, classes: int) -> np.ndarray:
    return np.arange(rows) * 7 % classes


def _masked(values: np.ndarray) -> np.ndarray:
    """Some elements −∞, as behind a mask, and all of the last row."""
    values = values.copy()
    values[..., ::3] = -math.inf
    values[-1] = -math.inf
    return values


def _softmax() -> Iterator[Call]:
    for shape in ROWS:
        for name in ("softmax", "log_softmax"):
            yield Call("softmax", name, str(shape), lambda d, s=shape: [d(*s), -1], (name,), {}, ALL)
            made = lambda d, s=shape: [d(*s) / 2, d(*s), len(s) - 1]  # noqa: E731
            yield Call("softmax", name + "_gradient", str(shape), made, (name + "_gradient",), {}, ALL, 5.0)
        if len(shape) == 2:
            made = lambda d, s=shape: [d(*s), _targets(*s)]  # noqa: E731
            yield Call("softmax", "cross_entropy", str(shape), made, ("cross_entropy",), {}, ALL)
            for each in (True, False):
                made = lambda d, s=shape, e=each: [d(*s), _targets(*s), d(s[0], 1) if e else d()]  # noqa: E731
                name = "cross_entropy_gradient"
                yield Call("softmax", name, f"{shape} {each}", made, (name,), {}, ALL)
    for name in ("softmax", "log_softmax"):
        yield Call("softmax", name, "special", lambda d: [d(4, 9, special=True), 1], (name,))
        yield Call("softmax", name, "masked", lambda d: [_masked(d(5, 40)), 1], (name,))
        yield Call("softmax", name, "large", lambda d: [d(5, 40) * 1e30, 1], (name,))
    made = lambda d: [_masked(d(5, 40)), _targets(5, 40)]  # noqa: E731
    yield Call("softmax", "cross_entropy", "masked", made, ("cross_entropy",))


# ---------------------------------------------------------------- norms

CHANNELS = [(1, 1, 1), (4, 6, 1), (3, 2, 50), (2, 4, 1100), (300, 2, 1), (2, 40, 3)]


def _norm() -> Iterator[Call]:
    for shape in [s for s in ROWS if len(s) == 2]:
        for affine in (True, False):

            def rows(draw: Draw, s: tuple[int, ...] = shape, affine: bool = affine) -> list[Any]:
                return [draw(*s), draw(s[1]) if affine else None, draw(s[1]) if affine else None, 1e-2]

            def back(draw: Draw, s: tuple[int, ...] = shape, affine: bool = affine) -> list[Any]:
                moments = draw(s[0], 1), np.asarray(abs(draw(s[0], 1)))
                return [draw(*s), draw(*s), *moments, draw(s[1]) if affine else None]

            what = f"{shape} {affine}"
            yield Call("norm", "layer_norm", what, rows, ("rows_norm",), {}, ALL, 5.0)
            yield Call("norm", "layer_norm_input", what, back, ("rows_weight", "rows_input"), {}, WIDE, 10.0)
            made = lambda d, f=rows: [f(d)[i] for i in (0, 1, 3)]  # noqa: E731
            yield Call("norm", "rms_norm", what, made, ("rows_norm",), {}, ALL, 5.0)
            made = lambda d, f=back: [f(d)[i] for i in (0, 1, 3, 4)]  # noqa: E731
            yield Call("norm", "rms_norm_input", what, made, ("rows_input", "rows_weight"), {}, WIDE, 10.0)
    yield Call("norm", "layer_norm", "special", lambda d: [d(5, 9, special=True), None, None, 1e-5], ("rows_norm",))
    for shape in CHANNELS:
        for affine in (True, False):
            yield from _channels(shape, affine)


def _channels(shape: tuple[int, ...], affine: bool) -> Iterator[Call]:
    channels, what = shape[1], f"{shape} {affine}"

    def parameters(draw: Draw) -> list[Any]:
        return [draw(channels), draw(channels)] if affine else [None, None]

    def moments(draw: Draw, *size: int) -> list[Any]:
        return [draw(*size), np.asarray(abs(draw(*size)))]

    made: Callable[[Draw], list[Any]]
    made = lambda d: [d(*shape), *parameters(d), 1e-2]  # noqa: E731
    yield Call("norm", "batch_norm", what, made, ("row_moments", "channel_moments", "channel_norm"), {}, WIDE, 5.0)
    made = lambda d: [d(*shape), *moments(d, channels), *parameters(d), 1e-2]  # noqa: E731
    yield Call("norm", "normalize_channels", what, made, ("channel_norm",), {}, ALL, 5.0)
    made = lambda d: [d(*shape), d(*shape), *moments(d, channels), parameters(d)[0]]  # noqa: E731
    launches = ("row_sums", "channel_sums", "channel_input")
    yield Call("norm", "batch_norm_input", what, made, launches, {}, WIDE, 20.0)
    yield Call("norm", "normalize_channels_input", what, made, launches, {}, WIDE, 20.0)
    for groups in {1, 2 if channels % 2 == 0 else 1, channels}:
        made = lambda d, g=groups: [d(*shape), g, *parameters(d), 1e-2]  # noqa: E731
        yield Call("norm", "group_norm", f"{what} {groups}", made, ("rows_norm",), {}, WIDE, 5.0)
        made = lambda d, g=groups: [  # noqa: E731
            *(d(*shape), d(*shape), g),
            *moments(d, shape[0] * g, 1),
            parameters(d)[0],
        ]
        launches = ("row_sums", "channel_sums", "rows_input")
        yield Call("norm", "group_norm_input", f"{what} {groups}", made, launches, {}, WIDE, 20.0)


# ---------------------------------------------------------------- element by element


def _activation() -> Iterator[Call]:
    names = ("relu", "sigmoid", "silu", "gelu", "gelu_tanh")
    for name in names:
        for shape in ((), (0, 3), (255,), (7, 300)):
            made = lambda d, s=shape: [np.asarray(d(*s, special=True) * 4)]  # noqa: E731
            launches = () if 0 in shape else ("forward_" + name,)
            yield Call("activation", name, str(shape), made, launches, {}, ALL)
            made = lambda d, s=shape: [d(*s), d(*s, special=True)]  # noqa: E731
            launches = () if 0 in shape else ("backward_" + name,)
            yield Call("activation", name + "_input", str(shape), made, launches, {}, ALL, 2.0)
    for name in names:
        made = lambda d: [d(40, special=True), np.abs(d(40))]  # noqa: E731
        yield Call("activation", name + "_input", "infinite gradient", made, ("backward_" + name,))


# ---------------------------------------------------------------- tables


def _embedding() -> Iterator[Call]:
    for shape in ((), (5,), (0,), (4, 100)):
        uses = np.asarray(np.arange(np.prod(shape, dtype=int)) * 13 % 17 // 2).reshape(shape)
        launches = () if 0 in shape else ("look_up",)
        made = lambda d, u=uses: [d(9, 33), u]  # noqa: E731
        yield Call("embedding", "embedding", str(shape), made, launches, {}, ALL)
        launches = () if 0 in shape else ("add_uses",)
        for padding in (None, 0, -1):
            made = lambda d, u=uses, p=padding: [d(*u.shape, 33), u, 9, p]  # noqa: E731
            yield Call("embedding", "embedding_weight", f"{shape} {padding}", made, launches, {}, WIDE, 10.0)


def _dropout() -> Iterator[Call]:
    for shape in ((), (255,), (3, 400), (0, 2)):
        for seed in (1, 2**40 + 5, 2**64 - 1):
            launches = () if 0 in shape else ("drop",)
            made = lambda d, s=shape, seed=seed: [d(*s, special=True), 0.3, s, seed]  # noqa: E731
            yield Call("dropout", "dropout", f"{shape} {seed}", made, launches, {}, WIDE)
        made = lambda d, s=shape: [d(*s, special=True), 0.3, np.asarray(d(*s) > 0)]  # noqa: E731
        launches = () if 0 in shape else ("drop_gradient",)
        yield Call("dropout", "dropout_input", str(shape), made, launches, {}, ALL)
    yield Call("dropout", "dropout", "p = 1", lambda d: [d(5), 1.0, (5,), 3], ("drop",), {}, ALL)


# ---------------------------------------------------------------- attention

ATTENTION = {  # q, k and v, diagonal, mask, probability of dropout
    "one": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), None, "", 0.0),
    "causal": ((2, 2, 70, 5), (2, 2, 70, 5), (2, 2, 70, 5), 0, "", 0.0),
    "more keys": ((1, 2, 3, 20), (1, 2, 130, 20), (1, 2, 130, 9), 127, "", 0.0),
    "early queries see nothing": ((1, 1, 9, 4), (1, 1, 9, 4), (1, 1, 9, 4), -3, "", 0.0),
    "booleans": ((2, 3, 7, 33), (2, 3, 90, 33), (2, 3, 90, 65), None, "booleans", 0.0),
    "booleans and causal": ((1, 2, 66, 4), (1, 2, 66, 4), (1, 2, 66, 4), 0, "booleans", 0.0),
    "added": ((2, 2, 5, 17), (2, 2, 40, 17), (2, 2, 40, 17), None, "added", 0.0),
    "dropout": ((2, 2, 67, 8), (2, 2, 35, 8), (2, 2, 35, 8), None, "", 0.3),
    "all dropped": ((1, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2), None, "", 1.0),
    "shared keys": ((2, 4, 66, 8), (2, 2, 70, 8), (2, 2, 70, 8), 2, "booleans", 0.2),
    "wide": ((1, 2, 3, 130), (1, 2, 5, 130), (1, 2, 5, 70), None, "", 0.0),
}


def _attention() -> Iterator[Call]:
    for name, (queries, keys, values, diagonal, kind, p) in ATTENTION.items():
        scale, widest = 0.3, max(queries[3], values[3])
        width = 64 if widest <= 64 else 128 if widest <= 128 else 256

        def mask(
            draw: Draw, kind: str = kind, q: tuple[int, ...] = queries, k: tuple[int, ...] = keys
        ) -> np.ndarray | None:
            drawn = draw(q[0], 1, q[2], k[2])
            if kind == "booleans":
                drawn[0, 0, 1] = -9.0  # a query that sees nothing
                return np.asarray(drawn > 0.3)
            masked = drawn.astype(np.float64 if drawn.dtype == np.float64 else np.float32)
            return np.where(masked > 1, -np.inf, masked).astype(masked.dtype) if kind else None

        def forward(draw: Draw, q: Any = queries, k: Any = keys, v: Any = values, made: Any = mask) -> list[Any]:
            return [draw(*q), draw(*k), draw(*v), made(draw)]

        rest = [diagonal, scale, p, 2**40 + 5]

        def given(draw: Draw, forward: Any = forward, rest: list[Any] = rest) -> list[Any]:
            return [*forward(draw), *rest]

        def back(draw: Draw, forward: Any = forward, rest: list[Any] = rest) -> list[Any]:
            from shared.arrays.kernels.attention import reference

            q, k, v, mask = forward(draw)
            wide = [x.astype(np.float32) if x.dtype.itemsize == 2 else x for x in (q, k, v)]
            out, logs = reference.attention_forward(*wide, mask, *rest)
            return [q, k, v, out.astype(q.dtype), logs, draw(*out.shape), mask, *rest]

        yield Call("attention", "attention_forward", name, given, (f"forward_{width}",), {}, ALL, 3.0)
        launches = ("means", f"queries_{width}", f"keys_{width}")
        yield Call("attention", "attention_backward", name, back, launches, {}, ALL, 10.0)
    shapes = (1, 1, 2, 257)
    made = lambda d: [d(*shapes), d(*shapes), d(*shapes), None, 0, 0.1, 0.0, 0]  # noqa: E731
    yield Call("attention", "attention_forward", "too wide", made, (), {}, WIDE)
    made = lambda d: [d(1, 1, 70, 3, special=True), d(1, 1, 70, 3), d(1, 1, 70, 3), None, 0, 1.0, 0.0, 0]  # noqa: E731
    yield Call("attention", "attention_forward", "special", made, ("forward_64",), {}, WIDE)


CALLS = [
    *_attention(),
    *(*_optim(), *_pool(), *_conv(), *_softmax(), *_norm(), *_activation(), *_embedding(), *_dropout()),
]

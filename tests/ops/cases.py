"""The table of cases: every operation once, as an expression that `shared` and PyTorch run alike.

`test_parity.py` compares values and gradients with PyTorch, `test_golden.py` with committed numbers,
`test_gradients.py` with finite differences, `test_gpu.py` the GPU with the CPU, and
`tests/autograd/test_saved.py` looks at what each operation has saved. A new operation needs one line here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """`call(t, *tensors)` is the expression, t being `shared` or `torch`; `shapes` are alternatives, each with one
    shape per tensor; `domains` say what numbers each tensor holds."""

    name: str
    call: Callable[..., Any]
    shapes: tuple[tuple[Shape, ...], ...]
    domains: tuple[str, ...]

    def arrays(self, place: int, dtype: Any = np.float64, layout: str = "contiguous") -> list[np.ndarray]:
        """Inputs for alternative `place`: the same numbers on every machine."""
        rng = np.random.RandomState(zlib.crc32(f"{self.name} {place}".encode()))
        drawn = [draw(rng, domain, shape) for domain, shape in zip(self.domains, self.shapes[place], strict=True)]
        return [LAYOUTS[layout](a.astype(dtype) if a.dtype.kind == "f" else a) for a in drawn]

    def differentiable(self) -> list[bool]:
        """Which inputs may require a gradient."""
        return [not d.startswith(("index", "mask", "order")) for d in self.domains]


def draw(rng: np.random.RandomState, domain: str, shape: Shape) -> np.ndarray:
    """Random numbers of a domain, float64; int64 for 'index 5' (0 … 4) and 'order 5'
    (of 0 … 4 none twice along dimension 0), bool for 'mask'."""
    kind, _, number = domain.partition(" ")
    if kind == "special":
        return np.resize(SPECIAL if not number else SPECIAL_ROWS, shape)
    if kind == "index":
        return np.asarray(rng.randint(0, int(number), shape), dtype=np.int64)
    if kind == "order":
        return np.argsort(rng.random_sample((int(number), *shape[1:])), axis=0)[: shape[0]].astype(np.int64)
    values = np.asarray(rng.standard_normal(shape))
    if kind == "mask":
        return np.asarray(values > 0)
    changed = {
        "real": values,
        "positive": abs(values) + 0.5,
        "nonzero": values + np.sign(values) * 0.5,
        "unit": 0.1 + 0.8 / (1 + np.exp(-values)),
        "zeros": np.where(values > 0.8, 0.0, values),
        "rising": np.sort(values, axis=-1) if values.ndim else values,
    }
    return np.asarray(changed[kind])


NAN, INF = float("nan"), float("inf")
SPECIAL = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.5, 2.0, 1e-30, -1e30])
SPECIAL_ROWS = np.array(
    [
        *[NAN, 1, 2],
        *[1, NAN, INF],
        *[INF, 1, -INF],
        *[INF, INF, 0],
        *[-INF, -INF, -INF],
        *[-INF, 0, 1],
        *[0, 2, 3],
        *[-INF, -1, -2],
        *[1, 1, 0.5],
    ]
)


def _sliced(a: np.ndarray) -> np.ndarray:
    wide = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    view = wide[(*[slice(None, None, 2)] * a.ndim, ...)]
    view[...] = a
    return view


def _expanded(a: np.ndarray) -> np.ndarray:
    if not a.size or not a.ndim:
        return a
    return np.lib.stride_tricks.as_strided(a[:1].copy(), a.shape, (0, *a[:1].copy().strides[1:]))


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": lambda a: np.array(a, order="C"),
    "transposed": lambda a: np.array(a, order="F"),
    "sliced": _sliced,
    "expanded": _expanded,
}

ONE = ((2, 3), (), (0,), (2, 0, 3))
TWO = (
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((2, 3), ()),
    ((), (2, 3)),
    ((), ()),
    ((0, 3), (3,)),
    ((1, 0), (2, 1)),
)
CASES: list[Case] = []


def case(name: str, call: Callable, shapes: Any, domains: str | None = None) -> None:
    """Adds a case. `shapes`: one shape per tensor, or a list of such tuples; `domains`: 'real' unless given."""
    alternatives = tuple(shapes) if isinstance(shapes, list) else (shapes,)
    alternatives = tuple(a if a and isinstance(a[0], tuple) else (a,) for a in alternatives)
    given = tuple(d.strip() for d in domains.split(",")) if domains else ("real",)
    CASES.append(Case(name, call, alternatives, given * len(alternatives[0]) if len(given) == 1 else given))


def unary(name: str, domain: str = "real") -> None:
    case(name, lambda t, x: getattr(t, name)(x), list(ONE), domain)


def binary(name: str, call: Callable, domains: str = "real, real") -> None:
    case(name, call, list(TWO), domains)


# ---------------------------------------------------------------- arithmetic

binary("add", lambda t, a, b: t.add(a, b))
binary("add alpha", lambda t, a, b: t.add(a, b, alpha=2))
binary("sub", lambda t, a, b: t.sub(a, b))
binary("sub alpha", lambda t, a, b: t.sub(a, b, alpha=-0.5))
binary("mul", lambda t, a, b: t.mul(a, b))
binary("div", lambda t, a, b: t.div(a, b), "real, nonzero")
binary("div floor", lambda t, a, b: t.div(a, b, rounding_mode="floor"), "real, nonzero")
binary("div trunc", lambda t, a, b: t.div(a, b, rounding_mode="trunc"), "real, nonzero")
binary("floor_divide", lambda t, a, b: t.floor_divide(a.detach(), b.detach()), "real, nonzero")
binary("remainder", lambda t, a, b: t.remainder(a, b), "real, nonzero")
binary("pow", lambda t, a, b: t.pow(a, b), "positive, real")
binary("atan2", lambda t, a, b: t.atan2(a, b), "nonzero, nonzero")
binary("operators", lambda t, a, b: (a + b - a * b) / (a**2 + 1) + -a + abs(b) + +a, "nonzero, nonzero")
binary("modulo operators", lambda t, a, b: (a % b, (a // b).detach()), "real, nonzero")
case("scalars on the right", lambda t, x: ((x + 1) * 2.5 - 3) / 4 + x**3 + x % 2, [*ONE])
case("scalars on the left", lambda t, x: 1 + 2.5 * x - (3 - x) + 4 / x + 2**x, [*ONE], "nonzero")
for exponent in (0, 1, 2, 3, -1, 0.5, 1.5):
    case(f"pow {exponent}", lambda t, x, n=exponent: t.pow(x, n), [*ONE], "positive")

# ---------------------------------------------------------------- element by element

for name in ("neg", "exp", "expm1", "sin", "cos", "tan", "tanh", "sigmoid", "erf", "square"):
    unary(name)
for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"):
    unary(name, "positive")
for name in ("abs", "sign", "floor", "ceil", "round", "trunc", "relu"):
    unary(name, "nonzero")
case("round decimals", lambda t, x: t.round(x, decimals=2), [*ONE])
case("clamp", lambda t, x: t.clamp(x, -0.5, 0.7), [*ONE])
case("clamp min", lambda t, x: t.clamp(x, min=0.1), [*ONE])
case("clamp max", lambda t, x: t.clamp(x, max=0.1), [*ONE])
case("clamp tensors", lambda t, x, a, b: t.clamp(x, a, b), [((2, 3), (2, 3), (3,)), ((2, 3), (), ()), ((), (), ())])
binary("maximum", lambda t, a, b: t.maximum(a, b))
binary("minimum", lambda t, a, b: t.minimum(a, b))
case(
    "where",
    lambda t, c, a, b: t.where(c, a, b),
    [((2, 3), (2, 3), (2, 3)), ((2, 1), (3,), ()), ((), (2, 3), (3,)), ((0, 3), (3,), ()), ((), (), ())],
    "mask, real, real",
)
case("where scalar", lambda t, c, x: t.where(c, x, 0.5) + t.where(c, -1, x), [((2, 3), (2, 3))], "mask, real")

# ---------------------------------------------------------------- comparisons: no gradient

for name in ("eq", "ne", "lt", "le", "gt", "ge"):
    binary(name, lambda t, a, b, name=name: (getattr(t, name)(a, b), getattr(t, name)(a, a), getattr(t, name)(a, 0)))
binary("comparison operators", lambda t, a, b: (a == b, a != b, a < b, a <= b, a > b, a >= b, 0 < a, a == a))
binary("isclose", lambda t, a, b: (t.isclose(a, b), t.isclose(a, a)))
binary("allclose", lambda t, a, b: t.tensor([t.allclose(a, b), t.allclose(a, a), t.equal(a, b), t.equal(a, a)]))
for name in ("logical_and", "logical_or", "logical_xor"):
    binary(name, lambda t, a, b, name=name: getattr(t, name)(a, b), "zeros, mask")
for name in ("logical_not", "isnan", "isinf", "isfinite"):
    unary(name, "zeros")
binary("bitwise operators", lambda t, a, b: (a & b, a | b, a ^ b, ~a), "mask, mask")
case("bitwise on integers", lambda t, a, b: (a & b, a | 3, a ^ b, ~a), [((2, 3), (3,))], "index 100, index 100")

# ---------------------------------------------------------------- reductions

SOME = [(2, 3), (), (2, 0, 3), (2, 3, 4)]
for name in ("sum", "mean", "prod", "logsumexp"):
    dims = [None, -1, 0] if name != "logsumexp" else [-1, 0]
    for dim in dims:
        if dim is None:
            case(name, lambda t, x, name=name: getattr(t, name)(x), [*SOME, (0,)])
        else:
            case(f"{name} dim {dim}", lambda t, x, name=name, dim=dim: getattr(t, name)(x, dim), [*SOME])
    case(
        f"{name} keepdim", lambda t, x, name=name: getattr(t, name)(x, 1, keepdim=True), [(2, 3), (2, 0, 3), (2, 3, 4)]
    )
for name in ("sum", "mean", "logsumexp", "amax", "amin", "std", "var"):
    case(f"{name} dims", lambda t, x, name=name: getattr(t, name)(x, (0, -1)), [(2, 3), (2, 3, 4)])
case("prod with zeros", lambda t, x: (t.prod(x), t.prod(x, 0)), [(4, 3), (9,)], "zeros")
for name in ("var", "std"):
    case(name, lambda t, x, name=name: getattr(t, name)(x), [(2, 3), (2, 3, 4), (5,)])
    case(f"{name} biased", lambda t, x, name=name: getattr(t, name)(x, 1, unbiased=False), [(2, 3), (2, 3, 4), (3, 1)])
    case(
        f"{name} correction", lambda t, x, name=name: getattr(t, name)(x, dim=-1, correction=2, keepdim=True), [(2, 3)]
    )
case("var_mean", lambda t, x: t.var_mean(x, dim=1), [(2, 3), (2, 3, 4)])
for name in ("max", "min"):
    case(name, lambda t, x, name=name: getattr(t, name)(x), [(2, 3), (), (2, 3, 4)])
    case(f"{name} dim", lambda t, x, name=name: getattr(t, name)(x, 1), [(2, 3), (2, 3, 0), (0, 3)])
    case(f"{name} keepdim", lambda t, x, name=name: getattr(t, name)(x, -1, keepdim=True), [(2, 3), (), (2, 3, 4)])
    binary(f"{name} of two", lambda t, a, b, name=name: getattr(t, name)(a, b))
for name in ("amax", "amin"):
    case(name, lambda t, x, name=name: getattr(t, name)(x), [(2, 3), ()])
    case(f"{name} keepdim", lambda t, x, name=name: getattr(t, name)(x, 1, keepdim=True), [(2, 3), (2, 3, 4)])
for name in ("argmax", "argmin"):
    case(name, lambda t, x, name=name: (getattr(t, name)(x), getattr(t, name)(x, 0)), [(2, 3), (), (5,)])
    case(f"{name} keepdim", lambda t, x, name=name: getattr(t, name)(x, dim=1, keepdim=True), [(2, 3), (2, 3, 0)])
for name in ("any", "all"):
    case(name, lambda t, x, name=name: (getattr(t, name)(x), getattr(t, name)(x, -1)), [*SOME], "mask")
    case(f"{name} of numbers", lambda t, x, name=name: getattr(t, name)(x, 0, keepdim=True), [(2, 3), (0, 3)], "zeros")
case("count_nonzero", lambda t, x: (t.count_nonzero(x), t.count_nonzero(x, dim=0)), [(4, 3), ()], "zeros")
case("norm 0", lambda t, x: (t.norm(x.detach(), 0), t.norm(x.detach(), 0, dim=1)), [(2, 3)], "zeros")
for p in ("fro", 1, 2, 3, 0.5, float("inf"), -float("inf")):
    case(
        f"norm {p}", lambda t, x, p=p: (t.norm(x, p), t.norm(x, p, dim=-1), t.norm(x, p, dim=0, keepdim=True)), [(2, 3)]
    )
case("norm", lambda t, x: t.norm(x), [(2, 3), (), (0,), (2, 3, 4)])
case("cumsum", lambda t, x: (t.cumsum(x, 0), t.cumsum(x, -1)), [(2, 3), (), (0,), (2, 3, 4)])
case(
    "median", lambda t, x: (t.median(x.contiguous()), t.median(x.contiguous(), -1, keepdim=True)), [(1, 5), (1, 4), ()]
)
case("median dim 0", lambda t, x: t.median(x.T.contiguous(), 0), [(3, 5), (4, 4)])

case(
    "NumPy's names",
    lambda t, x: (
        t.sum(x, axis=0),
        x.mean(axis=(0, 1), keepdims=True),
        x.argmax(axis=1),
        t.max(x, axis=1, keepdims=True).values,
        x.std(axis=-1),
        t.cat([x, x], axis=1),
        t.stack([x, x], axis=-1),
        x.any(axis=0),
        t.cumsum(x, axis=1),
    ),
    (2, 3),
)

# ---------------------------------------------------------------- shape

case("reshape", lambda t, x: (t.reshape(x, (3, -1)), x.reshape(2, 3), x.reshape_as(x.T)), [(2, 3), (6,)])
case("reshape empty", lambda t, x: t.reshape(x, (0, 5)), [(0,), (2, 0)])
case("view", lambda t, x: (x.contiguous().view(-1), x.contiguous().view(3, 2), x.view_as(x)), [(2, 3)])
case("flatten", lambda t, x: (t.flatten(x), t.flatten(x, -1)), [(2, 3, 4), (2, 3), (), (0, 3)])
case("flatten some", lambda t, x: t.flatten(x, start_dim=1, end_dim=2), [(2, 3, 4), (2, 3, 4, 5)])
case("unflatten", lambda t, x: (t.unflatten(x, 1, (2, -1)), t.unflatten(x, -1, (3, 2))), [(2, 6)])
case(
    "transpose",
    lambda t, x: (t.transpose(x, 0, 1), t.transpose(x, 0, -1), x.swapaxes(0, 1)),
    [(2, 3), (2, 3, 4), (2, 0)],
)
case("permute", lambda t, x: (t.permute(x, (2, 0, 1)), x.permute(1, -1, 0)), [(2, 3, 4), (2, 0, 4)])
case("T", lambda t, x: (x.T, x.mT, x.t()), [(2, 3), (0, 3)])
case("mT", lambda t, x: x.mT, [(2, 3, 4)])
case("squeeze", lambda t, x: (t.squeeze(x), t.squeeze(x, 0), t.squeeze(x, (0, -1))), [(1, 3, 1), (2, 1)])
case("squeeze scalar", lambda t, x: (t.squeeze(x), t.squeeze(x, 0)), [()])
case("unsqueeze", lambda t, x: (t.unsqueeze(x, 0), t.unsqueeze(x, -1)), [(2, 3), (), (0,)])
case("expand", lambda t, x: (x.expand(4, 2, 3), x.expand(2, -1), x.expand_as(x)), [(2, 3), (2, 1), (1, 3)][:1])
case("expand ones", lambda t, x: (x.expand(4, 5), t.broadcast_to(x, (2, 4, 5))), [(4, 1), (1, 5), (), (1,)])
case("repeat", lambda t, x: (x.repeat(2, 3), x.repeat(4, 1, 1)), [(2, 3), (3,), (), (0,)])
case("tile", lambda t, x: (t.tile(x, (2,)), t.tile(x, (2, 1, 2))), [(2, 3), (3,), ()])
case("repeat_interleave", lambda t, x: (t.repeat_interleave(x, 2), t.repeat_interleave(x, 3, dim=0)), [(2, 3), (3,)])
case(
    "cat", lambda t, a, b: (t.cat([a, b]), t.cat([b, a, b], dim=0)), [((2, 3), (1, 3)), ((2,), (0,)), ((0, 2), (0, 2))]
)
case("cat last", lambda t, a, b: t.cat((a, b), -1), [((2, 3), (2, 1)), ((2, 3, 4), (2, 3, 0))])
case("cat legacy empty", lambda t, a, b: t.cat((a, b), 1), [((2, 3), (0,))])
case("stack", lambda t, a, b: (t.stack([a, b]), t.stack([a, b], dim=-1)), [((2, 3), (2, 3)), ((), ()), ((0,), (0,))])
case(
    "pad_sequence",
    lambda t, a, b, c: (
        t.nn.utils.rnn.pad_sequence([a, b, c]),
        t.nn.utils.rnn.pad_sequence((c, b), batch_first=True, padding_value=2.5),
        t.nn.utils.rnn.pad_sequence([a, b, c], True, 1, padding_side="left"),
    ),
    [((2, 3), (4, 3), (1, 3)), ((2,), (0,), (3,)), ((1, 2, 0), (2, 2, 0), (2, 2, 0))],
)
case("split", lambda t, x: (*t.split(x, 2), *t.split(x, [1, 2], dim=1)), [(5, 3), (0, 3)])
case("chunk", lambda t, x: (*t.chunk(x, 2), *t.chunk(x, 3, dim=-1)), [(5, 3), (2, 7)])
case("unbind", lambda t, x: (*t.unbind(x), *t.unbind(x, 1), *[row for row in x]), [(2, 3), (2, 3, 4)])
case("flip", lambda t, x: (t.flip(x, (0,)), t.flip(x, [0, -1]), x.flip(1)), [(2, 3), (2, 0)])
case("roll", lambda t, x: (t.roll(x, 1), t.roll(x, -1, 0), t.roll(x, (1, 2), (0, 1))), [(2, 3), (2, 3, 4)])
case("movedim", lambda t, x: (t.movedim(x, 0, -1), t.movedim(x, (0, 1), (1, 2)), x.moveaxis(2, 0)), [(2, 3, 4)])
for name in ("tril", "triu"):
    case(
        name,
        lambda t, x, name=name: (getattr(t, name)(x), getattr(t, name)(x, 1), getattr(t, name)(x, -1)),
        [(3, 3), (2, 3), (2, 3, 4), (0, 3)],
    )
case("narrow", lambda t, x: (t.narrow(x, 0, 1, 1), t.narrow(x, -1, -2, 2)), [(2, 3), (3, 2, 4)])
case("select", lambda t, x: (t.select(x, 0, 1), t.select(x, -1, -1)), [(2, 3), (3, 2, 4)])
case("contiguous", lambda t, x: (x.T.contiguous(), x.contiguous()), [(2, 3)])
case("clone", lambda t, x: t.clone(x), [*ONE])
case(
    "pad",
    lambda t, x: (t.nn.functional.pad(x, (1, 2)), t.nn.functional.pad(x, (0, 1, 2, 0), value=3.5)),
    [(2, 3), (2, 3, 4), (0, 3)],
)
case("pad negative", lambda t, x: t.nn.functional.pad(x, (-1, 2, 1, -1)), [(2, 3), (2, 3, 4)])
for mode in ("reflect", "replicate", "circular"):
    case(f"pad {mode}", lambda t, x, mode=mode: t.nn.functional.pad(x, (1, 2), mode=mode), [(2, 4), (2, 3, 4)])

case("diagonal", lambda t, x: (t.diagonal(x), t.diagonal(x, 1), t.diagonal(x, -1)), [(3, 3), (2, 4), (2, 3, 4)])
case("diagonal of some", lambda t, x: t.diagonal(x, 1, -2, -1), [(2, 3, 4), (2, 1, 3)])
case("diag", lambda t, x: (t.diag(x), t.diag(x, 1), t.diag(x, -1)), [(3, 3), (2, 4), (3,)])
case("trace", lambda t, x: t.trace(x), [(3, 3), (2, 4)])
case("ravel", lambda t, x: (x.ravel(), x.T.ravel()), [(2, 3)])
case(
    "hstack vstack",
    lambda t, a, b: (t.hstack([a, b]), t.vstack((a, b))),
    [((2, 3), (2, 3)), ((3,), (3,)), ((), ())],
)
case(
    "second names",
    lambda t, a, b: (
        t.absolute(t.subtract(a, b)),
        t.clip(t.multiply(a, b), -1, 1),
        t.divide(a, b) + t.true_divide(b, a),
        t.swapdims(t.concat([a, b], 0), 0, 1),
        t.swapaxes(t.concatenate([a, b], 0), 0, 1),
    ),
    ((2, 3), (2, 3)),
    "nonzero, nonzero",
)

# ---------------------------------------------------------------- indexing

for text in (
    "0", "-1", "1:", ":-1", "::2", "...", "None", "..., 0", ":, 1:3", "0, 1", ":, None, -1", "None, ..., None", "1:1",
    "[0, 1, 1]", "[-1]", "[]", ":, [0, 2]", "[0, 1], [2, 0]", "0, [1, 2]", "[1, 0], 1", "..., [1, 0]",
    "[0, 1], None", "None, [1, 0]", "True", "False",
):  # fmt: skip
    case(f"x[{text}]", eval(f"lambda t, x: x[{text}]"), [(2, 3), (2, 3, 4)])  # noqa: S307
for text in (
    "0, :, [1, 2]",
    "[0, 1], :, [1, 2]",
    ":, [0, 1], [1, 0]",
    "[0, 1], None, [1, 2]",
    "[[0], [1]], 1, [2, 3]",
    "[1, 0], :, 2",
    "[1, 0], ..., 2",
    "1, None, [0, 2], :",
):
    case(f"x[{text}]", eval(f"lambda t, x: x[{text}]"), [(2, 3, 4)])  # noqa: S307
case("x[...] of a scalar", lambda t, x: (x[...], x[None], x[()]), ())
case(
    "x[mask]",
    lambda t, x, m: (x[m], x[~m]),
    [((2, 3), (2, 3)), ((2, 3, 4), (2, 3)), ((2, 3), (2,)), ((0,), (0,))],
    "real, mask",
)
case("x[:, mask]", lambda t, x, m: (x[:, m], x[0, m]), [((2, 3), (3,)), ((2, 3, 4), (3,))], "real, mask")
case(
    "x[index]",
    lambda t, x, i: (x[i], x[i, 0], x[1:, i % 2]),
    [((4, 3), (5,)), ((4, 3), (2, 3)), ((4, 3), ()), ((4, 3), (0,))],
    "real, index 4",
)
case(
    "setitem",
    lambda t, x, v: _set(x, (slice(None), slice(1, 3)), v),
    [((2, 3), (2, 2)), ((2, 3), (2,)), ((2, 3), ()), ((2, 3, 4), (1, 2, 1))],
)
case("setitem number", lambda t, x: _set(x, 0, 2.5) + _set(x, (Ellipsis, -1), 3), [(2, 3), (2, 3, 4)])
case(
    "setitem index", lambda t, x, i, v: _set(x, i, v), [((4, 3), (2,), (2, 3)), ((4,), (2,), ())], "real, order 4, real"
)
case("setitem mask", lambda t, x, m, v: _set(x, m, v), [((2, 3), (2, 3), ()), ((2, 3), (2,), (3,))], "real, mask, real")
case(
    "gather", lambda t, x, i: t.gather(x, 1, i), [((2, 3), (2, 5)), ((2, 3), (1, 2)), ((2, 3), (2, 0))], "real, index 3"
)
case(
    "gather first",
    lambda t, x, i: t.gather(x, 0, i),
    [((3,), (5,)), ((3, 2, 4), (2, 2, 3)), ((3,), (0,))],
    "real, index 3",
)
case("gather scalar", lambda t, x, i: t.gather(x, 0, i), [((), ()), ((), (3,)), ((1,), (2,))], "real, index 1")
case(
    "take_along_dim",
    lambda t, x, i: (t.take_along_dim(x, i, 1), t.take_along_dim(x.contiguous(), i.contiguous())),
    [((2, 3), (2, 5)), ((2, 3), (1, 2))],
    "real, index 3",
)
case(
    "scatter",
    lambda t, x, i, s: t.scatter(x, 0, i, s),
    [((4, 3), (2, 3), (2, 3)), ((4, 3), (2, 1), (2, 1))],
    "real, order 4, real",
)
case("scatter number", lambda t, x, i: t.scatter(x, 1, i, 2.5), [((2, 3), (2, 2)), ((2, 3), (1, 5))], "real, index 3")
case(
    "scatter_add",
    lambda t, x, i, s: t.scatter_add(x, 1, i, s),
    [((2, 3), (2, 5), (2, 5)), ((2, 3), (1, 2), (1, 2))],
    "real, index 3, real",
)
case(
    "index_select",
    lambda t, x, i: (t.index_select(x, 1, i), t.index_select(x, -1, i)),
    [((2, 3), (5,)), ((2, 3, 4), (2,)), ((2, 3), (0,))],
    "real, index 3",
)
case(
    "index_add",
    lambda t, x, i, s: (t.index_add(x, 0, i, s), t.index_add(x, 0, i, s, alpha=2)),
    [((3, 2), (5,), (5, 2)), ((3,), (4,), (4,))],
    "real, index 3, real",
)
case(
    "masked_fill",
    lambda t, x, m: t.masked_fill(x, m, 2.5),
    [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3), ()), ((), ()), ((0, 3), (3,))],
    "real, mask",
)
case("masked_fill tensor", lambda t, x, m, v: t.masked_fill(x, m, v), [((2, 3), (2, 1), ())], "real, mask, real")
case(
    "masked_select",
    lambda t, x, m: t.masked_select(x, m),
    [((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 1)), ((), ())],
    "real, mask",
)
case(
    "nonzero",
    lambda t, x: (t.nonzero(x), *t.nonzero(x, as_tuple=True), *t.where(x != 0)),
    [(4, 3), (5,), (0, 2)],
    "zeros",
)
case("nonzero scalar", lambda t, x: t.nonzero(x), [()], "nonzero")
case("topk", lambda t, x: (*t.topk(x, 2), *t.topk(x, 1, dim=0, largest=False)), [(2, 3), (1, 5), (2, 3, 4)])
case("sort", lambda t, x: (*t.sort(x), *t.sort(x, 0, descending=True)), [(2, 3), (5,), (2, 3, 4), (0, 3), ()])
case("argsort", lambda t, x: (t.argsort(x), t.argsort(x, dim=0, descending=True)), [(2, 3), (5,), ()])
case(
    "unique",
    lambda t, x: (t.unique(x), *t.unique(x, return_inverse=True, return_counts=True)),
    [(2, 7), (0,), ()],
    "index 4",
)
case(
    "searchsorted",
    lambda t, s, v: (t.searchsorted(s, v), t.searchsorted(s, v, right=True), t.bucketize(v, s)),
    [((5,), (2, 3)), ((5,), ()), ((0,), (2,))],
    "rising, real",
)
case("searchsorted rows", lambda t, s, v: t.searchsorted(s, v), [((2, 5), (2, 3))], "rising, real")
case("isin", lambda t, a, b: t.isin(a, b), [((2, 3), (4,)), ((), (3,))], "index 9, index 9")
case("one_hot", lambda t, i: (t.nn.functional.one_hot(i), t.nn.functional.one_hot(i, 6)), [(5,), (2, 3), ()], "index 4")
case("meshgrid", lambda t, a, b: (*t.meshgrid(a, b, indexing="ij"), *t.meshgrid(a, b, indexing="xy")), [((2,), (3,))])

# ---------------------------------------------------------------- products

MATMUL = [((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)),
          ((5, 1, 2, 3), (4, 3, 2)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((1, 2, 3), (5, 3, 4))]  # fmt: skip
case("matmul", lambda t, a, b: t.matmul(a, b), MATMUL)
case("@", lambda t, a, b: a @ b, MATMUL[:4])
case("mm", lambda t, a, b: t.mm(a, b), [((2, 3), (3, 4)), ((1, 3), (3, 1))])
case("bmm", lambda t, a, b: t.bmm(a, b), [((5, 2, 3), (5, 3, 4)), ((0, 2, 3), (0, 3, 4))])
case(
    "addmm",
    lambda t, x, a, b: (t.addmm(x, a, b), t.addmm(x, a, b, beta=3, alpha=2)),
    [((2, 4), (2, 3), (3, 4)), ((4,), (2, 3), (3, 4)), ((), (0, 3), (3, 4))],
)
case("mv", lambda t, a, b: t.mv(a, b), [((2, 3), (3,))])
case("dot", lambda t, a, b: t.dot(a, b), [((3,), (3,)), ((0,), (0,))])
case("outer", lambda t, a, b: t.outer(a, b), [((2,), (3,)), ((0,), (3,))])
case(
    "linear",
    lambda t, x, w, b: t.nn.functional.linear(x, w, b),
    [((5, 3), (4, 3), (4,)), ((3,), (4, 3), (4,)), ((2, 5, 3), (4, 3), (4,)), ((0, 3), (4, 3), (4,))],
)
case(
    "linear without bias",
    lambda t, x, w: t.nn.functional.linear(x, w),
    [((5, 3), (4, 3)), ((2, 5, 3), (4, 3)), ((5, 3), (3,))],
)
for equation, *shapes in (
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,kj", (2, 3), (4, 3)), ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)), ("ij->ji", (2, 3)), ("ij->", (2, 3)),
    ("ij->i", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("i,j->ij", (2,), (3,)), ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("i,i", (3,), (3,)), ("ij,j,i->", (2, 3), (3,), (2,)), ("ij,ij->ij", (2, 3), (2, 3)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)), ("i...->...i", (2, 3, 4)), ("iij->j", (2, 2, 3)),
    ("ij,j->i", (0, 3), (3,)), ("ij,jk", (2, 0), (0, 3)), (",ij->ij", (), (2, 3)),
):  # fmt: skip
    case(f"einsum {equation}", lambda t, *xs, e=equation: t.einsum(e, *xs), [tuple(shapes)])

# ---------------------------------------------------------------- dtypes and joining the graph

case(
    "cast",
    lambda t, x: (
        x.double() * 2,
        x.float() * 2,
        x.to(t.float64),
        x.to(t.int64),
        x.type_as(x.double()),
        x.bool(),
        x.int(),
        x.short(),
    ),
    [*ONE],
    "real",
)
case("softmax", lambda t, x: (t.softmax(x, -1), t.log_softmax(x, 0)), [(2, 3), (), (2, 3, 4), (0, 3)])


# ---------------------------------------------------------------- NaN, infinities, zeros of both signs

for name in (
    "abs",
    "ceil",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_not",
    "neg",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
):
    case(f"{name} of special values", lambda t, x, name=name: getattr(t, name)(x), (len(SPECIAL),), "special")
for name in (
    "add",
    "atan2",
    "div",
    "eq",
    "ge",
    "gt",
    "isclose",
    "le",
    "logical_and",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "pow",
    "remainder",
    "sub",
):
    case(
        f"{name} of special values",
        lambda t, a, b, name=name: getattr(t, name)(a, b),
        ((len(SPECIAL), 1), (len(SPECIAL),)),
        "special",
    )
for name in (
    "sum",
    "mean",
    "var",
    "std",
    "logsumexp",
    "max",
    "min",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "softmax",
    "log_softmax",
    "cumsum",
    "sort",
    "argsort",
    "norm",
    "any",
    "all",
    "median",
):
    options = {"p": 2} if name == "norm" else {}
    case(
        f"{name} of special rows",
        lambda t, x, name=name, o=options: getattr(t, name)(x, dim=1, **o),
        (9, 3),
        "special rows",
    )
case(
    "floor_divide of special values",
    lambda t, a, b: t.div(a, b, rounding_mode="floor"),
    ((len(SPECIAL), 1), (len(SPECIAL),)),
    "special",
)
case("unique of special values", lambda t, x: t.unique(x.detach()), (1, len(SPECIAL)), "special")
case(
    "clamp of special values",
    lambda t, x: (t.clamp(x, -1, 1), t.clamp(x, min=0.0), t.clamp(x, max=float("inf"))),
    (len(SPECIAL),),
    "special",
)
case(
    "where of special values",
    lambda t, c, a, b: t.where(c, a, b),
    ((len(SPECIAL), 1), (len(SPECIAL),), (len(SPECIAL),)),
    "mask, special, real",
)
case("gradient of where at infinity", lambda t, x: t.where(x > 0, x, t.log(-x)), (len(SPECIAL),), "special")
case("powers of special values", lambda t, x: (x**0, x**2, x**-1, 2**x, 0**x), (len(SPECIAL),), "special")
case(
    "masked_fill infinite",
    lambda t, x, m: t.softmax(t.masked_fill(x, m, float("-inf")), -1),
    ((4, 5), (4, 5)),
    "real, mask",
)
case("logsumexp of infinities", lambda t, x: t.logsumexp(t.masked_fill(x, x < 9, float("-inf")), 0), (3, 2))

# ---------------------------------------------------------------- in place


def _set(x: Any, index: Any, value: Any) -> Any:
    y = x.clone()
    y[index] = value
    return y


def in_place(name: str, call: Callable, shapes: Any, domains: str | None = None) -> None:
    """The in-place form of an operation, on a clone: `call(t, y, …)` changes y."""

    def changed(t: Any, x: Any, *others: Any) -> Any:
        y = x.clone()
        call(t, y, *others)
        return y

    case(f"{name} in place", changed, shapes, domains)


SAME = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3), ()), ((), ()), ((0, 3), (3,))]
for name in ("add_", "sub_", "mul_", "div_", "remainder_"):
    in_place(name, lambda t, y, b, name=name: getattr(y, name)(b), SAME, "real, nonzero")
in_place("pow_", lambda t, y, b: y.pow_(b), SAME, "positive, real")
case(
    "floor_divide_ in place",
    lambda t, x, b: x.detach().clone().floor_divide_(b.detach()),
    SAME,
    "real, nonzero",
)
for name in (
    "neg_",
    "abs_",
    "exp_",
    "sin_",
    "cos_",
    "tanh_",
    "sigmoid_",
    "erf_",
    "sign_",
    "floor_",
    "ceil_",
    "round_",
    "trunc_",
    "relu_",
    "zero_",
):
    in_place(name, lambda t, y, name=name: getattr(y, name)(), [*ONE], "nonzero")
for name in ("log_", "sqrt_", "rsqrt_", "reciprocal_"):
    in_place(name, lambda t, y, name=name: getattr(y, name)(), [*ONE], "positive")
in_place("clamp_", lambda t, y: y.clamp_(-0.5, 0.5).clip_(min=0.1), [*ONE])
in_place("fill_", lambda t, y: y.fill_(2.5), [*ONE])
in_place("copy_", lambda t, y, b: y.copy_(b), SAME)
in_place("tril_ triu_", lambda t, y: y.tril_().triu_(-1), (3, 3))
in_place("masked_fill_", lambda t, y, m: y.masked_fill_(m, 2.0), ((2, 3), (3,)), "real, mask")
in_place("scatter_", lambda t, y, i, s: y.scatter_(0, i, s), ((4, 3), (2, 1), (2, 1)), "real, order 4, real")
in_place("scatter_add_", lambda t, y, i, s: y.scatter_add_(1, i, s), ((2, 3), (2, 5), (2, 5)), "real, index 3, real")
in_place("index_add_", lambda t, y, i, s: y.index_add_(0, i, s, alpha=2), ((3, 2), (5,), (5, 2)), "real, index 3, real")


def _augmented(t: Any, y: Any, b: Any) -> None:
    y += b
    y -= 2
    y *= b
    y /= b
    y **= 2
    y %= 5


in_place("augmented assignments", _augmented, SAME, "nonzero, nonzero")
BY_NAME = {c.name: c for c in CASES}
EXAMPLES = [(c, i) for c in CASES for i in range(len(c.shapes))]
LAID_OUT = [
    (c, i, layout)
    for c, i in EXAMPLES
    for layout in LAYOUTS
    if layout == "contiguous" or any(s and 0 not in s for s in c.shapes[i])  # the others have one layout only
]


def example_id(value: Any) -> str:
    """A readable test id: the case's name and the shapes of one example."""
    case, place, *layout = value
    return " ".join([case.name, *[str(s).replace(" ", "") for s in case.shapes[place]], *layout])

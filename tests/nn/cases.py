"""What is compared with PyTorch: one table of function calls and one of modules, both with their inputs.

Every case is written so that it runs with `F`/`nn` of either library. `make_golden.py` runs them with PyTorch
in float64 and keeps the outcome under golden/; the tests compare with that, and live if PyTorch is installed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

INF, NAN = float("inf"), float("nan")


class Constant:
    """An input that gets no gradient."""

    def __init__(self, array: Any):
        self.array = np.asarray(array)


@dataclass
class Case:
    name: str
    call: Callable[..., Any]  # called with F and the inputs as tensors
    make: Callable[[np.random.Generator], tuple]  # gives the inputs as arrays or Constants

    def inputs(self) -> tuple:
        return self.make(np.random.default_rng(zlib.crc32(self.name.encode())))

    def cotangent(self, shape: tuple) -> np.ndarray:
        """What the gradient of the output is set to; never 0, so that no gradient hides."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()) + 1)
        return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def normal(*shape: int) -> Callable[[np.random.Generator], tuple]:
    return lambda rng: (rng.normal(size=shape),)


def fixed(*values: Any) -> Callable[[np.random.Generator], tuple]:
    return lambda rng: tuple(v if isinstance(v, Constant) else np.array(v, dtype="float64") for v in values)


def with_classes(shape: tuple, classes: int, dim: int = 1, weight: bool = False, ignored: int = 0) -> Callable:
    """Logits of `shape`, class indices without `dim`, perhaps a weight per class; `ignored` targets: −100."""

    def make(rng: np.random.Generator) -> tuple:
        target = rng.integers(0, classes, shape[:dim] + shape[dim + 1 :])
        target.reshape(-1)[:ignored] = -100
        weights = (Constant(rng.uniform(0.5, 2.0, classes)),) if weight else ()
        return (rng.normal(size=shape) * 3, Constant(target), *weights)

    return make


def probabilities(*shape: int, dim: int = 1) -> Callable:
    def make(rng: np.random.Generator) -> tuple:
        p = rng.uniform(0.1, 1.0, shape)
        return rng.normal(size=shape), p / p.sum(axis=dim, keepdims=True)

    return make


def pair(*shape: int, weight: bool = False) -> Callable:
    def make(rng: np.random.Generator) -> tuple:
        extra = (Constant(rng.uniform(0.5, 2.0, shape)),) if weight else ()
        return (rng.normal(size=shape) * 2, rng.normal(size=shape) * 2, *extra)

    return make


def unit_pair(*shape: int, weight: tuple | None = None) -> Callable:
    def make(rng: np.random.Generator) -> tuple:
        extra = () if weight is None else (Constant(rng.uniform(0.5, 2.0, weight)),)
        return (rng.uniform(0.02, 0.98, shape), rng.uniform(0.02, 0.98, shape), *extra)

    return make


def logits_and_unit(*shape: int, weights: tuple = ()) -> Callable:
    def make(rng: np.random.Generator) -> tuple:
        extra = tuple(Constant(rng.uniform(0.5, 3.0, w)) for w in weights)
        return (rng.normal(size=shape) * 3, rng.uniform(0, 1, shape), *extra)

    return make


FUNCTIONS: list[Case] = []


def add(name: str, call: Callable[..., Any], make: Callable) -> None:
    FUNCTIONS.append(Case(name, call, make))


# ---------------------------------------------------------------- activations

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": lambda F, x: F.relu(x),
    "relu6": lambda F, x: F.relu6(x * 4),
    "hardtanh": lambda F, x: F.hardtanh(x, -0.5, 0.7),
    "leaky_relu": lambda F, x: F.leaky_relu(x),
    "leaky_relu-0.3": lambda F, x: F.leaky_relu(x, 0.3),
    "elu": lambda F, x: F.elu(x),
    "elu-0.4": lambda F, x: F.elu(x, alpha=0.4),
    "selu": lambda F, x: F.selu(x),
    "softplus": lambda F, x: F.softplus(x),
    "softplus-beta": lambda F, x: F.softplus(x, beta=3.0, threshold=2.0),
    "logsigmoid": lambda F, x: F.logsigmoid(x),
    "silu": lambda F, x: F.silu(x),
    "mish": lambda F, x: F.mish(x),
    "gelu": lambda F, x: F.gelu(x),
    "gelu-tanh": lambda F, x: F.gelu(x, approximate="tanh"),
    "softsign": lambda F, x: F.softsign(x),
    "hardsigmoid": lambda F, x: F.hardsigmoid(x * 3),
    "hardswish": lambda F, x: F.hardswish(x * 3),
    "sigmoid": lambda F, x: F.sigmoid(x),
    "tanh": lambda F, x: F.tanh(x),
    "softmax-last": lambda F, x: F.softmax(x, dim=-1),
    "softmax-first": lambda F, x: F.softmax(x, dim=0),
    "log_softmax-last": lambda F, x: F.log_softmax(x, dim=-1),
    "log_softmax-first": lambda F, x: F.log_softmax(x, dim=0),
    "softmin": lambda F, x: F.softmin(x, dim=-1),
}
for name, call in ACTIVATIONS.items():
    add(name, call, normal(3, 4))
    add(f"{name}: 0-d", call, normal())
    add(f"{name}: 3-d", call, normal(2, 3, 2))
    add(f"{name}: empty", call, normal(3, 0))
    large = [[-1e4, 0.0, 1e4], [-30.0, 30.0, 100.0], [1e-8, -1e-8, 0.5]]
    add(f"{name}: large", call, fixed(large))
    if name not in ("mish", "hardswish"):  # PyTorch's slopes there are NaN at −inf, and not NaN at NaN
        add(f"{name}: infinite", call, fixed([[NAN, 1.0, 2.0], [-INF, 0.0, 1.0], [INF, 0.0, 1.0]]))
add("softmax: nothing but -inf", lambda F, x: F.softmax(x, dim=1), fixed([[-INF, -INF], [0.0, -INF]]))
add("softmax: middle", lambda F, x: F.softmax(x, dim=1), normal(2, 3, 4))
add("glu", lambda F, x: F.glu(x), normal(3, 4))
add("glu: first", lambda F, x: F.glu(x, dim=0), normal(4, 3))
add("prelu: one", lambda F, x, w: F.prelu(x, w), lambda rng: (rng.normal(size=(3, 4)), rng.uniform(size=1)))
add("prelu: 0-d", lambda F, x, w: F.prelu(x, w), lambda rng: (np.array(-1.5), rng.uniform(size=1)))
add(
    "prelu: channels",
    lambda F, x, w: F.prelu(x, w),
    lambda rng: (rng.normal(size=(2, 3, 4)), rng.uniform(size=3)),
)

# ---------------------------------------------------------------- losses of each element

for reduction in ("mean", "sum", "none"):

    def with_reduction(function: str, reduction: str = reduction, **options: Any) -> Callable[..., Any]:
        return lambda F, *inputs: getattr(F, function)(*inputs, reduction=reduction, **options)

    for function, options in [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.3}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 2.5}),
    ]:
        text = "".join(f" {k}={v}" for k, v in options.items())
        add(f"{function}{text} {reduction}", with_reduction(function, **options), pair(3, 4))
        add(f"{function}{text} {reduction}: 0-d", with_reduction(function, **options), pair())
        add(f"{function}{text} {reduction}: empty", with_reduction(function, **options), pair(0, 2))
    add(f"bce {reduction}", with_reduction("binary_cross_entropy"), unit_pair(3, 4))
    add(
        f"bce weight {reduction}",
        lambda F, p, t, w, r=reduction: F.binary_cross_entropy(p, t, weight=w, reduction=r),
        unit_pair(3, 4, weight=(4,)),
    )
    add(
        f"bce at 0 and 1 {reduction}",
        with_reduction("binary_cross_entropy"),
        fixed([0.0, 1.0, 0.0, 1.0], Constant([0.0, 1.0, 1.0, 0.0])),
    )
    add(f"bce logits {reduction}", with_reduction("binary_cross_entropy_with_logits"), logits_and_unit(3, 4))
    add(
        f"bce logits weight pos_weight {reduction}",
        lambda F, x, t, w, p, r=reduction: F.binary_cross_entropy_with_logits(
            x, t, weight=w, pos_weight=p, reduction=r
        ),
        logits_and_unit(3, 4, weights=((3, 1), (4,))),
    )
    add(
        f"bce logits large {reduction}",
        with_reduction("binary_cross_entropy_with_logits"),
        fixed([1e4, -1e4, 1e4, -1e4, 0.0], Constant([1.0, 0.0, 0.0, 1.0, 0.5])),
    )
    for log_target in (False, True):
        add(
            f"kl_div log_target={log_target} {reduction}",
            with_reduction("kl_div", log_target=log_target),
            lambda rng: (rng.normal(size=(3, 4)), rng.uniform(0.1, 1.0, (3, 4))),
        )
add("kl_div batchmean", lambda F, x, t: F.kl_div(x, t, reduction="batchmean"), probabilities(3, 4))
add(
    "kl_div zeros",
    lambda F, x, t: F.kl_div(x, t, reduction="sum"),
    fixed([[-1.0, -2.0, -0.5]], Constant([[0.0, 0.5, 0.5]])),
)
for function in ("mse_loss", "l1_loss", "huber_loss"):
    for reduction in ("mean", "sum", "none"):
        add(
            f"{function} weight {reduction}",
            lambda F, x, t, w, f=function, r=reduction: getattr(F, f)(x, t, weight=w, reduction=r),
            pair(3, 4, weight=True),
        )

# ---------------------------------------------------------------- cross-entropy and nll

SHAPES = {
    "(N, C)": ((6, 5), 1),
    "(C,)": ((5,), 0),
    "(N, C, d)": ((2, 5, 3), 1),
    "(N, C, d, d)": ((2, 5, 3, 2), 1),
    "one row": ((1, 5), 1),
    "one class": ((3, 1), 1),
}
for reduction in ("mean", "sum", "none"):
    for label, (shape, dim) in SHAPES.items():
        count = shape[dim]

        def cross_entropy(F: Any, x: Any, t: Any, w: Any = None, r: str = reduction, **options: Any) -> Any:
            return F.cross_entropy(x, t, weight=w, reduction=r, **options)

        def nll(F: Any, x: Any, t: Any, w: Any = None, r: str = reduction, **options: Any) -> Any:
            return F.nll_loss(F.log_softmax(x, dim=0 if x.ndim == 1 else 1), t, weight=w, reduction=r, **options)

        def smoothed(F: Any, x: Any, t: Any, w: Any = None, r: str = reduction) -> Any:
            return F.cross_entropy(x, t, weight=w, reduction=r, label_smoothing=0.2)

        for kind, function in [("cross_entropy", cross_entropy), ("nll", nll), ("smoothed", smoothed)]:
            add(f"{kind} {label} {reduction}", function, with_classes(shape, count, dim))
            add(f"{kind} weight {label} {reduction}", function, with_classes(shape, count, dim, weight=True))
            if label in ("(N, C)", "(N, C, d)"):
                add(
                    f"{kind} ignored {label} {reduction}",
                    function,
                    with_classes(shape, count, dim, ignored=2),
                )
                both = with_classes(shape, count, dim, weight=True, ignored=2)
                add(f"{kind} weight ignored {label} {reduction}", function, both)
                add(
                    f"{kind} all ignored {label} {reduction}",
                    function,
                    with_classes(shape, count, dim, ignored=10**6),
                )
        add(
            f"cross_entropy probabilities {label} {reduction}",
            lambda F, x, p, r=reduction: F.cross_entropy(x, p, reduction=r),
            probabilities(*shape, dim=dim),
        )
    add(
        f"cross_entropy ignore_index=2 {reduction}",
        lambda F, x, t, r=reduction: F.cross_entropy(x, t, ignore_index=2, reduction=r),
        with_classes((8, 4), 4),
    )
    add(
        f"cross_entropy probabilities weight smoothed {reduction}",
        lambda F, x, p, w, r=reduction: F.cross_entropy(x, p, weight=w, label_smoothing=0.3, reduction=r),
        lambda rng: (*probabilities(4, 3)(rng), Constant(rng.uniform(0.5, 2, 3))),
    )
    add(f"cross_entropy no rows {reduction}", cross_entropy, with_classes((0, 4), 4))
    add(
        f"cross_entropy large {reduction}",
        cross_entropy,
        fixed([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0]], Constant([0, 0, 1])),
    )
    add(
        f"cross_entropy infinite {reduction}",
        cross_entropy,
        fixed([[-INF, 1.0, 0.0], [0.0, -INF, 2.0], [NAN, 0.0, 0.0]], Constant([1, 1, 2])),
    )

# ---------------------------------------------------------------- the rest

add(
    "linear",
    lambda F, x, w, b: F.linear(x, w, b),
    lambda r: (r.normal(size=(4, 3)), r.normal(size=(2, 3)), r.normal(size=2)),
)
add(
    "linear no bias 3-d",
    lambda F, x, w: F.linear(x, w),
    lambda r: (r.normal(size=(2, 4, 3)), r.normal(size=(5, 3))),
)
add(
    "linear 1-d",
    lambda F, x, w, b: F.linear(x, w, b),
    lambda r: (r.normal(size=3), r.normal(size=(2, 3)), r.normal(size=2)),
)
add(
    "bilinear",
    lambda F, x, y, w, b: F.bilinear(x, y, w, b),
    lambda r: (
        r.normal(size=(2, 4, 3)),
        r.normal(size=(2, 4, 2)),
        r.normal(size=(5, 3, 2)),
        r.normal(size=5),
    ),
)
add("normalize", lambda F, x: F.normalize(x), normal(3, 4))
add("normalize p=1 dim=0", lambda F, x: F.normalize(x, p=1.0, dim=0), normal(3, 4))
add("normalize short", lambda F, x: F.normalize(x, eps=10.0), normal(3, 4))
add("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y), pair(3, 4))
add("cosine_similarity dim=0", lambda F, x, y: F.cosine_similarity(x, y, dim=0), pair(5))
add(
    "cosine_similarity broadcast",
    lambda F, x, y: F.cosine_similarity(x, y, dim=-1),
    lambda r: (r.normal(size=(3, 1, 4)), r.normal(size=(2, 4))),
)
add("pairwise_distance", lambda F, x, y: F.pairwise_distance(x, y), pair(3, 4))
add("pad", lambda F, x: F.pad(x, (1, 2, 0, 1), value=0.5), normal(2, 3))
add("dropout in evaluation", lambda F, x: F.dropout(x, 0.5, training=False), normal(3, 4))
add("dropout p=1", lambda F, x: F.dropout(x, 1.0), normal(3, 4))

# ---------------------------------------------------------------- convolution, pooling, interpolation

CONVOLUTIONS: list[tuple[int, tuple, tuple, dict[str, Any]]] = [  # dimensions, input, weight, options
    (1, (2, 3, 7), (4, 3, 3), {}),
    (1, (3, 7), (4, 3, 2), {"stride": 2, "padding": 1}),
    (1, (2, 4, 9), (6, 2, 4), {"groups": 2, "dilation": 2, "padding": "same"}),
    (2, (2, 3, 5, 6), (4, 3, 3, 3), {}),
    (2, (2, 3, 5, 6), (4, 3, 3, 3), {"padding": 1}),
    (2, (2, 2, 7, 6), (3, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (2, 1)}),
    (2, (2, 4, 5, 6), (6, 2, 2, 3), {"groups": 2, "padding": "same"}),
    (2, (3, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    (2, (2, 3, 3, 4), (5, 3, 1, 1), {}),
    (2, (3, 5, 4), (2, 3, 2, 2), {"stride": 3, "padding": "valid"}),
    (2, (0, 3, 5, 4), (2, 3, 2, 2), {}),
    (3, (2, 2, 4, 3, 4), (3, 2, 2, 2, 3), {"padding": (1, 0, 1)}),
    (3, (2, 4, 3, 5, 4), (2, 2, 2, 3, 1), {"stride": (1, 2, 1), "dilation": (1, 1, 2), "groups": 2}),
]
TRANSPOSED: list[tuple[int, tuple, tuple, dict[str, Any]]] = [
    (1, (2, 3, 5), (3, 2, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    (1, (4, 5), (4, 1, 2), {"groups": 2, "dilation": 2}),
    (2, (2, 3, 3, 4), (3, 2, 2, 3), {}),
    (2, (2, 4, 3, 4), (4, 3, 3, 2), {"stride": (2, 3), "padding": 1, "output_padding": (1, 0), "groups": 2}),
    (2, (2, 3, 4), (2, 3, 2, 2), {"dilation": 2, "padding": (0, 1)}),
    (3, (1, 2, 2, 3, 2), (2, 3, 2, 1, 2), {"stride": 2}),
]


def labelled(name: str, shapes: tuple, options: dict[str, Any]) -> str:
    """A case's name; shapes with a 0 go after ': ', as what has no other layouts in memory."""
    text = " ".join([name, *[f"{k}={v}" for k, v in options.items()]])
    return f"{text}{': ' if 0 in shapes[0] else ' '}" + " ".join(str(shape).replace(" ", "") for shape in shapes)


def gaussians(*shapes: tuple) -> Callable:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


for kind, table in (("conv", CONVOLUTIONS), ("conv_transpose", TRANSPOSED)):
    for dimensions, size, kernel, options in table:

        def convolution(F: Any, *inputs: Any, f: str = f"{kind}{dimensions}d", options: dict = options) -> Any:
            return getattr(F, f)(*inputs, **options)

        label = labelled(f"{kind}{dimensions}d", (size, kernel), options)
        outputs = kernel[0] if kind == "conv" else kernel[1] * options.get("groups", 1)
        add(label, convolution, gaussians(size, kernel, (outputs,)))
        add(f"no bias {label}", convolution, gaussians(size, kernel))

POOLS: list[tuple[str, tuple, tuple, dict[str, Any]]] = [  # function, input, positional arguments, options
    ("max_pool1d", (2, 3, 7), (2,), {}),
    ("max_pool1d", (3, 8), (3,), {"stride": 2, "padding": 1, "dilation": 2}),
    ("max_pool2d", (2, 3, 6, 5), (2,), {}),
    ("max_pool2d", (2, 3, 6, 8), (2,), {}),
    ("max_pool2d", (2, 3, 7, 6), (3,), {"stride": 2, "padding": 1}),
    ("max_pool2d", (3, 7, 6), ((2, 3),), {"stride": (1, 2), "dilation": (2, 1)}),
    ("max_pool2d", (2, 3, 7, 5), (2,), {"ceil_mode": True}),
    ("max_pool2d", (2, 3, 6, 5), (3,), {"stride": 1, "padding": 1, "ceil_mode": True}),
    ("max_pool2d", (0, 3, 6, 5), (2,), {}),
    ("max_pool3d", (2, 2, 4, 5, 4), (2,), {}),
    ("max_pool3d", (2, 4, 5, 4), ((2, 3, 1),), {"stride": (1, 2, 2), "padding": (1, 1, 0), "ceil_mode": True}),
    ("avg_pool1d", (2, 3, 7), (2,), {}),
    ("avg_pool1d", (3, 7), (3,), {"stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True}),
    ("avg_pool2d", (2, 3, 6, 5), (2,), {}),
    ("avg_pool2d", (2, 3, 7, 6), (3,), {"stride": 2, "padding": 1}),
    ("avg_pool2d", (2, 3, 7, 6), (3,), {"stride": (2, 1), "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", (2, 3, 6, 7), (3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool2d", (3, 6, 7), ((2, 3),), {"divisor_override": 5}),
    ("avg_pool2d", (0, 3, 6, 7), (2,), {}),
    ("avg_pool3d", (2, 2, 4, 5, 4), (2,), {"stride": (1, 2, 2), "padding": 1}),
    ("avg_pool3d", (2, 4, 5, 4), (3,), {"ceil_mode": True, "divisor_override": 2}),
    ("adaptive_avg_pool1d", (2, 3, 7), (3,), {}),
    ("adaptive_avg_pool1d", (3, 6), ((3,),), {}),
    ("adaptive_avg_pool2d", (2, 3, 6, 4), (1,), {}),
    ("adaptive_avg_pool2d", (2, 3, 7, 5), ((3, 2),), {}),
    ("adaptive_avg_pool2d", (3, 5, 4), ((None, 6),), {}),
    ("adaptive_avg_pool3d", (2, 2, 3, 5, 4), ((2, 3, 2),), {}),
    ("adaptive_max_pool1d", (2, 3, 7), (3,), {}),
    ("adaptive_max_pool2d", (2, 3, 6, 4), ((3, 2),), {}),
    ("adaptive_max_pool2d", (3, 5, 4), ((None, 6),), {}),
    ("adaptive_max_pool3d", (2, 2, 3, 5, 4), ((2, 3, 2),), {}),
    ("unfold", (2, 3, 5, 6), (2,), {}),
    ("unfold", (3, 5, 6), ((2, 3),), {"dilation": (2, 1), "padding": 1, "stride": (1, 2)}),
    ("fold", (2, 12, 20), ((5, 6), 2), {}),
    ("fold", (6, 9), ((4, 5), (2, 3)), {"padding": (1, 0), "stride": (2, 1), "dilation": 1}),
    ("interpolate", (2, 3, 4), (7,), {}),
    ("interpolate", (2, 3, 4, 5), (), {"scale_factor": 2}),
    ("interpolate", (2, 3, 4, 5), (), {"scale_factor": (1.5, 0.6)}),
    ("interpolate", (2, 3, 4, 5), ((7, 3),), {"mode": "nearest-exact"}),
    ("interpolate", (1, 2, 2, 3, 4), (), {"scale_factor": 1.7}),
    ("interpolate", (2, 3, 5), (8,), {"mode": "linear"}),
    ("interpolate", (2, 3, 4, 5), ((7, 3),), {"mode": "bilinear"}),
    ("interpolate", (2, 3, 4, 5), ((7, 1),), {"mode": "bilinear", "align_corners": True}),
    ("interpolate", (2, 3, 4, 5), (), {"scale_factor": (1.7, 2), "mode": "bilinear"}),
    (
        "interpolate",
        (2, 3, 4, 5),
        (),
        {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
    ),
    ("interpolate", (1, 2, 2, 3, 4), ((3, 2, 6),), {"mode": "trilinear", "align_corners": False}),
    ("interpolate", (2, 3, 4, 5), ((7, 3),), {"mode": "bicubic"}),
    ("interpolate", (2, 3, 4, 5), ((7, 1),), {"mode": "bicubic", "align_corners": True}),
    ("interpolate", (2, 1, 4, 5), (), {"scale_factor": (1.7, 0.6), "mode": "bicubic"}),
    ("interpolate", (2, 3, 7, 5), ((3, 2),), {"mode": "area"}),
]
for function, size, arguments, options in POOLS:

    def pooled(F: Any, x: Any, f: str = function, arguments: tuple = arguments, options: dict = options) -> Any:
        return getattr(F, f)(x, *arguments, **options)

    add(labelled(f"{function} {arguments}", (size,), options), pooled, gaussians(size))
SPECIAL = [
    [NAN, 1.0, 2.0, -INF, -INF, 3.0],
    [0.0, -1.0, NAN, -INF, -INF, INF],
    [1.0, 1.0, NAN, 0.0, INF, -INF],
    [1.0, 1.0, 5.0, NAN, 2.0, 2.0],
]
add("adaptive_max_pool2d: infinite", lambda F, x: F.adaptive_max_pool2d(x, (3, 4)), fixed([SPECIAL]))
for n, f, size in (
    (1, "max_unpool1d", (2, 3, 4)),
    (2, "max_unpool2d", (3, 3, 2)),
    (3, "max_unpool3d", (1, 2, 2, 1, 3)),
):

    def unpooled(F: Any, x: Any, i: Any, f: str = f) -> Any:
        return getattr(F, f)(x, i, 2)

    def maxima(rng: np.random.Generator, size: tuple = size, n: int = n) -> tuple:
        """Values and for each a place of its own in an image twice as large."""
        rows, count = int(np.prod(size[:-n])), int(np.prod(size[-n:]))
        places = np.stack([rng.permutation(2**n * count)[:count] for _ in range(rows)])
        return rng.normal(size=size), Constant(places.reshape(size))

    add(f, unpooled, maxima)
add("max_pool2d: infinite", lambda F, x: F.max_pool2d(x, 2), fixed([SPECIAL]))
add("max_pool2d overlapping: infinite", lambda F, x: F.max_pool2d(x, 3, 1, 1), fixed([SPECIAL]))
add("avg_pool2d: infinite", lambda F, x: F.avg_pool2d(x, 2), fixed([SPECIAL]))
add(
    "conv2d: infinite",
    lambda F, x, w: F.conv2d(x, w),
    fixed([[[NAN, 1.0, 2.0], [0.0, -1.0, INF]], [[1.0, 2.0, 3.0], [-INF, 1.0, 1.0]]], [[[[2.0]], [[1.0]]]]),
)
for mode in ("reflect", "replicate", "circular"):
    add(f"pad {mode}", lambda F, x, mode=mode: F.pad(x, (1, 2, 2, 1), mode=mode), gaussians((2, 3, 4, 5)))

# ---------------------------------------------------------------- normalisation

CHANNELS = ((6, 3), (4, 3, 5), (2, 3, 4, 2), (2, 3, 2, 3, 2))


def with_parameters(shape: tuple, *parameters: tuple, constants: int = 0) -> Callable:
    """An input around 1, so that its mean matters; parameters; then vectors of channels, positive and constant."""

    def make(rng: np.random.Generator) -> tuple:
        rest = [Constant(rng.uniform(0.5, 2.0, shape[1])) for _ in range(constants)]
        return (rng.normal(size=shape) * 2 + 1, *[rng.normal(size=p) for p in parameters], *rest)

    return make


for shape in CHANNELS:
    vector, label = shape[1:2], str(shape).replace(" ", "")
    add(
        f"batch_norm {label}",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
        with_parameters(shape, vector, vector),
    )
    add(
        f"batch_norm in evaluation {label}",
        lambda F, x, w, b, mean, var: F.batch_norm(x, mean, var, w, b),
        with_parameters(shape, vector, vector, constants=2),
    )
    if len(shape) > 2:
        add(
            f"instance_norm {label}",
            lambda F, x, w, b: F.instance_norm(x, weight=w, bias=b),
            with_parameters(shape, vector, vector),
        )
        add(f"local_response_norm {label}", lambda F, x: F.local_response_norm(x, 2, 0.3), with_parameters(shape))
add("batch_norm no weight", lambda F, x: F.batch_norm(x, None, None, training=True, eps=0.1), normal(4, 3, 2))
add(
    "batch_norm weight alone",
    lambda F, x, w: F.batch_norm(x, None, None, w, training=True),
    with_parameters((4, 3, 2), (3,)),
)
add(
    "batch_norm no weight in evaluation",
    lambda F, x, mean, var: F.batch_norm(x, mean, var, eps=0.1),
    with_parameters((4, 3, 2), constants=2),
)
add("batch_norm: constant", lambda F, x: F.batch_norm(x, None, None, training=True), fixed([[2.0, 1.0], [2.0, 3.0]]))
add(
    "batch_norm: infinite",
    lambda F, x: F.batch_norm(x, None, None, training=True),
    fixed([[NAN, 1.0, 2.0, INF], [1.0, 3.0, -1.0, 0.0], [2.0, -1.0, -INF, 2.0]]),
)
add(
    "instance_norm in evaluation",
    lambda F, x, mean, var: F.instance_norm(x, mean, var, use_input_stats=False),
    with_parameters((4, 3, 2), constants=2),
)
for shape, groups in (((4, 6), 2), ((2, 4, 5), 4), ((2, 6, 4, 3), 3), ((3, 4, 2, 3, 2), 1)):
    vector, label = shape[1:2], str(shape).replace(" ", "")
    add(
        f"group_norm {groups} {label}",
        lambda F, x, w, b, groups=groups: F.group_norm(x, groups, w, b),
        with_parameters(shape, vector, vector),
    )
add("group_norm no weight", lambda F, x: F.group_norm(x, 2, eps=0.1), normal(2, 4, 3))
add("group_norm: empty", lambda F, x, w: F.group_norm(x, 2, w), with_parameters((0, 4, 3), (4,)))
for shape, rows in (((5,), (5,)), ((4, 5), (5,)), ((2, 3, 4), (3, 4)), ((2, 3, 2, 2), (2, 2))):
    label = f"{str(rows).replace(' ', '')} of {str(shape).replace(' ', '')}"
    add(
        f"layer_norm {label}",
        lambda F, x, w, b, rows=rows: F.layer_norm(x, rows, w, b),
        with_parameters(shape, rows, rows),
    )
    add(f"rms_norm {label}", lambda F, x, w, rows=rows: F.rms_norm(x, rows, w), with_parameters(shape, rows))
add("layer_norm: rows of one", lambda F, x: F.layer_norm(x, (1,)), normal(3, 1))
add("layer_norm no weight", lambda F, x: F.layer_norm(x, (3,), eps=0.1), normal(4, 3))
add("layer_norm weight alone", lambda F, x, w: F.layer_norm(x, (3,), w), with_parameters((4, 3), (3,)))
add("layer_norm bias alone", lambda F, x, b: F.layer_norm(x, (3,), None, b), with_parameters((4, 3), (3,)))
add("layer_norm: empty", lambda F, x, w, b: F.layer_norm(x, (3,), w, b), with_parameters((0, 3), (3,), (3,)))
add("rms_norm no weight", lambda F, x: F.rms_norm(x, (3,), eps=0.1), normal(4, 3))
add("rms_norm: empty", lambda F, x, w: F.rms_norm(x, (3,), w), with_parameters((0, 3), (3,)))
NOT_FINITE = [[NAN, 1.0, 2.0], [INF, 3.0, -1.0], [2.0, -INF, INF], [1.0, 2.0, 3.0]]
add("layer_norm: infinite", lambda F, x: F.layer_norm(x, (3,)), fixed(NOT_FINITE))
add("rms_norm: infinite", lambda F, x: F.rms_norm(x, (3,)), fixed(NOT_FINITE))

# ---------------------------------------------------------------- embedding


def looked_up(*shape: int, rows: int, dtype: str = "int64") -> Callable[[np.random.Generator], tuple]:
    """Indices of a shape, some of them equal, and a table of rows of 3 numbers, short and long ones."""

    def make(rng: np.random.Generator) -> tuple:
        return Constant(rng.integers(0, rows, shape).astype(dtype)), rng.normal(size=(rows, 3)) * 2

    return make


add("embedding", lambda F, i, w: F.embedding(i, w), looked_up(4, 5, rows=7))
add("embedding of one index", lambda F, i, w: F.embedding(i, w), looked_up(rows=4))
add("embedding of none", lambda F, i, w: F.embedding(i, w), looked_up(2, 0, rows=4))
add("embedding int32", lambda F, i, w: F.embedding(i, w), looked_up(6, rows=3, dtype="int32"))
add("embedding padding_idx", lambda F, i, w: F.embedding(i, w, padding_idx=1), looked_up(4, 5, rows=3))
add("embedding padding_idx from the end", lambda F, i, w: F.embedding(i, w, -1), looked_up(9, rows=3))
add("embedding by frequency", lambda F, i, w: F.embedding(i, w, scale_grad_by_freq=True), looked_up(4, 5, rows=7))
add("embedding by frequency, padded", lambda F, i, w: F.embedding(i, w, 2, None, 2.0, True), looked_up(9, rows=4))
for p in (1.0, 2.0, 3.5, INF):
    add(
        f"embedding max_norm {p}",
        lambda F, i, w, p=p: F.embedding(i, w * 1, max_norm=1.5, norm_type=p),
        looked_up(5, rows=7),
    )

BY_NAME = {case.name: case for case in FUNCTIONS}
assert len(BY_NAME) == len(FUNCTIONS), "two cases have one name"

# ---------------------------------------------------------------- modules: (expression, shapes of the inputs)

MODULES: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("nn.Identity(54, unused=1)", ((2, 3),)),
    ("nn.Linear(3, 4)", ((2, 3),)),
    ("nn.Linear(3, 4, bias=False)", ((5, 2, 3),)),
    ("nn.Bilinear(3, 2, 4)", ((5, 3), (5, 2))),
    ("nn.Bilinear(3, 2, 4, bias=False)", ((5, 3), (5, 2))),
    ("nn.Flatten()", ((2, 3, 4),)),
    ("nn.Flatten(0, 1)", ((2, 3, 4),)),
    ("nn.Unflatten(1, (2, 3))", ((4, 6),)),
    ("nn.Dropout(0.3).eval()", ((2, 3),)),
    ("nn.Embedding(5, 3)", ()),
    ("nn.Embedding(5, 3, padding_idx=-1, max_norm=2.0, norm_type=1.0, scale_grad_by_freq=True)", ()),
    ("nn.Dropout()", ()),
    ("nn.Dropout1d(0.2)", ()),
    ("nn.Dropout2d(0.2, inplace=True)", ()),
    ("nn.ReLU()", ((2, 3),)),
    ("nn.ReLU(inplace=True)", ()),
    ("nn.ReLU6()", ((2, 3),)),
    ("nn.Hardtanh(-0.5, 0.5)", ((2, 3),)),
    ("nn.LeakyReLU()", ((2, 3),)),
    ("nn.LeakyReLU(0.2, inplace=True)", ()),
    ("nn.PReLU()", ((2, 3),)),
    ("nn.PReLU(3)", ((2, 3),)),
    ("nn.ELU()", ((2, 3),)),
    ("nn.ELU(0.5, inplace=True)", ()),
    ("nn.SELU()", ((2, 3),)),
    ("nn.Sigmoid()", ((2, 3),)),
    ("nn.LogSigmoid()", ((2, 3),)),
    ("nn.Hardsigmoid()", ((2, 3),)),
    ("nn.Hardswish()", ((2, 3),)),
    ("nn.Tanh()", ((2, 3),)),
    ("nn.Softsign()", ((2, 3),)),
    ("nn.Softplus()", ((2, 3),)),
    ("nn.Softplus(2.0, 5.0)", ((2, 3),)),
    ("nn.SiLU()", ((2, 3),)),
    ("nn.SiLU(inplace=True)", ()),
    ("nn.Mish()", ((2, 3),)),
    ("nn.GELU()", ((2, 3),)),
    ("nn.GELU('tanh')", ((2, 3),)),
    ("nn.GLU(1)", ((2, 4),)),
    ("nn.Softmax(dim=1)", ((2, 3),)),
    ("nn.Softmax()", ()),
    ("nn.LogSoftmax(dim=0)", ((2, 3),)),
    ("nn.Softmin(dim=1)", ((2, 3),)),
    ("nn.Conv1d(2, 4, 3)", ((2, 2, 6),)),
    ("nn.Conv1d(4, 2, 3, padding='same', groups=2, bias=False)", ((4, 6),)),
    ("nn.Conv2d(2, 3, 3, padding=1)", ((2, 2, 4, 5),)),
    ("nn.Conv2d(2, 4, (2, 3), (2, 1), (1, 0), 2, 2, False)", ((2, 2, 5, 6),)),
    ("nn.Conv2d(2, 3, 3, padding='same', padding_mode='reflect')", ((2, 2, 4, 5),)),
    ("nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode='replicate')", ((2, 2, 4, 5),)),
    ("nn.Conv2d(2, 3, (2, 3), padding='same', padding_mode='circular')", ((2, 2, 4, 5),)),
    ("nn.Conv3d(1, 2, 2, stride=2, padding=1)", ((2, 1, 3, 4, 3),)),
    ("nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1)", ((2, 2, 4),)),
    ("nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2)", ((2, 2, 3, 4),)),
    ("nn.ConvTranspose2d(2, 1, (2, 3), dilation=2, bias=False)", ((2, 3, 4),)),
    ("nn.ConvTranspose3d(1, 2, 2)", ((1, 1, 2, 3, 2),)),
    ("nn.MaxPool1d(2)", ((2, 3, 5),)),
    ("nn.MaxPool2d(2)", ((2, 3, 4, 6),)),
    ("nn.MaxPool2d((2, 3), stride=1, padding=1, dilation=(2, 1), ceil_mode=True)", ((2, 3, 6, 7),)),
    ("nn.MaxPool2d(3, return_indices=True)", ()),
    ("nn.MaxPool3d(2, 1)", ((2, 3, 4, 3),)),
    ("nn.AvgPool1d(2, padding=1)", ((2, 3, 5),)),
    ("nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)", ((2, 3, 5, 5),)),
    ("nn.AvgPool2d((2, 1), divisor_override=3)", ((2, 3, 5, 5),)),
    ("nn.AvgPool3d(2)", ((2, 3, 4, 5, 4),)),
    ("nn.AdaptiveAvgPool1d(3)", ((2, 3, 7),)),
    ("nn.AdaptiveAvgPool2d(1)", ((2, 3, 4, 5),)),
    ("nn.AdaptiveAvgPool2d((2, None))", ((2, 3, 5, 4),)),
    ("nn.AdaptiveAvgPool3d((1, 2, 3))", ((2, 3, 2, 4, 5),)),
    ("nn.AdaptiveMaxPool1d(3)", ((2, 3, 7),)),
    ("nn.AdaptiveMaxPool2d((2, None))", ((2, 3, 5, 4),)),
    ("nn.AdaptiveMaxPool3d((1, 2, 3))", ((2, 3, 2, 4, 5),)),
    ("nn.MaxUnpool1d(2)", ()),
    ("nn.MaxUnpool2d((2, 3), stride=(2, 1), padding=(0, 1))", ()),
    ("nn.MaxUnpool3d(2)", ()),
    ("nn.Upsample(scale_factor=2, mode='bicubic')", ((2, 3, 4, 5),)),
    ("nn.Upsample(scale_factor=2)", ((2, 3, 4, 5),)),
    ("nn.Upsample((5, 7), mode='bilinear', align_corners=True)", ((2, 3, 4, 5),)),
    ("nn.Upsample(scale_factor=(2, 1.5), mode='bilinear')", ((2, 3, 4, 5),)),
    ("nn.UpsamplingNearest2d(7)", ((2, 3, 4, 5),)),
    ("nn.UpsamplingBilinear2d(scale_factor=2)", ((2, 3, 4, 5),)),
    ("nn.ConstantPad1d(1, 0.5)", ((2, 3),)),
    ("nn.ConstantPad2d((1, 0, 2, 1), 0.5)", ((2, 3, 4),)),
    ("nn.ConstantPad3d(1, -1)", ((2, 3, 2, 2),)),
    ("nn.ZeroPad1d(2)", ((2, 3, 4),)),
    ("nn.ZeroPad2d((1, -1, 0, 2))", ((2, 3, 4, 5),)),
    ("nn.ZeroPad3d(1)", ((2, 2, 3, 2),)),
    ("nn.ReflectionPad1d((2, 1))", ((2, 3, 4),)),
    ("nn.ReflectionPad2d(2)", ((2, 3, 4, 5),)),
    ("nn.ReflectionPad3d(1)", ((2, 2, 3, 2),)),
    ("nn.ReplicationPad1d((2, 1))", ((2, 3, 4),)),
    ("nn.ReplicationPad2d(2)", ((2, 3, 4, 5),)),
    ("nn.ReplicationPad3d(1)", ((2, 2, 3, 2),)),
    ("nn.CircularPad1d((2, 1))", ((2, 3, 4),)),
    ("nn.CircularPad2d(2)", ((2, 3, 4, 5),)),
    ("nn.CircularPad3d(1)", ((2, 2, 3, 2),)),
    ("nn.Unfold((2, 3), dilation=1, padding=1, stride=2)", ((2, 3, 4, 5),)),
    ("nn.Fold((4, 5), (2, 3), stride=(2, 1))", ((2, 12, 6),)),
    ("nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))", ((2, 1, 6, 6),)),
    ("nn.BatchNorm1d(3)", ((5, 3),)),
    ("nn.BatchNorm1d(3, momentum=None)", ((4, 3, 5),)),
    ("nn.BatchNorm2d(3)", ((4, 3, 2, 5),)),
    ("nn.BatchNorm2d(3).eval()", ((4, 3, 2, 5),)),
    ("nn.BatchNorm2d(3, 1e-3, 0.3, affine=False)", ((4, 3, 2, 5),)),
    ("nn.BatchNorm2d(3, track_running_stats=False).eval()", ((4, 3, 2, 5),)),
    ("nn.BatchNorm3d(2, bias=False)", ((2, 2, 2, 3, 2),)),
    ("nn.InstanceNorm1d(3)", ((3, 5),)),
    ("nn.InstanceNorm2d(3, affine=True, track_running_stats=True)", ((4, 3, 2, 5),)),
    ("nn.InstanceNorm2d(3, affine=True, bias=False, track_running_stats=True).eval()", ((4, 3, 2, 5),)),
    ("nn.InstanceNorm3d(2, momentum=0.3)", ((2, 2, 2, 3, 2),)),
    ("nn.GroupNorm(2, 4)", ((3, 4, 5),)),
    ("nn.GroupNorm(2, 4, affine=False)", ((3, 4),)),
    ("nn.GroupNorm(1, 4, 1e-3, bias=False)", ((3, 4, 2, 2),)),
    ("nn.LayerNorm(4)", ((2, 3, 4),)),
    ("nn.LayerNorm((3, 4), 1e-3, bias=False)", ((2, 3, 4),)),
    ("nn.LayerNorm([4], elementwise_affine=False)", ((2, 3, 4),)),
    ("nn.RMSNorm(4)", ((2, 3, 4),)),
    ("nn.RMSNorm((3, 4), 1e-3, False)", ((2, 3, 4),)),
    ("nn.LocalResponseNorm(2, 0.1)", ((2, 3, 4),)),
    ("nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU())", ((3, 1, 5, 6),)),
    ("nn.TransformerEncoderLayer(4, 2, 6, 0.0)", ((3, 2, 4),)),
    ("nn.TransformerEncoderLayer(4, 2, 6, 0.0, 'gelu', 1e-3, True, True, False)", ((3, 2, 4),)),
    ("nn.TransformerEncoderLayer(4, 1, 6, 0.2, activation=nn.SiLU())", ()),
    ("nn.TransformerDecoderLayer(4, 2, 6, 0.0)", ((3, 2, 4), (5, 2, 4))),
    ("nn.TransformerDecoderLayer(4, 2, 6, 0.0, 'gelu', 1e-3, True, True, False)", ((3, 2, 4), (3, 5, 4))),
    ("nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, 0.0), 2, nn.LayerNorm(4))", ((3, 2, 4),)),
    ("nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 6, 0.0), 2)", ((3, 2, 4), (5, 2, 4))),
    ("nn.Transformer(4, 2, 1, 2, 6, 0.0, batch_first=True)", ((2, 3, 4), (2, 5, 4))),
    ("nn.MSELoss()", ((2, 3), (2, 3))),
    ("nn.MSELoss(reduction='sum')", ((2, 3), (2, 3))),
    ("nn.L1Loss()", ((2, 3), (2, 3))),
    ("nn.SmoothL1Loss(beta=0.5)", ((2, 3), (2, 3))),
    ("nn.HuberLoss(delta=0.5)", ((2, 3), (2, 3))),
    ("nn.CrossEntropyLoss(label_smoothing=0.1)", ((2, 3), (2, 3))),
    ("nn.NLLLoss()", ()),
    ("nn.BCELoss()", ()),
    ("nn.BCEWithLogitsLoss(reduction='none')", ((2, 3), (2, 3))),
    ("nn.KLDivLoss(reduction='batchmean', log_target=True)", ((2, 3), (2, 3))),
    ("nn.Sequential()", ()),
    ("nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))", ((5, 3),)),
    ("nn.Sequential(OrderedDict(hidden=nn.Linear(3, 4), act=nn.Tanh()))", ((5, 3),)),
    ("nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.GELU()), nn.Identity())", ((5, 3),)),
    ("nn.ModuleList()", ()),
    ("nn.ModuleList([nn.Linear(2, 2) for _ in range(3)] + [nn.ReLU(), nn.Linear(2, 2)])", ()),
    ("nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2)])", ()),
    ("nn.ModuleDict()", ()),
    ("nn.ModuleDict({'a': nn.Linear(2, 3), 'b': nn.ModuleList([nn.ReLU()])})", ()),
]

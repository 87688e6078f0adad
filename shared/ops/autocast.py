"""Which operations compute in which dtype under `shared.amp.autocast`, and the casts of what they are given.

Products are fast and safe in sixteen bits, summed as they are in float32. Exponentials, logarithms, powers, long sums,
norms and losses lose too much there, or overflow. All others take what they get, and promote. The lists are PyTorch's,
which differ by device: on the CPU, where bfloat16 has float32's range, less is widened.
`tests/test_amp.py` compares them with PyTorch.

Source: Micikevicius et al., "Mixed precision training", 2018; PyTorch documentation, "Autocast Op Reference".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import numpy as np

from shared.arrays import dtypes
from shared.arrays.device import is_gpu_array
from shared.autocast_mode import entered, mode
from shared.autograd import is_grad_enabled
from shared.ops import operands
from shared.tensor import Tensor

# What happens to the floating arguments, float64 excepted, and that autocast is off inside:
LOWER = "cast to the region's dtype"
FLOAT32 = "cast to float32, unless the call names a dtype"
WIDEST = "cast to the widest dtype among them"
AS_IS = "left as they are"
REFUSED = "an error"

_PRODUCTS = """matmul addmm linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu
    scaled_dot_product_attention attention packed_attention"""
_LOSSES = """cross_entropy nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
    binary_cross_entropy_with_logits"""

POLICIES: dict[str, dict[str, str]] = {
    "cuda": {
        **dict.fromkeys(f"{_PRODUCTS} mv einsum".split(), LOWER),
        **dict.fromkeys("exp expm1 log log2 log10 log1p reciprocal rsqrt tan pow softplus".split(), FLOAT32),
        **dict.fromkeys("softmax log_softmax logsumexp sum prod cumsum norm cosine_similarity".split(), FLOAT32),
        **dict.fromkeys(f"layer_norm rms_norm group_norm resized {_LOSSES}".split(), FLOAT32),
        **dict.fromkeys("bilinear scatter_add".split(), WIDEST),
        **dict.fromkeys("mish trace".split(), AS_IS),  # built of operations above, without being one of them
        "binary_cross_entropy": REFUSED,
    },
    "cpu": {
        **dict.fromkeys(_PRODUCTS.split(), LOWER),
        **dict.fromkeys(f"prod trace binary_cross_entropy {_LOSSES}".split(), FLOAT32),
        **dict.fromkeys("avg_pool3d adaptive_avg_pool3d max_pool3d adaptive_max_pool3d".split(), FLOAT32),
        **dict.fromkeys("max_unpool2d max_unpool3d".split(), FLOAT32),
        **dict.fromkeys("mv bilinear".split(), AS_IS),
    },
}

F = TypeVar("F", bound=Callable)


def follows_autocast(function: F) -> F:
    """An operation that POLICIES names, by its `__name__`: under autocast its arguments are cast first."""
    name = function.__name__

    @functools.wraps(function)
    def following(*args: Any, **options: Any) -> Any:
        if not entered or not mode.dtypes:
            return function(*args, **options)
        return _casting_call(name, function, args, options)

    return cast(F, following)


def _casting_call(name: str, function: Callable, args: tuple, options: dict[str, Any]) -> Any:
    """`function` of the arguments in the dtypes that its policy wants, with autocast off inside."""
    tensors = list(_tensors([*args, *options.values()]))
    device = "cuda" if tensors and is_gpu_array(tensors[0].array) else "cpu"
    lower, policy = mode.dtypes.get(device), POLICIES[device].get(name)
    if lower is None or policy is None:
        return function(*args, **options)
    if policy is REFUSED:
        raise RuntimeError(
            f"{name} is unsafe to autocast: its input, probabilities, has too few digits near 1 in {lower.name}. "
            f"Use binary_cross_entropy_with_logits (BCEWithLogitsLoss) on the scores, or disable autocast around it"
        )
    target = _target(policy, lower, tensors, options)
    outside, mode.dtypes = mode.dtypes, {}
    try:
        if target is not None:
            args = tuple([_cast(x, target, target is lower) for x in args])
            options = {key: _cast(x, target, target is lower) for key, x in options.items()}
        return function(*args, **options)
    finally:
        mode.dtypes = outside


def _target(policy: str, lower: np.dtype, tensors: list[Tensor], options: dict[str, Any]) -> np.dtype | None:
    """The dtype that the arguments are cast to; None where they stay."""
    if policy is LOWER:
        return lower
    if policy is FLOAT32:
        return dtypes.float32 if options.get("dtype") is None else None
    if policy is WIDEST:
        return functools.reduce(dtypes.promote_types, [x.array.dtype for x in tensors if _casts(x)], lower)
    return None


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    """The Tensors among the values, and in lists and tuples among them."""
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from _tensors(x)


def _casts(x: Tensor) -> bool:
    """True for what autocast touches: floating numbers, but not float64."""
    return x.array.dtype in dtypes.FLOATING and x.array.dtype != dtypes.float64


def _cast(x: Any, dtype: np.dtype, lower: bool) -> Any:
    """A Tensor in `dtype`, where it is one that autocast touches; lists and tuples element by element."""
    if isinstance(x, Tensor):
        if not _casts(x) or x.array.dtype == dtype:
            return x
        return _kept_cast(x, dtype) if lower and _is_weight(x) and mode.cache_enabled else operands.cast(x, dtype)
    if isinstance(x, (list, tuple)):
        return [_cast(element, dtype, lower) for element in x]
    return x


def _is_weight(x: Tensor) -> bool:
    """A float32 leaf that is learned: the one kind of Tensor that is likely to be cast again in the same region."""
    return x._requires_grad and x._fn is None and x._base is None and x.array.dtype == dtypes.float32


def _kept_cast(x: Tensor, dtype: np.dtype) -> Tensor:
    """`x` in `dtype`, cast once in a region: the gradients of all its uses meet there and go back in one cast.

    What was kept serves as long as `x` is what it was, and while a gradient can still go through it: not if it was made
    without recording, nor after a backward, which frees the graph.
    """
    kept = mode.casts.get(id(x))
    if kept is not None:
        source, array, version, result = kept
        lives = not is_grad_enabled() or (result._fn is not None and result._fn.edges is not None)
        if source is x and array is x.array and version == x._version[0] and result.array.dtype == dtype and lives:
            return result
    result = operands.cast(x, dtype)
    mode.casts[id(x)] = (x, x.array, x._version[0], result)
    return result

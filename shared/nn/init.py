"""Initial values of parameters. Every function fills a tensor in place, outside the graph, and returns it.

fan_in is the number of inputs that feed one output, fan_out the number of outputs that one input feeds. With
independent weights of mean 0, a linear layer multiplies the variance of a signal by fan_in · Var(w), and that
of a gradient by fan_out · Var(w): the variances below keep those products near 1.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import no_grad
from shared.grad_mode import modes
from shared.ops.creation import empty_like, ones_like, randn, randperm
from shared.ops.elementwise import where
from shared.tensor import Tensor


def _fills(function: Callable) -> Callable:
    """Makes `function(tensor, …)` unrecorded; inside `nn.utils.skip_init` it returns its tensor as it is."""

    @functools.wraps(function)
    def fill(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not modes.init:
            return tensor
        with no_grad():
            return function(tensor, *args, **kwargs)

    return fill


@_fills
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_fills
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with this mean and standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@_fills
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Normal, but with every value outside [a, b] drawn again."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be "
            "incorrect.",
            stacklevel=2,
        )
        return tensor.copy_(_truncated_tail(tensor, mean, std, a, b, generator))
    tensor.normal_(mean, std, generator=generator)
    while (outside := (tensor < a) | (tensor > b)).any():
        drawn = empty_like(tensor).normal_(mean, std, generator=generator)
        tensor.copy_(where(outside, drawn, tensor))
    return tensor


def _truncated_tail(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """By rejection from uniform candidates: normal draws hardly ever fall into an [a, b] that is far out."""
    peak = min(max(a, mean), b)
    out = empty_like(tensor)
    pending = ones_like(tensor, dtype=dtypes.bool_)
    while pending.any():
        candidate = empty_like(tensor).uniform_(a, b, generator=generator)
        chance = (((peak - mean) ** 2 - (candidate - mean) ** 2) / (2 * std * std)).exp()
        accepted = pending & (empty_like(tensor).uniform_(generator=generator) < chance)
        out = where(accepted, candidate, out)
        pending = pending & ~accepted
    return out


@_fills
def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


@_fills
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix (2 dimensions only): a Linear layer that starts by passing its input on."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    tensor.zero_()
    diagonal = list(range(min(tensor.shape)))
    tensor.array[diagonal, diagonal] = 1
    return tensor


@_fills
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight (out, in, k…) that passes its input on: 1 amid kernel (i, i), 0 elsewhere."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = tensor.shape[0] // groups
    middle = tuple(size // 2 for size in tensor.shape[2:])
    tensor.zero_()
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            tensor.array[(group * per_group + channel, channel, *middle)] = 1
    return tensor


# ---------------------------------------------------------------- by the number of inputs and outputs


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out), the inputs per output and the outputs per input, of a weight (out, in, kernel…).

    A unit of a convolution reads every input channel at every place of its kernel: fan_in is in times the kernel's
    size, fan_out is out times it; a linear layer's weight has no kernel. ValueError below 2 dimensions.

    >>> from shared import empty
    >>> _calculate_fan_in_and_fan_out(empty(8, 3, 5, 5))
    (75, 200)
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, but its shape "
            f"is {tuple(tensor.shape)}"
        )
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that makes up for what an activation takes from the standard deviation of its input.

    >>> calculate_gain("relu") ** 2, calculate_gain("tanh")
    (2.0000000000000004, 1.6666666666666667)
    """
    if nonlinearity in ("linear", "sigmoid") or nonlinearity.startswith("conv"):
        return 1
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, int | float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope**2))
    gains = {"relu": math.sqrt(2), "tanh": 5 / 3, "selu": 3 / 4}
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with variance gain² · 2 / (fan_in + fan_out): a compromise between signals and gradients.

    Source: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural
    networks", eq. 16.
    """
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    std = gain * math.sqrt(2 / (fan_in + fan_out))
    bound = math.sqrt(3) * std  # a uniform number in ±bound has the standard deviation bound / √3
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with variance gain² · 2 / (fan_in + fan_out)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    std = gain * math.sqrt(2 / (fan_in + fan_out))
    return normal_(tensor, 0.0, std, generator)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode.lower() == "fan_in" else fan_out


def _is_empty(tensor: Tensor) -> bool:
    """True, with PyTorch's warning, where there is nothing to fill."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
    return 0 in tensor.shape


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Fills `tensor` in place, uniformly in ±r with variance gain² / fan, and returns it.

    A uniform number in ±r has the variance r²/3. The gain is that of the activation that follows,
    `calculate_gain(nonlinearity, a)`, where `a` is the slope of a leaky relu; fan is `_calculate_correct_fan(tensor,
    mode)`, the fan_in or the fan_out. `uniform_` draws, with `generator`. Where `_is_empty(tensor)`, which warns, there
    is nothing to fill.
    Source: He et al. (2015), "Delving Deep into Rectifiers", eq. 10 and 14.

    >>> from shared import empty
    >>> weight = kaiming_uniform_(empty(3, 6), nonlinearity="relu")
    >>> (abs(weight) <= 1).all().item()                        # √(6 / fan_in) = 1
    True
    """
    if _is_empty(tensor):
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    bound = math.sqrt(3) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Fills `tensor` in place with normal numbers of mean 0 and variance gain² / fan, and returns it.

    The gain, the fan and the empty tensor are as in `kaiming_uniform_`. `normal_`, which takes the standard deviation,
    draws, with `generator`.
    """
    if _is_empty(tensor):
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


@_fills
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """gain times a random matrix with orthonormal rows or columns, whichever are fewer; trailing dims joined.

    Sources: Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks"; Mezzadri (2007) for the signs that make it uniform.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    drawn = randn(max(rows, columns), min(rows, columns), generator=generator, device=tensor.device).array
    module = xp(drawn)
    q, r = module.linalg.qr(drawn)
    q = q * module.sign(module.diagonal(r))
    q = (q.T if rows < columns else q).reshape(tuple(tensor.shape))
    return tensor.copy_(Tensor(q * gain))


@_fills
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal, with a share of `sparsity` of every column set to 0. Source: Martens (2010), "Deep learning via
    Hessian-free optimization"."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    for column in range(columns):
        chosen = randperm(rows, generator=generator, device=tensor.device).array[:zeros]
        tensor.array[chosen, column] = 0
    return tensor

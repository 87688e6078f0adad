"""Activation functions, each with its own gradient; the formulas of the frequent ones are in
`shared.arrays.kernels.activation.reference`.

`sigmoid`, `tanh` and `erf` are with the other elementwise operations, softmax is in a file of its own.
"""

from __future__ import annotations

import math
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import is_gpu_array, xp
from shared.arrays.kernels import activation as kernels
from shared.arrays.kernels import serves_halves
from shared.autograd import Function
from shared.ops import elementwise
from shared.ops.autocast import follows_autocast
from shared.ops.inplace import assign
from shared.ops.operands import as_floating, cast
from shared.ops.shape import normalize_dim
from shared.tensor import Tensor

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def math_of(x: Any) -> Any:
    """Where `exp`, `tanh`, `where` … for `x` are: a backward written with it can itself be differentiated."""
    return elementwise if isinstance(x, Tensor) else xp(x)


def in_float32(function: Function, *inputs: Tensor) -> Tensor:
    """`function` of float16 or bfloat16 inputs, computed in float32 and rounded once at the end."""
    dtype = inputs[0].array.dtype
    if dtype.itemsize >= 4:
        return function(*inputs)
    return cast(function(*[cast(x, dtypes.float32) for x in inputs]), dtype)


def natively(family: str, function: Function, *inputs: Tensor) -> Tensor:
    """`in_float32`, but the GPU's kernels of `family` read and write float16 and bfloat16 themselves."""
    if is_gpu_array(inputs[0].array) and serves_halves(family):
        return function(*inputs)
    return in_float32(function, *inputs)


def require_tensor(name: str, role: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}(): argument '{role}' must be Tensor, not {type(value).__name__}")


def require_floating(name: str, input: Tensor) -> None:
    require_tensor(name, "input", input)
    if not dtypes.is_floating(input.array.dtype):
        raise NotImplementedError(
            f"{name}: not implemented for {input.array.dtype.name}; expected a floating-point input, e.g. x.float()"
        )


# ---------------------------------------------------------------- rectifiers


class Relu(Function):
    """max(x, 0); the slope at 0 is taken as 0"""

    twice = True

    def forward(self, x):
        out = kernels.relu(x)
        self.saved = (out,) if self.needs[0] else ()
        return out

    def backward(self, grad):
        (out,) = self.saved
        return kernels.relu_input(grad, out, elementwise.math_of_tensors(grad))


class LeakyRelu(Function):
    """x where x > 0, slope · x elsewhere"""

    twice = True

    def __init__(self, slope: float):
        self.slope = slope

    def forward(self, x):
        self.saved = (x,)
        return xp(x).where(x > 0, x, x * self.slope)

    def backward(self, grad):
        (x,) = self.saved
        return math_of(grad).where(x > 0, grad, grad * self.slope)


class Elu(Function):
    """scale · x where x > 0, scale · alpha · (eˣ − 1) elsewhere"""

    twice = True

    def __init__(self, alpha: float, scale: float = 1.0):
        self.alpha, self.scale = alpha, scale

    def forward(self, x):
        self.saved = (x,)
        module = xp(x)
        return self.scale * module.where(x > 0, x, self.alpha * module.expm1(module.minimum(x, 0)))

    def backward(self, grad):
        (x,) = self.saved
        ops = math_of(grad)
        slope = self.alpha * ops.exp(ops.where(x <= 0, x, 0))
        return grad * self.scale * ops.where(x <= 0, slope, 1)


class Hardtanh(Function):
    """x limited to [low, high]; the slope at the limits is taken as 0"""

    twice = True

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def forward(self, x):
        self.saved = (x,)
        return xp(x).clip(x, self.low, self.high)

    def backward(self, grad):
        (x,) = self.saved
        return math_of(grad).where((x > self.low) & (x < self.high), grad, 0)


# ---------------------------------------------------------------- smooth ones


class Softplus(Function):
    """log(1 + e^(βx)) / β, a smooth ReLU; x itself where βx > threshold"""

    twice = True

    def __init__(self, beta: float, threshold: float):
        self.beta, self.threshold = beta, threshold

    def forward(self, x):
        self.saved = (x,)
        module = xp(x)
        z = x * self.beta
        soft = module.maximum(z, 0) + module.log1p(module.exp(-abs(z)))  # e to the power of −|z| cannot overflow
        return module.where(z > self.threshold, x, soft / self.beta)

    def backward(self, grad):
        (x,) = self.saved
        ops = math_of(grad)
        z = x * self.beta
        return grad * ops.where(z > self.threshold, 1, (ops.tanh(z * 0.5) + 1) * 0.5)


class Silu(Function):
    """x · σ(x), also called Swish"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return kernels.silu(x)

    def backward(self, grad):
        (x,) = self.saved
        return kernels.silu_input(grad, x, elementwise.math_of_tensors(grad))


class Gelu(Function):
    """x · Φ(x), where Φ is the normal distribution function"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return kernels.gelu(x)

    def backward(self, grad):
        (x,) = self.saved
        return kernels.gelu_input(grad, x, elementwise.math_of_tensors(grad))


class GeluTanh(Function):
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), GPT-2's approximation of GELU"""

    twice = True

    def forward(self, x):
        self.saved = (x,)
        return kernels.gelu_tanh(x)

    def backward(self, grad):
        (x,) = self.saved
        return kernels.gelu_tanh_input(grad, x, elementwise.math_of_tensors(grad))


# ---------------------------------------------------------------- what users call

_FUSED = (Silu, Gelu, GeluTanh)


def _apply(name: str, function: Function, input: Tensor, inplace: bool) -> Tensor:
    require_floating(name, input)
    result = natively("activation", function, input) if isinstance(function, _FUSED) else in_float32(function, input)
    return assign(input, result) if inplace else result


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0), element by element.

    >>> import shared
    >>> shared.relu(shared.tensor([-1., 0., 2.]))
    tensor([0., 0., 2.])
    """
    require_tensor("relu", "input", input)
    return assign(input, Relu()(input)) if inplace else Relu()(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """input limited to [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input limited to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val cannot be greater than max_val, but got {min_val} and {max_val}")
    return _apply("hardtanh", Hardtanh(min_val, max_val), input, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where it is positive, negative_slope · input elsewhere."""
    return _apply("leaky_relu", LeakyRelu(negative_slope), input, inplace)


@follows_autocast
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """leaky_relu with a learned slope: one for all, or one per channel (dimension 1)."""
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.ndim != 1 or weight.numel() != channels:
            raise RuntimeError(
                f"prelu: expected a weight of 1 or {channels} elements (the channels of input "
                f"{tuple(input.shape)}), "
                f"but got shape {tuple(weight.shape)}"
            )
        weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    elif weight.ndim > input.ndim:
        weight = weight.reshape(())
    return elementwise.where(input > 0, input, weight * input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, alpha · (exp(input) − 1) elsewhere. Source: Clevert et al. (2016)."""
    return _apply("elu", Elu(alpha), input, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """elu, scaled so that activations keep mean 0 and variance 1. Source: Klambauer et al. (2017)."""
    return _apply("selu", Elu(SELU_ALPHA, SELU_SCALE), input, inplace)


@follows_autocast
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta · input)) / beta; input itself where beta · input > threshold."""
    return _apply("softplus", Softplus(beta, threshold), input, False)


def logsigmoid(input: Tensor) -> Tensor:
    """log σ(input), finite where σ itself has underflowed."""
    return -_apply("logsigmoid", Softplus(1.0, math.inf), -input, False)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input · σ(input). Source: Ramachandran et al., "Searching for Activation Functions" (2017)."""
    return _apply("silu", Silu(), input, inplace)


@follows_autocast
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input · tanh(softplus(input)). Source: Misra (2019)."""
    require_floating("mish", input)
    result = input * elementwise.tanh(softplus(input))
    return assign(input, result) if inplace else result


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input · Φ(input), Φ the normal distribution function; approximate="tanh" is the formula GPT-2 uses.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016).

    >>> import shared
    >>> shared.nn.functional.gelu(shared.tensor([-1., 0., 1.]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate argument must be either 'none' or 'tanh', but got {approximate!r}")
    return _apply("gelu", Gelu() if approximate == "none" else GeluTanh(), input, False)


def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    return input / (1 + abs(input))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """A sigmoid of straight lines: 0 below −3, 1 above 3."""
    result = relu6(input + 3) / 6
    return assign(input, result) if inplace else result


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input · hardsigmoid(input)."""
    result = input * hardsigmoid(input)
    return assign(input, result) if inplace else result


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), where a and b are the halves of `input` along `dim`. Source: Dauphin et al. (2017)."""
    dim = normalize_dim(dim, input.ndim)
    if input.ndim == 0 or input.shape[dim] % 2:
        raise RuntimeError(
            f"glu: the halving dimension must be even, but dimension {dim} of {tuple(input.shape)} is not"
        )
    a, b = input.chunk(2, dim)
    return a * elementwise.sigmoid(as_floating(b))

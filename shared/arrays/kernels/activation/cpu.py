"""Activation functions compiled by Numba, each forward and backward in one pass. Formulas in reference.py.

LLVM makes vectors of a loop only where it sees all the arithmetic, and for Numba `exp` and `erf` are calls: they stand
here as polynomials. A power of e below the smallest normal number is 0, one above the largest number ∞.

The tail of the normal distribution is Φ(−|x|) = e^(−x²/2) · Q(|x|), where Q (Mills' ratio over √(2π)) falls slowly from
1/2, so that small results are as exact as large ones.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

from shared.arrays.kernels.activation.reference import CUBIC, INV_SQRT_2_PI, SQRT_2_OVER_PI
from shared.arrays.kernels.threads import match_blas, share

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}

_threads = match_blas()
PARALLEL_FROM = 1 << 20  # a call takes 0.14 ms or more then, and to start threads 0.04 ms

f4, f8, i4, i8 = np.float32, np.float64, np.int32, np.int64

# (2ᶠ − 1) / f for |f| ≤ 1/2, lowest power first: mpmath.chebyfit with 6 and 11 coefficients; the errors of 2ᶠ are 4e-9
# and 6e-18.
_POWER_32 = tuple(f4(c) for c in (0.6931472, 0.2402265, 0.05550357, 0.009618083, 0.0013390863, 1.5453163e-04))
_POWER_64 = (
    *(0.6931471805599453, 0.24022650695910097, 0.0555041086648216, 0.009618129107606888, 0.0013333558146416936),
    *(1.540353044173605e-04, 1.525273382983612e-05, 1.321544258792169e-06, 1.0178062445845774e-07),
    *(7.072585949269223e-09, 4.4549605981865186e-10),
)
# Q(a) (1 + a/4) in s = a/4 / (1 + a/4), lowest power first: 1/2, then mpmath.chebyfit of the rest of it, divided by s,
# with 8 coefficients up to a = 13.3, error 5.3e-8, and with 22 up to a = 38, error 1.8e-17.
_TAIL_32 = tuple(
    f4(c)
    for c in (
        *(0.5, -1.0957692, 1.3084601, -0.7980391, 0.07362101),
        *(0.1788853, -0.02422374, -0.076561674, 0.033494234),
    )
)
_TAIL_64 = (
    *(0.5, -1.0957691216057306, 1.3084617567885248, -0.7980760133786512, 0.07384891915017666, 0.17900823728898882),
    *(-0.030079230972740855, -0.05446443105169475, -5.106882723852095e-04, 0.017795188828971773),
    *(0.005169412613346471, 0.0011436371802538182, -0.02073324914474276, 0.045167172881737175),
    *(-0.09720072037921823, 0.1656384889830883, -0.21320562213475897, 0.20974554661282535, -0.15260716792179146),
    *(0.07729853825162751, -0.02515334021495029, 0.004601600120614661, -3.433435126696919e-04),
)
_TAIL_64_EVEN, _TAIL_64_ODD = _TAIL_64[::2], _TAIL_64[1::2]  # of two sums at the same time neither waits for itself

LOG2_E = math.log2(math.e)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _polynomial(t, coefficients):
    """Σ coefficients[k] tᵏ by Horner's rule."""
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = total * t + coefficients[k]
    return total


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _within(x, low, high):
    """x limited to [low, high]; NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


# 2ⁿ⁺ᶠ is the polynomial of f times 2ⁿ, the number with the bits of n + 127 (or 1023) in the place of the exponent: 0
# for n = −127, ∞ for n = 128. Adding 1.5 · 2²³ (or 2⁵²) to a number rounds it to the integer n, whose bits are then the
# lowest ones.
_ROUND_32, _ROUND_64 = f4(1.5 * 2**23), 1.5 * 2.0**52


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _power_32(f, rounded):
    scale = i4((f4(rounded).view(i4) + i4(127)) << i4(23)).view(f4)
    return (_polynomial(f, _POWER_32) * f + f4(1)) * scale


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _power_64(f, rounded):
    scale = i8((f8(rounded).view(i8) + 1023) << 52).view(f8)
    return (_polynomial(f, _POWER_64) * f + 1.0) * scale


def _exp2(y):
    """2ʸ"""


@overload(_exp2, jit_options={"fastmath": FASTMATH, "error_model": "numpy", "forceinline": True})
def _exp2_of(y):
    if y == numba.float32:

        def exp2(y):
            y = _within(y, f4(-127), f4(128))
            rounded = y + _ROUND_32
            return _power_32(y - (rounded - _ROUND_32), rounded)

    else:

        def exp2(y):
            y = _within(y, -1023.0, 1024.0)
            rounded = y + _ROUND_64
            return _power_64(y - (rounded - _ROUND_64), rounded)

    return exp2


def _exp(x):
    """eˣ. The product x · log₂ e is rounded nowhere but behind the point: log₂ e comes in two parts for that."""


@overload(_exp, jit_options={"fastmath": FASTMATH, "error_model": "numpy", "forceinline": True})
def _exp_of(x):
    if x == numba.float32:

        def exp(x):
            x = _within(x, f4(-88.1), f4(89))
            rounded = x * f4(LOG2_E) + _ROUND_32
            n = rounded - _ROUND_32
            return _power_32((x * f4(1.4423828125) - n) + x * f4(0.00031222838896340733), rounded)

    else:

        def exp(x):
            x = _within(x, -709.2, 710.0)
            rounded = x * LOG2_E + _ROUND_64
            n = rounded - _ROUND_64
            return _power_64((x * 1.4426950216293335 - n) + x * 1.9259629911266175e-08, rounded)

    return exp


def _tail(a):
    """Q(a) = e^(a²/2) Φ(−a) for a ≥ 0."""


@overload(_tail, jit_options={"fastmath": FASTMATH, "error_model": "numpy", "forceinline": True})
def _tail_of(a):
    if a == numba.float32:

        def tail(a):
            b = f4(0.25) * (f4(64) if a > f4(64) else a)  # of ∞ the quotient b / (1 + b) would be NaN
            t = f4(1) / (f4(1) + b)
            return _polynomial(b * t, _TAIL_32) * t

    else:

        def tail(a):
            b = 0.25 * (64.0 if a > 64.0 else a)
            t = 1.0 / (1.0 + b)
            s = b * t
            return (_polynomial(s * s, _TAIL_64_EVEN) + _polynomial(s * s, _TAIL_64_ODD) * s) * t

    return tail


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _normal_parts(x, one, scale):
    """(Φ(x), e^(−x²/2)); scale is −log₂ e / 2."""
    e = _exp2(x * x * scale)
    tail = e * _tail(abs(x))
    return one - tail if x >= 0 else tail, e


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, forceinline=True)
def _slope(x, inner, e, one, largest):
    """The derivative of x · σ(u), where e = e⁻ᵘ and `inner` is u′: σ + x u′ σ (1 − σ)."""
    s = one / (one + e)
    other = (largest if e > largest else e) * s  # 1 − σ without the rounding of σ; 0 for e = ∞, as σ is then
    return s * (one + x * inner * other)


# ---------------------------------------------------------------- loops over all elements


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _relu(x, out):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] < zero else x[i]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _relu_input(grad, y, out):
    zero = y.dtype.type(0)
    for i in range(y.size):
        g = grad[i]
        out[i] = zero if y[i] <= zero else g


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _sigmoid(x, out):
    one = x.dtype.type(1)
    for i in range(x.size):
        out[i] = one / (one + _exp(-x[i]))


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _sigmoid_input(grad, y, out):
    one = y.dtype.type(1)
    for i in range(y.size):
        out[i] = grad[i] * (y[i] * (one - y[i]))


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _silu(x, out):
    one = x.dtype.type(1)
    for i in range(x.size):
        v = x[i]
        out[i] = v / (one + _exp(-v))


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _silu_input(grad, x, out):
    one, largest = x.dtype.type(1), np.finfo(x.dtype).max
    for i in range(x.size):
        v = x[i]
        out[i] = grad[i] * _slope(v, one, _exp(-v), one, largest)


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _gelu(x, out):
    one, scale = x.dtype.type(1), x.dtype.type(-0.5 * LOG2_E)
    for i in range(x.size):
        v = x[i]
        out[i] = v * _normal_parts(v, one, scale)[0]


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _gelu_input(grad, x, out):
    one, scale, peak = x.dtype.type(1), x.dtype.type(-0.5 * LOG2_E), x.dtype.type(INV_SQRT_2_PI)
    for i in range(x.size):
        v = x[i]
        cdf, e = _normal_parts(v, one, scale)
        out[i] = grad[i] * (cdf + v * (e * peak))


# −2u · log₂ e of GPT-2's formula is _LINEAR x + _CUBED x³.
_LINEAR = -2 * LOG2_E * SQRT_2_OVER_PI
_CUBED = _LINEAR * CUBIC


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _gelu_tanh(x, out):
    number = x.dtype.type
    one, linear, cubed = number(1), number(_LINEAR), number(_CUBED)
    for i in range(x.size):
        v = x[i]
        out[i] = v / (one + _exp2(v * (linear + cubed * (v * v))))


@numba.njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def _gelu_tanh_input(grad, x, out):
    number = x.dtype.type
    one, linear, cubed, largest = number(1), number(_LINEAR), number(_CUBED), np.finfo(x.dtype).max
    inner, inner_squared = number(2 * SQRT_2_OVER_PI), number(6 * SQRT_2_OVER_PI * CUBIC)
    for i in range(x.size):
        v = x[i]
        squared = v * v
        e = _exp2(v * (linear + cubed * squared))
        out[i] = grad[i] * _slope(v, inner + inner_squared * squared, e, one, largest)


# ---------------------------------------------------------------- all elements, among threads


def _flat(kernel, *arrays):
    """kernel(*arrays, out) → out, element by element: on one thread, or each on some of the elements."""
    first = arrays[0]
    out = np.empty(first.shape, first.dtype)
    parts = [part.reshape(-1) for part in (*arrays, out)]
    if _threads == 1 or first.size < PARALLEL_FROM:
        kernel(*parts)
    else:
        share(lambda _, a, b: kernel(*[part[a:b] for part in parts]), first.size, _threads)
    return out


def relu(x):
    """`reference.relu`."""
    return _flat(_relu, x)


def relu_input(grad, out):
    """`reference.relu_input`."""
    return _flat(_relu_input, grad, out)


def sigmoid(x):
    """`reference.sigmoid`."""
    return _flat(_sigmoid, x)


def sigmoid_input(grad, out):
    """`reference.sigmoid_input`."""
    return _flat(_sigmoid_input, grad, out)


def silu(x):
    """`reference.silu`."""
    return _flat(_silu, x)


def silu_input(grad, x):
    """`reference.silu_input`."""
    return _flat(_silu_input, grad, x)


def gelu(x):
    """`reference.gelu`."""
    return _flat(_gelu, x)


def gelu_input(grad, x):
    """`reference.gelu_input`."""
    return _flat(_gelu_input, grad, x)


def gelu_tanh(x):
    """`reference.gelu_tanh`."""
    return _flat(_gelu_tanh, x)


def gelu_tanh_input(grad, x):
    """`reference.gelu_tanh_input`."""
    return _flat(_gelu_tanh_input, grad, x)


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        x = np.zeros((1, 1), dtype)
        for forward in (relu, sigmoid, silu, gelu, gelu_tanh):
            forward(x)
        for backward in (relu_input, sigmoid_input, silu_input, gelu_input, gelu_tanh_input):
            backward(x, x)

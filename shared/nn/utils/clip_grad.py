"""Norms of gradients, and keeping them small."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterable

import numpy as np

from shared.arrays.device import is_gpu_array, xp
from shared.arrays.kernels import optim as kernel
from shared.autograd import no_grad
from shared.ops.inplace import require_writable
from shared.tensor import Tensor


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


@no_grad()
def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The p-norm of all tensors seen as one vector, p = norm_type (inf and 0 included); a scalar Tensor.

    >>> import shared
    >>> get_total_norm([shared.tensor([3.]), shared.tensor([[4.]])])
    tensor(5.)
    """
    arrays = [tensor.array for tensor in _as_list(tensors)]
    norm_type = float(norm_type)
    if not arrays:
        return Tensor(np.zeros((), "float32"))
    module = xp(arrays[0])
    if norm_type == 2.0:
        dtype = "float64" if all(array.dtype == np.float64 for array in arrays) else "float32"
        total = Tensor(module.sqrt(kernel.squares(arrays).sum()).astype(dtype))
    else:
        norms = [_norm(module, array, norm_type) for array in arrays]
        total = Tensor(module.asarray(_norm(module, module.stack([module.asarray(norm) for norm in norms]), norm_type)))
    if error_if_nonfinite and not bool(module.isfinite(total.array)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
            "cannot be "
            f"clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            f"`error_if_nonfinite=False`"
        )
    return total


def _norm(module: types.ModuleType, array: np.ndarray, norm_type: float) -> np.ndarray:
    flat = array.reshape(-1)
    if flat.dtype.itemsize < 4:
        flat = flat.astype("float32")  # squares of float16 overflow at 256
    if norm_type == float("inf") and flat.size == 0:
        return flat.sum()
    return module.linalg.norm(flat, norm_type)


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Multiplies every gradient by max_norm / total_norm, where that is below 1."""
    grads = [parameter.grad for parameter in _as_list(parameters) if parameter.grad is not None]
    scale = float(max_norm) / (total_norm + 1e-6)
    if is_gpu_array(scale.array):
        scale = scale.clamp(max=1.0)  # what it is need not be waited for
    elif scale.item() >= 1.0:
        return
    for grad in grads:
        require_writable(grad)
        grad._version[0] += 1  # for a graph that still needs the old values
    if grads:
        kernel.scale_all([grad.array for grad in grads], scale.array)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients together so that their norm is at most `max_norm`; returns the norm before.

    Source: Pascanu et al. (2013), "On the difficulty of training recurrent neural networks", algorithm 1.

    >>> import shared
    >>> weight = shared.nn.Parameter(shared.zeros(2))
    >>> weight.grad = shared.tensor([3., 4.])
    >>> clip_grad_norm_([weight], max_norm=1.0), weight.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    was_generator = isinstance(parameters, types.GeneratorType)
    parameters = _as_list(parameters)
    if was_generator and not parameters:
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total_norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total_norm)
    return total_norm


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limits every element of every gradient to [−clip_value, clip_value]."""
    for parameter in _as_list(parameters):
        if parameter.grad is not None:
            parameter.grad.clamp_(-float(clip_value), float(clip_value))

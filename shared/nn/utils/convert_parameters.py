"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from shared.ops.join import cat
from shared.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters in one vector, in their order; differentiable."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """The opposite of `parameters_to_vector`: each parameter becomes a view of its slice of `vec`."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected a Tensor, but got: {type(vec).__name__}")
    parameters = list(parameters)
    needed = sum(parameter.numel() for parameter in parameters)
    if needed > vec.numel():
        raise RuntimeError(f"vector_to_parameters: the parameters have {needed} elements, the vector {vec.numel()}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec.data[start:end].reshape(*parameter.shape)
        start = end

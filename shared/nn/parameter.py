"""Tensors that a module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from shared.tensor import Tensor


def _array_of(data: Any) -> Any:
    """The raw array itself, so that memory is shared; what is no Tensor yet becomes one first."""
    return data.array if isinstance(data, Tensor) else () if data is None else data


class Parameter(Tensor):
    """A Tensor that is learned: assigned to a Module, it is found by `module.parameters()`.

    It shares memory with `data` and requires a gradient unless told otherwise.

    >>> import shared
    >>> Parameter(shared.zeros(2))
    Parameter containing:
    tensor([0., 0.], requires_grad=True)
    """

    def __init__(self, data: Any = None, requires_grad: bool = True):
        super().__init__(_array_of(data))
        self.requires_grad_(requires_grad)

    def __repr__(self, **options: Any) -> str:
        return "Parameter containing:\n" + super().__repr__(**options)


class Buffer(Tensor):
    """A Tensor that is state but not learned; assigning it is the same as `register_buffer`."""

    def __init__(self, data: Any = None, *, persistent: bool = True):
        super().__init__(_array_of(data))
        self.persistent = persistent

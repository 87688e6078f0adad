"""The in-place forms: `x.add_(y)` is `assign(x, x + y)`."""

from __future__ import annotations

from shared import autograd
from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.tensor import Tensor


def assign(target: Tensor, result: Tensor) -> Tensor:
    """Makes `result`, computed from the old value of `target`, its new value; returns `target`.

    Every in-place form goes through here: `x.add_(y)` is `assign(x, x + y)`. Errors: a leaf that requires a
    gradient, a view with a recorded result, a shape or a dtype that does not fit.
    """
    recorded = autograd.is_grad_enabled()
    if recorded and target._requires_grad and target._fn is None:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    if recorded and target._base is not None and (result._requires_grad or target._base._requires_grad):
        raise RuntimeError(
            "an in-place operation on a view cannot be recorded; use the out-of-place form, change the base itself, "
            "or wrap it in no_grad()"
        )
    require_writable(target)
    if result.array.shape != target.array.shape:
        raise RuntimeError(
            f"output with shape {list(target.array.shape)} doesn't match the broadcast shape {list(result.array.shape)}"
        )
    if dtypes.category(result.array.dtype) > dtypes.category(target.array.dtype):
        raise RuntimeError(
            f"result type {result.array.dtype.name} can't be cast to the desired output type {target.array.dtype.name}"
        )
    if recorded:
        if result._fn is not None:
            _keep_old_value(result._fn, target)
        target._fn, target._requires_grad = result._fn, result._requires_grad
    target.array[...] = result.array
    target._version[0] += 1
    return target


def require_writable(x: Tensor) -> None:
    """Raises where an element of `x` cannot be changed alone, or not at all."""
    array = x.array
    if (
        array.size
        and 0 in array.strides
        and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))
    ):
        raise RuntimeError(
            f"in-place operation: several elements of this tensor of shape {tuple(array.shape)} share one place in "
            f"memory (it was expanded); clone() it before changing it"
        )
    if not getattr(array.flags, "writeable", True):
        raise RuntimeError("in-place operation: the memory of this tensor is read-only; clone() it before changing it")


def _keep_old_value(node: Function, target: Tensor) -> None:
    """Gives `node` a copy of what it saved of the target's old value, which is about to be overwritten."""
    places = {i for i, saved in enumerate(node.saved) if saved is target.array}
    node.saved = tuple([s.copy() if i in places else s for i, s in enumerate(node.saved)])
    node.origins = [(p, edge, [0], 0) if p in places else (p, edge, *v) for p, edge, *v in node.origins]


class Overwrite(Function):
    """A new value in place of the old one, to which no gradient goes back"""

    twice = True

    def forward(self, old, new):
        return xp(new).broadcast_to(new, old.shape).copy()

    def backward(self, grad):
        return grad * 0, grad


def copy_(target: Tensor, source: Tensor) -> Tensor:
    """Writes `source`, broadcast and converted to the target's dtype and device, over `target`; differentiable."""
    if not isinstance(source, Tensor):
        raise TypeError(f"copy_: expected a Tensor, but got {type(source).__name__}")
    value = source.to(target.device, target.dtype)
    if value.array.shape != target.array.shape:
        value = value.expand(target.array.shape)
    return assign(target, Overwrite()(target, value) if target._fn is not None else value)

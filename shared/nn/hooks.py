"""Functions that watch a module's calls: what registering does, and the call of a module that has some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.arrays.device import xp
from shared.autograd import Function, RemovableHandle, is_grad_enabled
from shared.tensor import Tensor

if TYPE_CHECKING:
    from shared.nn.module import Module


class Hook(NamedTuple):
    """A registered function and how to call it."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def add_hook(hooks: list, hook: Any, prepend: bool = False) -> RemovableHandle:
    """Put `hook` last, or first; the handle's `remove()` takes it out again."""
    hooks.insert(0 if prepend else len(hooks), hook)
    return RemovableHandle(hooks, hook)


def call_with_hooks(module: Module, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` with every hook that is registered on the module around it."""
    for hook in list(module._forward_pre_hooks):
        args, kwargs = _before(hook, module, args, kwargs)
    watch = _BackwardWatch(module) if module._backward_hooks or module._backward_pre_hooks else None
    if watch:
        args = watch.inputs(args)
    called = []
    result = None
    try:
        result = module.forward(*args, **kwargs)
        for hook in list(module._forward_hooks):
            called.append(hook)
            result = _after(hook, module, args, kwargs, result)
    except Exception:
        for hook in module._forward_hooks:
            if hook.always_call and hook not in called:
                _after(hook, module, args, kwargs, result)
        raise
    return watch.outputs(result) if watch else result


def _before(hook: Hook, module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        return (args if changed is None else changed if isinstance(changed, tuple) else (changed,)), kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise RuntimeError(
            f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
        )
    return changed


def _after(hook: Hook, module: Module, args: tuple, kwargs: dict[str, Any], result: Any) -> Any:
    given = (module, args, kwargs, result) if hook.with_kwargs else (module, args, result)
    changed = hook.function(*given)
    return result if changed is None else changed


class _Gather(Function):
    """Waits for the gradients of all its inputs and hands them to `see`, which returns those to pass on.

    A Function has one output, a module call may have several inputs. So each input goes through a `_Pass` of
    its own, which leaves its gradient here; all of these are younger than it: backward comes here last.
    """

    twice = True

    def __init__(self, see: Callable[[list], Sequence]):
        self.see = see

    def forward(self, *arrays: Any) -> Any:
        self.grads: list[Any] = [None] * len(arrays)
        return xp(arrays[0]).empty(0, dtype="float32")  # a token: it carries no number, only the order

    def backward(self, grad: Any) -> tuple:
        found, self.grads = self.grads, [None] * len(self.grads)
        seen = self.see([g if g is None or isinstance(g, Tensor) else Tensor(g) for g in found])
        return tuple(g if g is None or isinstance(grad, Tensor) else g.array for g in seen)


class _Pass(Function):
    """The identity; leaves the gradient with its `_Gather`."""

    twice = True
    view = True

    def __init__(self, gather: _Gather, place: int):
        self.gather, self.place = gather, place

    def forward(self, array: Any, token: Any) -> Any:
        self.token = token
        return array

    def backward(self, grad: Any) -> tuple:
        self.gather.grads[self.place] = grad
        return None, Tensor(self.token) if isinstance(grad, Tensor) else self.token


class _BackwardWatch:
    """One call of a module with backward hooks: brings gradients of inputs and outputs together for them."""

    def __init__(self, module: Module):
        self.module = module
        self.grad_output: tuple = ()
        self.input_count = 0
        self.watches_inputs = False

    def _pass_through(self, values: tuple, see: Callable[[tuple], Sequence]) -> tuple[tuple, bool]:
        """`values` again, those that require gradients through a gate that calls `see` with all gradients."""
        places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
        if not places or not is_grad_enabled():
            return values, False

        def see_all(grads: list) -> list:
            by_place = dict(zip(places, grads, strict=True))
            seen = see(tuple(by_place.get(i) for i in range(len(values))))
            return [seen[i] for i in places]

        gather = _Gather(see_all)
        token = gather(*(values[i] for i in places))
        passed = list(values)
        for order, place in enumerate(places):
            passed[place] = _Pass(gather, order)(values[place], token)
        return tuple(passed), True

    def inputs(self, args: tuple) -> tuple:
        self.input_count = len(args)
        args, self.watches_inputs = self._pass_through(args, self._see_inputs)
        return args

    def outputs(self, result: Any) -> Any:
        values = result if isinstance(result, tuple) else (result,)
        passed, _ = self._pass_through(values, self._see_outputs)
        return passed if isinstance(result, tuple) else passed[0]

    def _see_inputs(self, grad_input: tuple) -> tuple:
        for hook in self.module._backward_hooks:
            changed = hook.function(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = _replaced(changed, grad_input, "Backward hook", "grad_input")
        return grad_input

    def _see_outputs(self, grad_output: tuple) -> tuple:
        for hook in self.module._backward_pre_hooks:
            changed = hook.function(self.module, grad_output)
            if changed is not None:
                grad_output = _replaced(changed, grad_output, "Backward pre hook", "grad_output")
        self.grad_output = grad_output
        if not self.watches_inputs:  # no input asks for a gradient: there is nothing to wait for
            self._see_inputs((None,) * self.input_count)
        return grad_output


def _replaced(changed: Any, old: tuple, who: str, what: str) -> tuple:
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(old):
        raise RuntimeError(f"{who} returned an invalid number of {what}, got {len(changed)}, but expected {len(old)}")
    return changed

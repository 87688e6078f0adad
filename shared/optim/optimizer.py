"""What all optimizers share: parameter groups, state per parameter, saving and loading it."""

from __future__ import annotations

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

from shared.arrays.device import device_of
from shared.autograd import enable_grad, no_grad
from shared.ops.creation import full_like, tensor
from shared.tensor import Tensor


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()  # a default that every parameter group must replace


class Optimizer:
    """Base class of all optimizers.

    `params` is an iterable of Tensors, of (name, Tensor) pairs, or of dicts, one per parameter group, each with
    the key "params" and options of its own; `defaults` has the options a group does not name. A parameter whose
    `grad` is None is left as it is.

    **Writing one's own.** Call `super().__init__(params, defaults)` and write `update`, which changes one
    parameter in place. It runs without recording; `state` is a dict that belongs to the parameter, empty at
    first, and is saved by `state_dict`; `group` holds the options. (PyTorch's way, a `step` of one's own that
    loops over `self.param_groups`, works as well.)

    >>> import shared
    >>> class SignSGD(Optimizer):
    ...     def __init__(self, params, lr=0.01):
    ...         super().__init__(params, {"lr": lr})
    ...     def update(self, param, grad, state, group):
    ...         param -= group["lr"] * grad.sign()
    >>> w = shared.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = SignSGD([w], lr=0.5)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.5000, -1.5000], requires_grad=True)
    """

    def __init__(self, params: Iterable, defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got a Tensor: "
                "put it into a list"
            )
        if defaults.get("differentiable"):
            raise NotImplementedError("differentiable=True is not supported: step() is not recorded")
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._step_pre_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Callable] = OrderedDict()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, with options of its own where the dict names them."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        _normalise_params(param_group)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        self._check_not_optimized_yet(param_group)
        self.param_groups.append(param_group)

    def _check_not_optimized_yet(self, param_group: dict[str, Any]) -> None:
        ids = [id(p) for p in param_group["params"]]
        if len(ids) != len(set(ids)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters: each of them is updated "
                "once for every time it is listed",
                stacklevel=4,
            )
        for group in self.param_groups:
            if ("param_names" in param_group) != ("param_names" in group):
                raise ValueError("all optimizer param groups should be with/without names")
            if not {id(p) for p in group["params"]}.isdisjoint(ids):
                raise ValueError("some parameters appear in more than one parameter group")

    # ------------------------------------------------------------ the step

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the loss of `closure`, if one is given.

        `closure` clears the gradients, computes the loss, calls backward on it and returns it.
        """
        for hook in self._step_pre_hooks.values():
            hook(self, (), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.update_all([param for param in group["params"] if param._grad is not None], group)
        self._opt_called = True  # what a scheduler looks at
        for hook in self._step_post_hooks.values():
            hook(self, (), {})
        return loss

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Changes `param` in place by one step; each optimizer writes its own."""
        raise NotImplementedError(f"{type(self).__name__} defines neither update() nor step()")

    def update_all(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Changes these parameters of `group`, all of which have a gradient: one after the other by `update`.

        SGD and Adam have another, which gives the same and hands all parameters to one call of a kernel.
        """
        for param in params:
            grad = -param.grad if group.get("maximize") else param.grad
            self.update(param, grad, self.state[param], group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or fills them with zeros where `set_to_none` is False."""
        for param in chain.from_iterable(group["params"] for group in self.param_groups):
            if param.grad is None:
                continue
            if set_to_none:
                param.grad = None
            else:
                param.grad.detach_().zero_()

    def register_step_pre_hook(self, hook: Callable) -> Any:
        """Calls `hook(optimizer, args, kwargs)` before every step; returns a handle with `remove()`."""
        return _Handle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> Any:
        """Calls `hook(optimizer, args, kwargs)` after every step; returns a handle with `remove()`."""
        return _Handle(self._step_post_hooks, hook)

    # ------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """The state and options in PyTorch's layout, with parameters replaced by their numbers.

        `{"state": {0: {…}, …}, "param_groups": [{"lr": …, "params": [0, …]}, …]}`. The Tensors are the live
        ones, not copies.
        """
        numbers: dict[int, int] = {}
        for param in chain.from_iterable(group["params"] for group in self.param_groups):
            numbers.setdefault(id(param), len(numbers))
        groups = [
            {k: v for k, v in group.items() if k != "params"} | {"params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[id(k)] if isinstance(k, Tensor) else k: v for k, v in self.state.items() if v}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; state is cast to its parameter's dtype and device.

        Parameters are matched by their order. The options of `state_dict`, the learning rate included, replace
        those given at construction.
        """
        groups, saved = self.param_groups, deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved):
            raise ValueError(
                f"loaded state dict has a different number of parameter groups: {len(saved)}, the optimizer "
                f"{len(groups)}"
            )
        for i, (group, new) in enumerate(zip(groups, saved, strict=True)):
            if len(group["params"]) != len(new["params"]):
                raise ValueError(
                    f"loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {i} has {len(new['params'])} parameters there and {len(group['params'])} here"
                )
        numbers = chain.from_iterable(g["params"] for g in saved)
        params = dict(zip(numbers, chain.from_iterable(g["params"] for g in groups), strict=True))
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            if number in params:
                state[params[number]] = _fit_state(values, params[number], number)
            else:
                state[number] = values
        for group, new in zip(groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved})

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over groups and state; options a group from an older file lacks get their defaults."""
        self.__dict__.update(state)
        self.__dict__.setdefault("_step_pre_hooks", OrderedDict())
        self.__dict__.setdefault("_step_post_hooks", OrderedDict())
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines) + "\n)"


class _Handle:
    """Removes a hook again."""

    def __init__(self, hooks: OrderedDict[int, Callable], hook: Callable):
        self.hooks = hooks
        hooks[id(self)] = hook

    def remove(self) -> None:
        self.hooks.pop(id(self), None)


def _normalise_params(param_group: dict[str, Any]) -> None:
    """Makes `param_group["params"]` a list of leaf Tensors, with their names under "param_names" if given."""
    params = param_group["params"]
    if isinstance(params, set):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
            "will change between runs. Please use a list instead."
        )
    params = [params] if isinstance(params, Tensor) else list(params)
    names = [p[0] for p in params if isinstance(p, tuple)]
    if names:
        if len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        params, param_group["param_names"] = [p[1] for p in params], names
    for param in params:
        if not isinstance(param, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
        if not param.is_leaf and not param.retains_grad:
            raise ValueError("can't optimize a non-leaf Tensor")
    param_group["params"] = params


def _fit_state(value: Any, param: Tensor, number: int, key: Any = None) -> Any:
    """A copy of loaded state with its Tensors cast to the parameter's dtype and device; `step` stays as it is."""
    if isinstance(value, dict):
        return {k: _fit_state(v, param, number, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_fit_state(v, param, number, key) for v in value)
    if not isinstance(value, Tensor):
        return deepcopy(value)
    if key == "step":
        return value.detach().clone()
    if value.ndim and value.shape != param.shape:
        raise ValueError(
            f"loaded state {key!r} of parameter {number} has shape {tuple(value.shape)}, but the parameter has "
            f"{tuple(param.shape)}: the state dict belongs to another model, or the parameters are in another order"
        )
    dtype = param.dtype if param.is_floating_point() else None
    return _laid_out(value.detach().to(device=param.device, dtype=dtype, copy=True), param)


def _laid_out(value: Tensor, param: Tensor) -> Tensor:
    """`value` with its numbers in the order of its parameter's in memory: what one kernel goes through at a time.

    Only parameters that lie by columns (transposed views, as of a file) make a difference.
    """
    flags = param.array.flags
    if value.shape != param.shape or value.ndim != 2 or flags.c_contiguous or not flags.f_contiguous:
        return value
    return value.t().contiguous().t()


# ---------------------------------------------------------------- for the optimizers


def check_lr(lr: float | Tensor) -> None:
    """Raises where a learning rate is negative, or a Tensor of more than one element."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    check_not_negative("learning rate", lr)


def check_not_negative(name: str, value: float | Tensor) -> None:
    """Raises where an option is negative or NaN."""
    if not value >= 0.0:
        raise ValueError(f"Invalid {name}: {value}")


def state_array(state: dict[str, Any], name: str, param: Tensor, fill: float = 0.0) -> Any:
    """The raw array of `state[name]`, made of the parameter's shape, dtype and device at its first use."""
    found = state.get(name)
    if found is None:
        found = state[name] = _laid_out(full_like(param, fill, requires_grad=False), param)
    elif not _fits(found.array, param.array):
        raise RuntimeError(
            f"the optimizer's {name!r} is {found.dtype} {tuple(found.shape)} on {found.device}, but its parameter is "
            f"{param.dtype} {tuple(param.shape)} on {param.device} by now. Move or cast the model before the first "
            f"step, or make a new optimizer and load_state_dict() the old one's state into it"
        )
    return found.array


def _fits(array: Any, param: Any) -> bool:
    """True where a state array has the dtype, shape and device of its parameter's array."""
    if (array.dtype is not param.dtype and array.dtype != param.dtype) or array.shape != param.shape:
        return False
    return type(array) is type(param) is np.ndarray or device_of(array) == device_of(param)


def step_counter(state: dict[str, Any]) -> Any:
    """The raw array of `state["step"]`: the number of steps taken, in a Tensor as in PyTorch."""
    counter = state.get("step")
    if not isinstance(counter, Tensor):  # new, or a plain number from an old file
        counter = state["step"] = tensor(float(counter or 0))
    return counter.array


def next_step(state: dict[str, Any]) -> int:
    """Counts a step in `state["step"]`; returns its number, from 1."""
    counter = step_counter(state)
    counter += 1
    return int(counter)


def changed(*params: Tensor) -> None:
    """Records that the arrays were written to, so that a graph that still needs their old values notices."""
    for param in params:
        param._version[0] += 1

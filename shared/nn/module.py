"""Module: a function with parameters, and a tree of such functions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Self

import numpy as np

from shared.autograd import RemovableHandle, no_grad
from shared.nn.hooks import Hook, add_hook, call_with_hooks
from shared.nn.parameter import Buffer, Parameter
from shared.nn.state import EXTRA_STATE, IncompatibleKeys, load, load_own
from shared.tensor import Tensor


class Module:
    """Base class of layers, losses and whole models.

    A subclass calls `super().__init__()` first, assigns parameters and submodules as attributes, and defines
    `forward`. Whatever is assigned is found again by `parameters()`, `state_dict()`, `to()` and `train()`.

    >>> import shared
    >>> class Scale(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = Parameter(shared.tensor([2.0]))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(shared.tensor([1.0, 3.0])).tolist()
    [2.0, 6.0]
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    def __init__(self) -> None:
        own = self.__dict__  # past __setattr__, which relies on what is created here
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_non_persistent_buffers_set"] = set()
        own["_modules"] = {}
        own["_forward_pre_hooks"] = []
        own["_forward_hooks"] = []
        own["_backward_pre_hooks"] = []
        own["_backward_hooks"] = []
        own["_state_dict_pre_hooks"] = []
        own["_state_dict_hooks"] = []
        own["_load_state_dict_pre_hooks"] = []
        own["_load_state_dict_post_hooks"] = []

    # ---------------------------------------------------------------- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks:
            return call_with_hooks(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass defines it, and callers call the module itself."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function: '
            f"define forward(self, ...) in class {type(self).__name__}, indented as its method"
        )

    # ---------------------------------------------------------------- attributes with a meaning

    def __getattr__(self, name: str) -> Any:
        # Python comes here only for what is not a plain attribute.
        own = self.__dict__
        if "_parameters" in own:
            for group in (own["_parameters"], own["_modules"], own["_buffers"]):
                if name in group:
                    return group[name]
        kind = type(self).__name__
        hint = "" if "_parameters" in own else f": {kind}.__init__ has to call super().__init__() first"
        raise AttributeError(f"'{kind}' object has no attribute '{name}'{hint}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._take(name, "parameters", keep="_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._take(name, "module", keep="_modules")
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self._take(name, "buffer", keep="_buffers")
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as parameter '{name}' (nn.Parameter or None expected)"
                )
            own["_parameters"][name] = None
        elif name in own.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as child module '{name}' (nn.Module or None expected)"
                )
            own["_modules"][name] = None
        elif name in own.get("_buffers", ()):
            self.register_buffer(name, value, name not in own["_non_persistent_buffers_set"])
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for group in (self._parameters, self._buffers, self._modules):
            if name in group:
                del group[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def _take(self, name: str, kind: str, keep: str) -> None:
        """Free `name` wherever else it is used, so that the newest assignment wins."""
        own = self.__dict__
        if "_parameters" not in own:
            raise AttributeError(
                f"cannot assign {kind} before Module.__init__() call: begin {type(self).__name__}.__init__ "
                f"with super().__init__(), then set '{name}'"
            )
        own.pop(name, None)
        for group in ("_parameters", "_buffers", "_modules"):
            if group != keep:
                own[group].pop(name, None)
        if keep != "_buffers":
            own["_non_persistent_buffers_set"].discard(name)

    def _check_name(self, name: str, kind: str, group: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_typename(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in group and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add `param` under `name`; None keeps the place, as Linear does for `bias=False`."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name(name, "parameter", self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_typename(param)}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created "
                "explicitly. "
                f"To express '{name}' as a function of another Tensor, compute the value in the forward() "
                "method."
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add state that is not learned (a mask, running statistics).

        It moves with `to()`; it is in the `state_dict` unless `persistent=False`.

        >>> import shared
        >>> m = Module()
        >>> m.register_buffer("mask", shared.ones(2, 2), persistent=False)
        >>> list(m.state_dict()), tuple(m.mask.shape)
        ([], (2, 2))
        """
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name(name, "buffer", self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{_typename(tensor)}' object to buffer '{name}' (Tensor or None required)")
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child; the same as assigning it to an attribute of that name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._check_name(name, "module", self._modules)
        self._modules[name] = module

    register_module = add_module

    # ---------------------------------------------------------------- walking the tree

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(path, module) for this module and every module below it, parents first, children in order of assignment.

        This module's path is `prefix`; a child's is its parent's, a dot and its name in `self._modules` (a dict of
        name → Module, or None for a place that is kept), without the dot where the parent's path is "". A module
        that can be reached by two paths comes once, by the first of them, or by both with remove_duplicate=False.
        `memo` is a set of modules that are passed over, with all below them; those that come are added to it, even
        where it is empty at first, unless remove_duplicate is False.

        >>> from shared import nn
        >>> [path for path, _ in nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())).named_modules(prefix="net")]
        ['net', 'net.0', 'net.1', 'net.1.0']
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def _named_members(
        self, group: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        """(path, member) of every entry of the dict `group`, "_parameters" or "_buffers", of each module in turn.

        The modules are those of `named_modules`, with `prefix` as this one's path; without `recurse` only this one,
        under the same path.
        A path is the module's, a dot and the name in the dict (no dot after ""). None is a place that is kept and
        passed over. A member that two names share comes once, under the first, unless remove_duplicate is False.
        Tensors are told apart by `is` or `id()`: == compares their elements.
        """
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        seen = set()
        for path, module in modules:
            for name, member in getattr(module, group).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{path}.{name}" if path else name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) in order of assignment; one with two names (tied) once, under the first."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) one level down; a shared child once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """What an optimizer is given."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def children(self) -> Iterator[Module]:
        for _, module in self.named_children():
            yield module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path such as "encoder.0.linear"; "" is this module."""
        module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module) -> None:
        """Put `module` at a dotted path whose parent exists."""
        parent, _, name = target.rpartition(".")
        if not name:
            raise ValueError("Cannot set the submodule without a target name!")
        setattr(self.get_submodule(parent), name, module)

    def get_parameter(self, target: str) -> Parameter:
        path, _, name = target.rpartition(".")
        return self._get_member(self.get_submodule(path), name, "_parameters", "nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        return self._get_member(self.get_submodule(path), name, "_buffers", "buffer")

    @staticmethod
    def _get_member(module: Module, name: str, group: str, kind: str) -> Any:
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in getattr(module, group):
            raise AttributeError(f"`{name}` is not {'an' if kind[0] == 'n' else 'a'} {kind}")
        return getattr(module, group)[name]

    # ---------------------------------------------------------------- doing something to the whole tree

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module below, then on this one; the usual way to initialise a model."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace the data of every parameter, gradient and buffer; the Parameter objects stay the same."""
        for module in self.children():
            module._apply(fn)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is None:
                    continue
                grad = parameter.grad
                parameter.data = fn(parameter)
                if grad is not None:
                    parameter.grad = fn(grad).requires_grad_(grad.requires_grad)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """`to(device)`, `to(dtype)`, `to(device, dtype)`, `to(tensor)`; integer buffers keep their dtype."""
        device, dtype = _parse_to(*args, **kwargs)
        if dtype is not None and dtype.kind in "biu":
            raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")

        def convert(tensor: Tensor) -> Tensor:
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            return tensor.to(device=tensor.device if device is None else device, dtype=wanted)

        return self._apply(convert)

    def cuda(self, device: Any = None) -> Self:
        return self._apply(lambda tensor: tensor.cuda(device))

    def cpu(self) -> Self:
        return self._apply(lambda tensor: tensor.cpu())

    def type(self, dst_type: np.dtype) -> Self:
        return self._apply(lambda tensor: tensor.to(dst_type))

    def _cast(self, name: str) -> Self:
        return self._apply(lambda tensor: getattr(tensor, name)() if tensor.is_floating_point() else tensor)

    def float(self) -> Self:
        return self._cast("float")

    def double(self) -> Self:
        return self._cast("double")

    def half(self) -> Self:
        return self._cast("half")

    def bfloat16(self) -> Self:
        return self._cast("bfloat16")

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all below: dropout drops, batch norm uses the batch."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode; it says nothing about gradients, which `no_grad` switches off."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = parameter.grad.detach().zero_()

    # ---------------------------------------------------------------- state

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Every parameter and persistent buffer by dotted name, detached, sharing memory with the module.

        >>> from shared import nn
        >>> list(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']
        """
        state = OrderedDict() if destination is None else destination
        for hook in self._state_dict_pre_hooks:
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(state, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks:
            if hook(self, state, prefix, {}) is not None:
                raise RuntimeError("state_dict post-hook must return None")
        return state

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, tensor in self._own_state().items():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_extra_state():
            destination[prefix + EXTRA_STATE] = self.get_extra_state()

    def _own_state(self) -> dict[str, Tensor]:
        """This module's parameters and persistent buffers, children not included."""
        buffers = ((k, v) for k, v in self._buffers.items() if k not in self._non_persistent_buffers_set)
        return {name: tensor for name, tensor in chain(self._parameters.items(), buffers) if tensor is not None}

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Module.get_extra_state

    def get_extra_state(self) -> Any:
        """Override together with `set_extra_state` to keep more than tensors in the `state_dict`."""
        raise RuntimeError("get_extra_state: a subclass that keeps extra state has to define it")

    def set_extra_state(self, state: Any) -> None:
        raise RuntimeError("set_extra_state: a subclass that keeps extra state has to define it")

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy `state_dict` into this module in place; values are Tensors or anything NumPy reads.

        With `strict`, missing and unexpected keys raise a RuntimeError that names each; a wrong shape raises
        in any case, and then nothing is copied. `assign=True` takes the tensors themselves, dtype and device
        included.
        """
        return load(self, state_dict, strict, assign)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load this module's own tensors; the lists collect what is wrong."""
        for hook in self._load_state_dict_pre_hooks:
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        load_own(self, state_dict, prefix, local_metadata, missing_keys, unexpected_keys, error_msgs)

    # ---------------------------------------------------------------- hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args)` before `forward`; what it returns, if not None, replaces the arguments."""
        return add_hook(self._forward_pre_hooks, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """`hook(module, args, output)` after `forward`; what it returns, if not None, replaces the output.

        >>> from shared import nn, zeros
        >>> layer, shapes = nn.Linear(3, 2), []
        >>> handle = layer.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
        >>> _ = layer(zeros(4, 3))
        >>> handle.remove()
        >>> shapes
        [(4, 2)]
        """
        return add_hook(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` when the output's gradient is known; may return a replacement."""
        return add_hook(self._backward_pre_hooks, Hook(hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` when both are known; may return a new `grad_input`."""
        return add_hook(self._backward_hooks, Hook(hook), prepend)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return add_hook(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return add_hook(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return add_hook(self._load_state_dict_post_hooks, hook)

    # ---------------------------------------------------------------- printing

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets, for example `in_features=2, out_features=3, bias=True`."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({lines[0]})"
        if not lines and not children:
            return f"{self._get_name()}()"
        return self._get_name() + "(\n  " + "\n  ".join(lines + children) + "\n)"

    def __dir__(self) -> list[str]:
        names = chain(super().__dir__(), self._parameters, self._modules, self._buffers)
        return sorted({name for name in names if not name[0].isdigit()})


def indent(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *("  " + line if line.strip() else "" for line in rest)])


def _typename(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _parse_to(
    *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Any, np.dtype | None]:
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, np.dtype | type):
            dtype = arg
        elif arg is not None and not isinstance(arg, bool):
            device = arg
    return device, None if dtype is None else np.dtype(dtype)

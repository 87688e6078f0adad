"""Loading a state dict into a tree of modules: all of it, or an error that names every key, and nothing."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.autograd import no_grad
from shared.nn.parameter import Parameter
from shared.tensor import Tensor

if TYPE_CHECKING:
    from shared.nn.module import Module

EXTRA_STATE = "_extra_state"


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` returns: the keys that were missing and the keys it had no use for."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if any(self) else "<All keys matched successfully>"


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Collect what each module in the tree misses or refuses; copy only if nothing stands against it."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    state = OrderedDict(state_dict)  # a hook may change it
    keys = IncompatibleKeys([], [])
    errors: list[str] = []
    copies: list[Callable[[], Any]] = []

    local = {"assign_to_params_buffers": assign, "copies": copies}
    _visit(module, "", state, local, keys, errors)
    copy_or_refuse(type(module).__name__, keys if strict else IncompatibleKeys([], []), errors, copies)
    return keys


def _visit(
    module: Module, prefix: str, state: dict[str, Any], local: dict[str, Any], keys: IncompatibleKeys, errors: list[str]
) -> None:
    """No closure: one that calls itself is a cycle, which kept the weights in memory when the model was gone."""
    module._load_from_state_dict(state, prefix, dict(local), True, *keys, errors)
    for name, child in module._modules.items():
        if child is not None:
            _visit(child, f"{prefix}{name}.", state, local, keys, errors)
    for hook in module._load_state_dict_post_hooks:
        hook(module, keys)


def copy_or_refuse(name: str, keys: IncompatibleKeys, errors: list[str], copies: list[Callable[[], Any]]) -> None:
    """All or nothing: calls every function in `copies`, under `no_grad()`, or raises and calls none of them.

    It raises where `keys` has missing or unexpected keys, or where there are `errors` (sentences, for example on a
    shape that does not fit). The RuntimeError names the model's class, `name`, and every key, and has every error:

    >>> keys = IncompatibleKeys(["0.bias", "1.bias"], ["2.bias"])
    >>> copy_or_refuse("MLP", keys, [], [])  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    RuntimeError: Error(s) in loading state_dict for MLP:
        Missing key(s) in state_dict: "0.bias", "1.bias".
        Unexpected key(s) in state_dict: "2.bias".
    """
    complaints = list(errors)
    if keys.unexpected_keys:
        complaints.insert(0, f"Unexpected key(s) in state_dict: {_quoted(keys.unexpected_keys)}. ")
    if keys.missing_keys:
        complaints.insert(0, f"Missing key(s) in state_dict: {_quoted(keys.missing_keys)}. ")
    if complaints:
        raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {name}:", *complaints]))
    with no_grad():
        for copy in copies:
            copy()


def load_own(
    module: Module,
    state: dict[str, Any],
    prefix: str,
    local: dict[str, Any],
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """The part of `load` for the tensors of `module` itself; what `_load_from_state_dict` does by default."""
    own = module._own_state()
    for name, tensor in own.items():
        key = prefix + name
        if key not in state:
            missing.append(key)
            continue
        value, error = _fit(tensor, key, state[key])
        if error:
            errors.append(error)
        elif local["assign_to_params_buffers"]:
            local["copies"].append(partial(_assign, module, name, tensor, value))
        else:
            local["copies"].append(partial(tensor.copy_, value))
    extra = prefix + EXTRA_STATE
    if module._has_extra_state():
        if extra in state:
            local["copies"].append(partial(module.set_extra_state, state[extra]))
        else:
            missing.append(extra)
    for key in state:
        if key.startswith(prefix):
            name, dot, _ = key[len(prefix) :].partition(".")
            known = module._modules if dot else own
            if name not in known and not (key == extra and module._has_extra_state()):
                unexpected.append(key)


def _fit(tensor: Tensor, key: str, value: Any) -> tuple[Tensor | None, str | None]:
    """`value` as a Tensor of the shape of `tensor`, or the reason why it is none."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            return (
                None,
                f'While copying the parameter named "{key}", expected a Tensor but received {type(value)}',
            )
        value = Tensor(np.asarray(value))
    if tensor.array.shape == () and value.array.shape == (1,):
        value = value.reshape(())
    if value.array.shape != tensor.array.shape:
        return None, (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {tensor.shape}."
        )
    return value, None


def _assign(module: Module, name: str, old: Tensor, value: Tensor) -> None:
    if isinstance(old, Parameter):
        module._parameters[name] = Parameter(value, requires_grad=old.requires_grad)
    else:
        module._buffers[name] = value


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)

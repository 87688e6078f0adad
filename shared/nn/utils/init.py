"""Modules whose weights come from elsewhere."""

from __future__ import annotations

from typing import Any

from shared.grad_mode import modes


def skip_init(module_cls: type, *args: Any, **kwargs: Any) -> Any:
    """`module_cls(*args, **kwargs)` whose parameters hold whatever was in memory: nothing is drawn for them.

    For weights that are to be loaded. The functions of `nn.init` do nothing meanwhile, in this thread; what a module
    computes by itself (the table of a PositionalEncoding) is there. Memory is touched only when it is written to, and
    no generator moves on. RuntimeError for what is no Module.

    >>> from shared import nn
    >>> tuple(skip_init(nn.Linear, 3, 5).weight.shape)
    (5, 3)
    """
    from shared.nn.module import Module

    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"skip_init: expected a subclass of Module, but got {module_cls!r}")
    before, modes.init = modes.init, False
    try:
        return module_cls(*args, **kwargs)
    finally:
        modes.init = before

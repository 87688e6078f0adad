"""Everything a training depends on, in one checkpoint: interrupted and resumed it gives the same losses to the bit."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from shared import checkpoint
from shared.arrays.device import Device, cuda_is_available
from shared.arrays.random import Generator, get_states, set_states
from shared.nn import Module
from shared.optim import Optimizer
from shared.training.callback import Callback
from shared.training.history import History


def save_checkpoint(
    path: str | os.PathLike,
    model: Module,
    optimizer: Optimizer,
    epoch: int,
    *,
    scheduler: Any = None,
    history: History | None = None,
    loaders: Sequence[Iterable] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Writes the state of a training after `epoch` whole epochs to `path`, whole or not at all (`checkpoint.save`).

    It holds the states of model, optimizer, schedule, history and callbacks, and of every source of randomness:
    the framework's generators on every device, those of `loaders` and their samplers, Python's `random` and
    NumPy's `np.random`. The order in which a shuffling loader gives its examples follows from these. A generator
    that only a dataset or a function of one's own knows is not seen.
    """
    state = {
        "training": 1,  # the version of this layout
        "epoch": epoch,
        "kinds": _kinds(optimizer, scheduler, callbacks),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "history": dict(history) if history is not None else None,
        "callbacks": [callback.state_dict() for callback in callbacks],
        "random": _random_states(loaders),
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    checkpoint.save(state, path)


def load_checkpoint(
    path: str | os.PathLike,
    model: Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    history: History | None = None,
    loaders: Sequence[Iterable] = (),
    callbacks: Sequence[Callback] = (),
) -> int:
    """Restores what `save_checkpoint` wrote into objects made in the same way; returns the number of epochs done.

    The model may be on another device. Raises FileNotFoundError, `CheckpointError` for a file that is damaged or
    was not written by `save_checkpoint`, and RuntimeError or ValueError where the objects do not fit; then model
    and optimizer are as before.

    >>> import os, tempfile, shared
    >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
    >>> model = shared.nn.Linear(1, 1); optimizer = shared.optim.SGD(model.parameters())
    >>> start = load_checkpoint(path, model, optimizer) if os.path.exists(path) else 0
    >>> for epoch in range(start, 3):
    ...     save_checkpoint(path, model, optimizer, epoch + 1)
    >>> load_checkpoint(path, model, optimizer)
    3
    """
    state = checkpoint.load(path, map_location="cpu")
    if not isinstance(state, dict) or state.get("training") != 1:
        raise checkpoint.CheckpointError(f"{os.fspath(path)} was not written by save_checkpoint")
    _check_kinds(state["kinds"], _kinds(optimizer, scheduler, callbacks), path)
    generators = _generators(loaders)
    if len(generators) != len(state["random"]["loaders"]):
        raise ValueError(
            f"{os.fspath(path)} has the states of {len(state['random']['loaders'])} generators of the loaders, but "
            f"the loaders given have {len(generators)}"
        )
    before = deepcopy(model.state_dict())
    model.load_state_dict(state["model"])
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError:
        model.load_state_dict(before)
        raise
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    if history is not None:
        history.clear()
        history.update(state["history"] or {})
    for callback, saved in zip(callbacks, state["callbacks"], strict=True):
        callback.load_state_dict(saved)
    _restore_random(state["random"], generators)
    return state["epoch"]


# ---------------------------------------------------------------- randomness


def _random_states(loaders: Sequence[Iterable]) -> dict[str, Any]:
    return {
        "default": {str(device): state for device, state in get_states().items()},
        "loaders": [generator.get_state() for generator in _generators(loaders)],
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
    }


def _restore_random(states: dict[str, Any], generators: list[Generator]) -> None:
    set_states({Device(name): s for name, s in states["default"].items() if name == "cpu" or cuda_is_available()})
    for generator, state in zip(generators, states["loaders"], strict=True):
        generator.set_state(state)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def _generators(loaders: Sequence[Iterable]) -> list[Generator]:
    """The generators that loaders and their samplers have of their own, each once, in order."""
    found: dict[int, Generator] = {}
    for loader in loaders:
        batches = getattr(loader, "batch_sampler", None)
        for place in (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
            generator = getattr(place, "generator", None)
            if isinstance(generator, Generator):
                found[id(generator)] = generator
    return list(found.values())


# ---------------------------------------------------------------- does it fit


def _kinds(optimizer: Optimizer, scheduler: Any, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The classes of what is saved, by name."""
    return {
        "optimizer": type(optimizer).__name__,
        "scheduler": type(scheduler).__name__ if scheduler is not None else None,
        "callbacks": [type(callback).__name__ for callback in callbacks],
    }


def _check_kinds(saved: dict[str, Any], given: dict[str, Any], path: str | os.PathLike) -> None:
    for part, kind in saved.items():
        if kind != given[part]:
            raise ValueError(
                f"{os.fspath(path)} was written with {part} {kind}, but this training has {part} {given[part]}: make "
                f"the objects as they were, or start anew with another path"
            )

"""Everything a training depends on, in one checkpoint: interrupted and resumed it gives the same losses to the bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared import checkpoint
from shared.data.stateful import generators_of, places_of, random_states, restore_random_states
from shared.nn import Module
from shared.optim import Optimizer
from shared.training.callback import Callback
from shared.training.checkpoints import (
    KIND,
    MODEL,
    STATE,
    TRAINING,
    VERSION,
    entries,
    open_checkpoint,
    prune,
    read_state,
    write_checkpoint,
)
from shared.training.history import History


def save_checkpoint(
    folder: str | os.PathLike,
    model: Module,
    optimizer: Optimizer | None,
    step: int,
    *,
    scheduler: Any = None,
    scaler: Any = None,
    history: History | None = None,
    data: Iterable[Any] = (),
    callbacks: Sequence[Callback] = (),
    config: Any = None,
    value: float | None = None,
    keep_last: int | None = 2,
) -> Path:
    """Writes the state of a training after `step` steps to the folder `folder/step-00001000`; returns its path.

    In it are model.safetensors (the model's state dict, for any reader), training.safetensors (optimizer, schedule,
    scaler, history, callbacks, data and randomness), state.json (for people) and manifest.json. A save that fails or
    is killed, at any moment, leaves the checkpoints that were there. Of these the `keep_last` newest stay (None: all)
    and the one of smallest `value`, for example the validation loss.

    Of randomness it holds the framework's generators on every device, Python's `random`, NumPy's `np.random`, and what
    is in `data`: loaders and samplers with their generators, generators, anything with `state_dict` and
    `load_state_dict`, such as a `StatefulDataLoader`, which alone remembers its place within a pass. A generator
    that only a dataset or a function of one's own knows is not seen. `config` is a dict or dataclass of what JSON has.

    Raises OSError, which says why and what is still there, for a full disk or a folder that cannot be written;
    `CheckpointError` for a value that cannot be saved.
    """
    _check_numbers(step, keep_last)
    folder, data = os.fspath(folder), list(data)
    state = {
        "kind": KIND,
        "version": VERSION,
        "step": int(step),
        "number": 1 + max((entry.number for entry in entries(folder)), default=0),
        "value": float(value) if value is not None and math.isfinite(value) else None,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "parts": _kinds(optimizer, scheduler, scaler, callbacks),
        "config": as_json(config),
        "latest": {name: values[-1] for name, values in (history or {}).items() if _is_measured(values)},
        "versions": _versions(model),
    }
    training = _training_state(optimizer, scheduler, scaler, history, data, callbacks)
    path = write_checkpoint(folder, int(step), {MODEL: model.state_dict(), TRAINING: training, STATE: state})
    prune(folder, keep_last)
    return Path(path)


def load_checkpoint(
    folder: str | os.PathLike,
    model: Module,
    optimizer: Optimizer | None = None,
    *,
    scheduler: Any = None,
    scaler: Any = None,
    history: History | None = None,
    data: Iterable[Any] = (),
    callbacks: Sequence[Callback] = (),
    config: Any = None,
    which: str = "last",
) -> int:
    """Restores what `save_checkpoint` wrote into objects made in the same way; returns the number of steps done.

    `folder` has checkpoints, of which `which` says the one, or is one itself. The model may be on another device.
    Without `optimizer` only what is given is restored, and no randomness: for using a model. With it the parts have
    to be those that were saved. `config`, if given, has to be the one saved.

    Raises FileNotFoundError where there is no checkpoint; `CheckpointError` for one that is damaged or foreign, with
    the name of the file and of the newest intact checkpoint; ValueError or RuntimeError where the objects do
    not fit. Then model, optimizer and all else are as before.

    >>> import tempfile, shared
    >>> from shared.training import find_checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> model = shared.nn.Linear(1, 1); optimizer = shared.optim.SGD(model.parameters())
    >>> start = load_checkpoint(folder, model, optimizer) if find_checkpoint(folder) else 0
    >>> for step in range(start, 3):
    ...     path = save_checkpoint(folder, model, optimizer, step + 1, value=3.0 - step)
    >>> path.name, load_checkpoint(folder, model, optimizer)
    ('step-00000003', 3)
    """
    data, extras = list(data), (scheduler, scaler, history, *callbacks)
    whole = optimizer is not None
    files = (MODEL, TRAINING, STATE) if whole or data or any(e is not None for e in extras) else (MODEL, STATE)
    path = open_checkpoint(folder, which, files)
    state = read_state(path)
    _check_kinds(state["parts"], _kinds(optimizer, scheduler, scaler, callbacks), path, whole)
    _check_config(state["config"], as_json(config), path)
    with _AllOrNothing() as restoring:
        if TRAINING in files:
            training = checkpoint.load(os.path.join(path, TRAINING), map_location="cpu")
            _restore_parts(restoring, training, optimizer, {"scheduler": scheduler, "scaler": scaler}, callbacks)
            if history is not None:
                restoring.call(_refill, history, training["history"] or {}, before=dict(history))
            if data:
                _restore_data(restoring, data, training["data"], path)
            if whole:
                restoring.call(_restore_random, None, training["random"], before=random_states())
        weights = checkpoint.load(os.path.join(path, MODEL), map_location="cpu")
        model.load_state_dict(weights)  # all or nothing by itself, and the last
    return state["step"]


# ---------------------------------------------------------------- what is saved


def _check_numbers(step: Any, keep_last: Any) -> None:
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
        raise ValueError(f"step should be an int of at least 0, but got {step!r}")
    if keep_last is not None and (isinstance(keep_last, bool) or keep_last < 1):
        raise ValueError(f"keep_last should be None or at least 1, but got {keep_last!r}")


def _training_state(
    optimizer: Any, scheduler: Any, scaler: Any, history: Any, data: list[Any], callbacks: Sequence[Callback]
) -> dict[str, Any]:
    """Everything beside the model that the next step depends on."""
    return {
        "optimizer": _state_of(optimizer),
        "scheduler": _state_of(scheduler),
        "scaler": _state_of(scaler),
        "history": dict(history) if history is not None else None,
        "callbacks": [callback.state_dict() for callback in callbacks],
        "data": _data_states(data),
        "random": random_states(),
    }


def _state_of(part: Any) -> Any:
    return part.state_dict() if part is not None else None


def _data_states(data: list[Any]) -> dict[str, list]:
    """The states of everything in `data` that has one, in order, and of the generators it draws from."""
    return {
        "states": [place.state_dict() for place in _stateful(data)],
        "generators": [generator.get_state() for generator in generators_of(data)],
    }


def _stateful(data: list[Any]) -> list[Any]:
    places = places_of(data)
    return [place for place in places if hasattr(place, "state_dict") and hasattr(place, "load_state_dict")]


def as_json(config: Any) -> Any:
    """A config as it comes back from JSON: dataclasses become dicts, tuples lists, paths strings.

    >>> from pathlib import Path
    >>> as_json({"betas": (0.9, 0.95), "out": Path("run")})
    {'betas': [0.9, 0.95], 'out': 'run'}
    """

    def default(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError

    try:
        return json.loads(json.dumps(config, default=default))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config should have numbers, strings, lists, dicts and dataclasses alone, as JSON has, but got {config!r}"
        ) from error


def _is_measured(values: Any) -> bool:
    """Whether the last of `values` is a number that JSON has."""
    return (
        isinstance(values, list) and bool(values) and isinstance(values[-1], (int, float)) and math.isfinite(values[-1])
    )


def _versions(model: Module) -> dict[str, str]:
    """What the bits of a resumed training depend on besides the checkpoint."""
    first = next(iter(model.parameters()), None)
    return {
        "shared": sys.modules["shared"].__version__,  # two floors up, so not imported
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": str(first.device) if first is not None else "cpu",
    }


# ---------------------------------------------------------------- what is restored


class _AllOrNothing:
    """Loads one state after another; if anything raises within the block, what was loaded is undone."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], Any]] = []

    def __enter__(self) -> _AllOrNothing:
        return self

    def load(self, part: Any, state: Any, before: Any = None) -> None:
        """`part.load_state_dict(state)`; `before` is the state to go back to, else a copy of the present one."""
        before = deepcopy(part.state_dict()) if before is None else before
        self.undo.append(lambda: part.load_state_dict(before))
        part.load_state_dict(state)

    def call(self, function: Callable[[Any, Any], Any], part: Any, state: Any, before: Any) -> None:
        self.undo.append(lambda: function(part, before))
        function(part, state)

    def __exit__(self, kind: Any, *rest: object) -> None:
        if kind is not None:
            for step in reversed(self.undo):
                with contextlib.suppress(Exception):  # a part that cannot go back keeps none of the others from it
                    step()


def _restore_parts(
    restoring: _AllOrNothing, training: dict[str, Any], optimizer: Any, parts: dict[str, Any], callbacks: Sequence
) -> None:
    if optimizer is not None:  # its state is replaced, not written to: the old one needs no copy
        restoring.load(optimizer, training["optimizer"], before=optimizer.state_dict())
    for name, part in parts.items():
        if part is not None:
            restoring.load(part, training[name])
    for callback, saved in zip(callbacks, training["callbacks"] if callbacks else [], strict=True):
        restoring.load(callback, saved)


def _refill(history: dict, content: Mapping) -> None:
    history.clear()
    history.update(content)


def _restore_random(_: None, states: dict[str, Any]) -> None:
    restore_random_states(states)


def _restore_data(restoring: _AllOrNothing, data: list[Any], saved: dict[str, list], path: str) -> None:
    """Gives the parts of `data` their states; ValueError where they are not as many as were saved."""
    stateful, generators = _stateful(data), generators_of(data)
    for kind, found in (("states", stateful), ("generators", generators)):
        if len(found) != len(saved[kind]):
            raise ValueError(
                f"{path} has {len(saved[kind])} {kind} of the data, but the data given has {len(found)}: give loaders, "
                f"samplers and generators as they were"
            )
    for place, state in zip(stateful, saved["states"], strict=True):
        restoring.load(place, state)
    for generator, state in zip(generators, saved["generators"], strict=True):
        restoring.call(lambda g, s: g.set_state(s), generator, state, before=generator.get_state())


def _kinds(optimizer: Any, scheduler: Any, scaler: Any, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The classes of what is saved, by name."""
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    kinds = {name: type(part).__name__ if part is not None else None for name, part in parts.items()}
    return {**kinds, "callbacks": [type(callback).__name__ for callback in callbacks]}


def _check_kinds(saved: dict[str, Any], given: dict[str, Any], path: str, whole: bool) -> None:
    """Raises where a part that is given, or with `whole` one that is saved, is of another class than the saved one."""
    for part, kind in saved.items():
        if kind != given[part] and (whole or given[part]):
            raise ValueError(
                f"{path} was written with {part} {kind}, but this training has {part} {given[part]}: make the objects "
                f"as they were, or start anew in another folder"
            )


def _check_config(saved: Any, given: Any, path: str) -> None:
    if given is None or given == saved:
        return
    pairs: dict[str, tuple] = {"config": (saved, given)}
    if isinstance(saved, dict) and isinstance(given, dict):
        names = [*saved, *(name for name in given if name not in saved)]
        pairs = {name: (saved.get(name), given.get(name)) for name in names}
    different = [f"{name}: {a!r} there, {b!r} here" for name, (a, b) in pairs.items() if a != b]
    raise ValueError(f"{path} was written with another config ({'; '.join(different)}): use it, or another folder")

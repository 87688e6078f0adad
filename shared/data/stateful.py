"""Where data is: the states of everything that draws random numbers, and a loader that knows its place in a pass."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from shared.arrays.device import Device, cuda_is_available
from shared.arrays.random import Generator, get_states, set_states
from shared.data.dataset import IterableDataset
from shared.data.loader import DataLoader, InProcessIterator

T = TypeVar("T", covariant=True)


def random_states() -> dict[str, Any]:
    """The states of the framework's generators on every device, of Python's `random` and of NumPy's `np.random`."""
    return {
        "default": {str(device): state for device, state in get_states().items()},
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Puts back what `random_states` returned; devices that this machine lacks are left out.

    >>> states = random_states(); number = random.random()
    >>> restore_random_states(states); random.random() == number
    True
    """
    set_states({Device(name): s for name, s in states["default"].items() if name == "cpu" or cuda_is_available()})
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def places_of(data: Iterable[Any]) -> list[Any]:
    """Loaders, samplers and whatever else is in `data`, with the samplers inside the loaders, each once, in order."""
    found: dict[int, Any] = {}
    for item in data:
        batches = getattr(item, "batch_sampler", None)
        for place in (item, getattr(item, "sampler", None), batches, getattr(batches, "sampler", None)):
            if place is not None:
                found[id(place)] = place
    return list(found.values())


def generators_of(data: Iterable[Any]) -> list[Generator]:
    """The generators in `data`, and those that its loaders and samplers have of their own, each once, in order."""
    found: dict[int, Generator] = {}
    for place in places_of(data):
        for candidate in (place, getattr(place, "generator", None)):
            if isinstance(candidate, Generator):
                found[id(candidate)] = candidate
    return list(found.values())


class StatefulDataLoader(DataLoader[T]):
    """A DataLoader that can be stopped within a pass: `state_dict()` has its place, `load_state_dict` goes there.

    Named after torchdata's. After `load_state_dict` the next pass is the rest of the one that was under way, with the
    same order. A pass that was left early counts as under way until the next begins. The batches before the place are
    counted off without making them, where there are no workers and the dataset is not a stream. What a dataset
    draws comes from the generators, whose states a checkpoint has besides.

    >>> import shared
    >>> _ = shared.manual_seed(0)
    >>> loader = StatefulDataLoader(range(6), shuffle=True)
    >>> numbers = iter(loader)
    >>> _ = next(numbers), next(numbers)
    >>> state = loader.state_dict(); rest = [batch.item() for batch in numbers]
    >>> again = StatefulDataLoader(range(6), shuffle=True)
    >>> again.load_state_dict(state); [batch.item() for batch in again] == rest
    True
    """

    _start: dict[str, Any] | None = None  # every source of randomness as the pass under way began; None: there is none
    _given = 0  # batches handed out in that pass
    _loaded = False  # the next pass is the rest of that one

    def __iter__(self) -> Iterator[T]:
        if not self._loaded:
            self._start, self._given = self._sources(), 0
            return _Counting(self, DataLoader.__iter__(self))
        self._loaded = False
        now = self._sources()
        self._restore(self._start)
        batches: Any = DataLoader.__iter__(self)
        indices_alone = isinstance(batches, InProcessIterator) and not isinstance(self.dataset, IterableDataset)
        for _ in range(self._given):
            next(batches.indices if indices_alone else batches)
        self._restore(now)
        return _Counting(self, batches)

    def state_dict(self) -> dict[str, Any]:
        """The place in the pass under way; small, whatever the dataset."""
        own = [generator.get_state() for generator in generators_of([self])]
        return {"given": self._given, "start": self._start, "generators": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned, of a loader made in the same way."""
        own = generators_of([self])
        if len(own) != len(state_dict["generators"]):
            raise ValueError(
                f"this loader has {len(own)} generators of its own, but the state is of one with "
                f"{len(state_dict['generators'])}"
            )
        for generator, state in zip(own, state_dict["generators"], strict=True):
            generator.set_state(state)
        self._given, self._start = state_dict["given"], state_dict["start"]
        self._loaded = self._start is not None

    def _sources(self) -> dict[str, Any]:
        return {"all": random_states(), "own": [generator.get_state() for generator in generators_of([self])]}

    def _restore(self, sources: dict[str, Any]) -> None:
        restore_random_states(sources["all"])
        for generator, state in zip(generators_of([self]), sources["own"], strict=True):
            generator.set_state(state)


class _Counting:
    """One pass, whose loader knows how far it is."""

    def __init__(self, loader: StatefulDataLoader, batches: Any):
        self.loader, self.batches, self.start = loader, batches, loader._start

    def __iter__(self) -> _Counting:
        return self

    def __next__(self) -> Any:
        under_way = self.loader._start is self.start  # and no other pass has begun since
        try:
            batch = next(self.batches)
        except StopIteration:
            if under_way:
                self.loader._start, self.loader._given = None, 0
            raise
        if under_way:
            self.loader._given += 1
        return batch

    def __len__(self) -> int:
        return len(self.batches)

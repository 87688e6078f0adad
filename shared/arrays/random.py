"""Random numbers: one generator per device, seeded together; states that can be saved and restored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from shared.arrays.device import Device, module_for


def _encode(state: dict) -> np.ndarray:
    return np.frombuffer(json.dumps(state).encode(), dtype=np.uint8).copy()


def _decode(state: Any) -> dict:
    try:
        return json.loads(bytes(np.asarray(state, dtype=np.uint8)).decode())
    except ValueError as error:
        raise RuntimeError("this is not a random state: expected the uint8 array that get_state() returned") from error


class Generator:
    """A stream of random numbers on one device.

    On the CPU the stream is NumPy's PCG64. On a GPU every draw starts a Philox stream from (seed, draw number),
    so that the state is two integers and can be saved.

    >>> g = Generator().manual_seed(0)
    >>> state = g.get_state(); a = g.rng.random()
    >>> g.set_state(state); a == g.rng.random()
    True
    """

    def __init__(self, device: str | Device = "cpu"):
        self.device = Device(device)
        self.manual_seed(np.random.SeedSequence().entropy % 2**63)

    def manual_seed(self, seed: int) -> Generator:
        """Restarts the stream from `seed` (any Python int; negative ones are taken modulo 2**64)."""
        self._seed = int(seed) % 2**64
        self._draws = 0
        self._numpy = np.random.Generator(np.random.PCG64(self._seed))
        return self

    def seed(self) -> int:
        """Restarts the stream from a seed the operating system gives; returns it."""
        self.manual_seed(np.random.SeedSequence().entropy % 2**63)
        return self._seed

    def initial_seed(self) -> int:
        """The seed the stream was last started from."""
        return self._seed

    @property
    def rng(self) -> Any:
        """The array module's own generator (`numpy.random.Generator` or `cupy.random.Generator`)."""
        if self.device.type == "cpu":
            return self._numpy
        cupy = module_for(self.device)
        return cupy.random.Generator(cupy.random.Philox4x3210(self.draw_seed()))

    def draw_seed(self) -> int:
        """64 random bits, from which a kernel makes numbers of its own; taken on the CPU, whatever the device."""
        if self.device.type == "cpu":
            return int(self._numpy.integers(2**64, dtype=np.uint64))
        self._draws += 1
        return int(np.random.SeedSequence((self._seed, self._draws)).generate_state(1, np.uint64)[0])

    def get_state(self) -> np.ndarray:
        """The state as a uint8 array."""
        numpy_state = self._numpy.bit_generator.state if self.device.type == "cpu" else None
        return _encode({"seed": self._seed, "draws": self._draws, "numpy": numpy_state})

    def set_state(self, state: Any) -> None:
        """Restores a state that `get_state` returned."""
        values = _decode(state)
        self._seed, self._draws = values["seed"], values["draws"]
        if values["numpy"] is not None:
            self._numpy.bit_generator.state = values["numpy"]


_defaults: dict[Device, Generator] = {}
_last_seed: int | None = None


def default_generator(device: str | Device = "cpu") -> Generator:
    """The generator that functions use when none is passed."""
    key = Device(device)
    if key not in _defaults:
        _defaults[key] = Generator(key)
        if _last_seed is not None:
            _defaults[key].manual_seed(_last_seed)
    return _defaults[key]


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator of every device; returns the CPU's."""
    global _last_seed
    _last_seed = int(seed)
    for generator in _defaults.values():
        generator.manual_seed(seed)
    return default_generator("cpu")


def initial_seed() -> int:
    """The seed of the CPU's default generator."""
    return default_generator("cpu").initial_seed()


def get_rng_state() -> np.ndarray:
    """The state of the CPU's default generator, a uint8 array."""
    return default_generator("cpu").get_state()


def set_rng_state(state: Any) -> None:
    """Restores the CPU's default generator."""
    default_generator("cpu").set_state(state)


def get_states() -> dict[Device, np.ndarray]:
    """The states of every device's default generator."""
    default_generator("cpu")
    return {device: generator.get_state() for device, generator in _defaults.items()}


def set_states(states: dict[Device, np.ndarray]) -> None:
    """Restores what `get_states` returned."""
    for device, state in states.items():
        default_generator(device).set_state(state)

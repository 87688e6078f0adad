"""Mixed precision: products in sixteen bits, the rest in float32, and losses scaled so that gradients do not vanish.

Parameters stay float32, and so do their gradients and what the optimizer keeps: only the copies that products read are
short. float16 has few exponents: gradients below 6e-8 become 0, which `GradScaler` prevents; bfloat16 needs none.

Source: Micikevicius et al., "Mixed precision training", 2018.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from shared.arrays import device, dtypes
from shared.arrays.device import xp
from shared.arrays.kernels import optim as kernel
from shared.autocast_mode import (
    DEFAULTS,
    Region,
    clear_autocast_cache,
    get_autocast_dtype,
    is_autocast_available,
    is_autocast_cache_enabled,
    is_autocast_enabled,
    mode,
)
from shared.ops.creation import full
from shared.optim import Optimizer
from shared.tensor import Tensor

__all__ = [
    "GradScaler",
    "autocast",
    "clear_autocast_cache",
    "get_autocast_dtype",
    "is_autocast_available",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
]

LOWER = (dtypes.bfloat16, dtypes.float16)


class autocast:
    """In a `with` block, or in the calls of a decorated function, operations choose the dtype they compute in.

    On tensors of `device_type` ("cuda" or "cpu") matrix products, convolutions and attention compute in `dtype`
    (bfloat16, or float16, the default on "cuda"), losses in float32, on "cuda" also softmax, norms, sums and powers;
    the others in the dtype of what they get. `shared.ops.autocast.POLICIES` has the lists. float64 stays as it is.
    Regions nest; `enabled=False` switches autocast off inside. The cast of a weight is kept until the outermost region
    is left, if `cache_enabled`. Only the forward pass belongs inside: backward has the dtypes of the forward.
    Errors: RuntimeError for another device type, TypeError for no dtype; a warning, and no autocast, for another dtype
    and where there is no GPU.

    >>> import shared
    >>> weight = shared.ones(2, 2, requires_grad=True)
    >>> with shared.autocast("cpu", dtype=shared.bfloat16):
    ...     out = shared.ones(1, 2) @ weight
    >>> out.sum().backward()
    >>> out, weight.grad.dtype.name
    (tensor([[2., 2.]], dtype=shared.bfloat16, grad_fn=<MatMulBackward0>), 'float32')
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None):
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if not is_autocast_available(device_type):
            known = " and ".join(map(repr, DEFAULTS))
            raise RuntimeError(
                f"User specified an unsupported autocast device_type {device_type!r}; there is autocast for {known}"
            )
        self.device_type = device_type
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else dtypes.as_dtype(dtype)
        self.enabled = bool(enabled) and self._possible()
        self.cache_enabled = cache_enabled
        self.regions: list[Region] = []

    def _possible(self) -> bool:
        """False, with a warning, where there is no GPU to cast for, or nothing gained by the dtype."""
        if self.device_type == "cuda" and not device.cuda_is_available():
            warnings.warn("CUDA is not available. Disabling autocast.", stacklevel=3)
            return False
        if self.fast_dtype not in LOWER:
            lower = ", ".join(dtype.name for dtype in LOWER)
            warnings.warn(
                f"In {self.device_type.upper()} autocast, but the target dtype {self.fast_dtype.name} is not "
                f"supported. Disabling autocast. It only supports dtypes of {lower}.",
                stacklevel=3,
            )
            return False
        return True

    def __enter__(self) -> autocast:
        chosen = {name: dtype for name, dtype in mode.dtypes.items() if name != self.device_type}
        if self.enabled:
            chosen[self.device_type] = self.fast_dtype
        keep = mode.cache_enabled if self.cache_enabled is None else self.cache_enabled
        region = Region(chosen, keep)
        region.__enter__()
        self.regions.append(region)
        return self

    def __exit__(self, *exc: object) -> None:
        self.regions.pop().__exit__(*exc)

    def __call__(self, function: Callable) -> Callable:
        if not callable(function):
            raise TypeError(f"autocast()(function) requires a callable, but got {type(function).__name__}")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped


class GradScaler:
    """Multiplies the loss, and divides the gradients again before the step: small gradients survive float16.

    `scale(loss).backward()`, `step(optimizer)`, `update()`, in this order in every iteration. A gradient that is
    infinite or NaN was too large: then `step` leaves the optimizer alone, and `update` multiplies the scale by
    `backoff_factor`. After `growth_interval` steps without, it multiplies it by `growth_factor`. `unscale_(optimizer)`
    before `step` gives the true gradients, for clipping. With `enabled=False`, and on "cuda" without a GPU, everything
    passes through. On a GPU `step` waits for one number; nothing else waits.

    >>> import shared
    >>> w = shared.tensor([1.0], requires_grad=True)
    >>> optimizer, scaler = shared.optim.SGD([w], lr=0.5), GradScaler("cpu", init_scale=4.0)
    >>> scaler.scale((w * shared.inf).sum()).backward()
    >>> scaler.step(optimizer); scaler.update(); w, scaler.get_scale()       # nothing but a smaller scale
    (tensor([1.], requires_grad=True), 2.0)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        if device.partition(":")[0] not in DEFAULTS:
            raise RuntimeError(f"GradScaler: unsupported device {device!r}; expected one of {', '.join(DEFAULTS)}")
        self._enabled = enabled and _has(device)
        if enabled and not self._enabled:
            warnings.warn(f"GradScaler is enabled, but {device.upper()} is not available. Disabling.", stacklevel=2)
        if self._enabled and growth_factor <= 1.0:
            raise AssertionError(f"The growth factor must be > 1.0, but got {growth_factor}.")
        if self._enabled and backoff_factor >= 1.0:
            raise AssertionError(f"The backoff factor must be < 1.0, but got {backoff_factor}.")
        self._scale = float(init_scale)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._used = False  # whether something was scaled since the scaler was made
        self._found: dict[int, list[Any]] = defaultdict(list)  # per optimizer and device: whether all was finite
        self._stepped: set[int] = set()

    # ------------------------------------------------------------ one iteration

    def scale(self, outputs: Any) -> Any:
        """`outputs`, a Tensor or lists or tuples of them, times the scale: of a float16 number a float32 number."""
        if not self._enabled:
            return outputs
        self._used, self._scale = True, _float32(self._scale)
        if isinstance(outputs, Tensor):
            return outputs * full((), self._scale, dtype=dtypes.float32, device=outputs.device)
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(x) for x in outputs])
        raise ValueError(f"outputs must be a Tensor or an iterable of Tensors, but got {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, once before `step`.

        RuntimeError for a second time; ValueError for float16 gradients: the parameters are to be float32.
        """
        if not self._enabled:
            return
        self._check_used("unscale_")
        if id(optimizer) in self._stepped:
            raise RuntimeError("unscale_() is being called after step().")
        if id(optimizer) in self._found:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(grad.array.dtype == dtypes.float16 for grad in grads):
            raise ValueError("Attempting to unscale FP16 gradients.")
        by_device: dict[Any, list[Tensor]] = defaultdict(list)
        for grad in grads:
            by_device[grad.device].append(grad)
        factor = _float32(1.0 / self._scale) if self._scale else math.inf
        self._found[id(optimizer)] = [unscale(group, factor) for group in by_device.values()]

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(*args, **kwargs)` on the true gradients, or nothing where one of them is not finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._check_used("step")
        if id(optimizer) in self._stepped:
            raise RuntimeError("step() has already been called since the last update().")
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        found = self._found[id(optimizer)]
        if not found:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        finite = self._found[id(optimizer)] = [bool(x) for x in found]  # here the GPU is waited for
        self._stepped.add(id(optimizer))
        return optimizer.step(*args, **kwargs) if all(finite) else None

    def update(self, new_scale: Any = None) -> None:
        """The scale of the next iteration, from what the steps of this one found, or `new_scale`."""
        if not self._enabled:
            return
        self._check_used("update")
        found = [bool(x) for finite in self._found.values() for x in finite]
        if new_scale is not None:
            self._scale = _float32(float(new_scale))
        elif not found:
            raise AssertionError("No inf checks were recorded prior to update.")
        else:
            self._adapt(all(found))
        self._found.clear()
        self._stepped.clear()

    def _adapt(self, finite: bool) -> None:
        """Shrinks the scale after an iteration with an infinite or NaN gradient, grows it after many without."""
        self._growth_tracker = self._growth_tracker + 1 if finite else 0
        if not finite:
            self._scale = _float32(self._scale * self._backoff_factor)
        elif self._growth_tracker == self._growth_interval:
            self._growth_tracker = 0
            grown = _float32(self._scale * self._growth_factor)
            self._scale = grown if np.isfinite(grown) else self._scale

    def _check_used(self, name: str) -> None:
        if not self._used:
            raise AssertionError(
                f"Attempted {name} but _scale is None.  This may indicate your script did not use scaler.scale(loss or "
                f"outputs) earlier in the iteration."
            )

    # ------------------------------------------------------------ its numbers

    def is_enabled(self) -> bool:
        """False where everything passes through."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1.0 where everything passes through."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """Its numbers under PyTorch's keys, to be taken after `update`; empty where everything passes through."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; RuntimeError for that of a scaler that was not enabled."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        missing = self.state_dict().keys() - state_dict.keys()
        if missing:
            raise KeyError(f"GradScaler.load_state_dict: {', '.join(sorted(missing))} missing")
        for key in self.state_dict():
            setattr(self, "_" + key.removeprefix("_"), state_dict[key])


def unscale(grads: list[Tensor], factor: float) -> Any:
    """Multiplies gradients on one device by `factor`, in place; whether all were finite, as an array of one bool.

    The sums of squares, in float64, tell: one of float32 numbers cannot overflow. They are all that is read of a
    gradient besides the product, and nothing is fetched from a GPU.
    """
    arrays = [grad.array for grad in grads]
    short = [a for a in arrays if a.dtype != dtypes.float64]
    sums = [kernel.squares(short)] if short else []
    module = xp(arrays[0])
    finite = module.isfinite(module.concatenate(sums)).all() if sums else module.asarray(True)
    for a in arrays:
        if a.dtype == dtypes.float64:
            finite = finite & module.isfinite(a).all()
    for grad in grads:
        grad._version[0] += 1
    if factor != 1.0:
        kernel.scale_all(arrays, factor)
    return finite


def _has(device_type: str) -> bool:
    return not device_type.startswith("cuda") or device.cuda_is_available()


def _float32(x: float) -> float:
    """`x` rounded to float32, as PyTorch's scale is; infinite beyond its range."""
    with np.errstate(over="ignore"):
        return float(np.float32(x))

"""How a language model is trained: every number of it in one place, checked, and readable from a TOML file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from shared.nn import Module
from shared.optim import Optimizer

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LMConfig:
    """The settings of one training of a language model; the defaults are nanoGPT's for a small model on a CPU.

    An update looks at `accumulation` times `batch_size` windows of `block_size` tokens (None: the model's own), one
    `batch_size` after the other. Intervals and `steps` count updates; an interval of 0 means never. `eval_batches` are
    the batches a loss is measured on, None the whole validation text. Training ends after `steps` updates, or earlier:
    after `time_budget` seconds, after `token_budget` tokens (the schedule then falls to its end there), or when
    `patience` measurements in a row were no better than the best before.
    ValueError that names the field, for what no training can be made of.

    >>> LMConfig(steps=500, batch_size=4, accumulation=8).windows_per_step
    32
    >>> LMConfig(warmup_steps=9, steps=5)
    Traceback (most recent call last):
    ...
    ValueError: LMConfig: warmup_steps should be below steps, but got warmup_steps=9 and steps=5
    """

    steps: int = 2000
    batch_size: int = 12
    block_size: int | None = None
    accumulation: int = 1

    max_lr: float = 1e-3
    min_lr: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # the largest norm of all gradients together; 0 leaves them as they are

    eval_interval: int = 250
    eval_batches: int | None = 20
    checkpoint_interval: int = 250
    keep_last: int = 2
    sample_interval: int = 0
    sample_tokens: int = 200
    prompt: str = "\n"
    temperature: float = 0.8
    top_k: int | None = None

    seed: int = 1337
    dtype: str = "float32"  # of the products: "bfloat16" and "float16" keep float32 weights beside them

    time_budget: float | None = None  # seconds, those before a resume included
    token_budget: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.betas, list):  # as TOML and JSON have it
            object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch_size", "accumulation", "keep_last", "sample_tokens"):
            self._require(name, _is_int(getattr(self, name)) and getattr(self, name) >= 1, "an int of at least 1")
        for name in ("block_size", "eval_batches", "token_budget", "patience", "top_k"):
            value = getattr(self, name)
            self._require(name, value is None or _is_int(value) and value >= 1, "None or an int of at least 1")
        for name in ("warmup_steps", "eval_interval", "checkpoint_interval", "sample_interval", "seed"):
            self._require(name, _is_int(getattr(self, name)) and getattr(self, name) >= 0, "an int of at least 0")
        for name in ("min_lr", "weight_decay", "clip", "temperature"):
            self._require(name, _is_number(getattr(self, name)) and getattr(self, name) >= 0, "a number of at least 0")
        self._require("max_lr", _is_number(self.max_lr) and self.max_lr >= self.min_lr, "a number of at least min_lr")
        self._require("max_lr", self.max_lr > 0, "a number above 0")
        two = isinstance(self.betas, tuple) and len(self.betas) == 2
        two = two and all(_is_number(beta) and 0 <= beta < 1 for beta in self.betas)
        self._require("betas", two, "two numbers from 0 to below 1")
        budget = self.time_budget
        self._require("time_budget", budget is None or _is_number(budget) and budget > 0, "None or seconds above 0")
        self._require("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        self._require("prompt", isinstance(self.prompt, str) and self.prompt, "a string with something in it")
        if self.patience is not None and self.eval_interval == 0:
            raise ValueError(
                f"LMConfig: patience={self.patience} counts measurements, but with eval_interval=0 there are none"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"LMConfig: warmup_steps should be below steps, but got warmup_steps={self.warmup_steps} and "
                f"steps={self.steps}"
            )

    def _require(self, name: str, fits: Any, expected: str) -> None:
        if not fits:
            raise ValueError(f"LMConfig: {name} should be {expected}, but got {getattr(self, name)!r}")

    @property
    def windows_per_step(self) -> int:
        """How many windows one update is made from."""
        return self.batch_size * self.accumulation

    def planned_steps(self, tokens_per_step: int) -> int:
        """`steps`, or as many as `token_budget` allows, at least one.

        >>> LMConfig(steps=500, token_budget=10_000).planned_steps(tokens_per_step=32)
        312
        """
        if self.token_budget is None:
            return self.steps
        return max(1, min(self.steps, self.token_budget // tokens_per_step))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LMConfig:
        """From names and values; ValueError for a name there is none of, with the one that was probably meant."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                meant = difflib.get_close_matches(name, known, 1)
                raise ValueError(
                    f"LMConfig: there is no setting {name!r}"
                    + (f"; did you mean {meant[0]!r}?" if meant else f"; there are {', '.join(known)}")
                )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | os.PathLike, table: str = "training", **changes: Any) -> LMConfig:
        """The table `[training]` of a TOML file, with some settings changed.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "small.toml")
        >>> with open(path, "w") as file: _ = file.write("[training]\\nsteps = 300\\nmax_lr = 3e-3")
        >>> LMConfig.from_toml(path, seed=7).max_lr
        0.003
        """
        import tomllib

        with open(path, "rb") as file:
            try:
                content = tomllib.load(file)
            except tomllib.TOMLDecodeError as error:
                raise ValueError(f"{os.fspath(path)} is not valid TOML: {error}") from error
        if not isinstance(content.get(table), dict):
            raise ValueError(f"{os.fspath(path)} has no table [{table}]")
        return cls.from_dict(content[table] | changes)

    def to_dict(self) -> dict[str, Any]:
        """Names and values, as `from_dict` takes them."""
        return asdict(self)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0  # finite


# ---------------------------------------------------------------- what it means for a model


def block_size_of(model: Module, config: LMConfig) -> int:
    """How many tokens a window has: what the config says, else the model's; ValueError where neither or too many."""
    largest = getattr(getattr(model, "config", None), "block_size", None)
    if config.block_size is None and largest is None:
        raise ValueError("LMConfig: block_size should say how long windows are, since the model has no config with one")
    if config.block_size is not None and largest is not None and config.block_size > largest:
        raise ValueError(f"LMConfig: block_size={config.block_size}, but the model sees no more than {largest} tokens")
    return config.block_size or largest


def optimizer_of(model: Any, config: LMConfig) -> Optimizer:
    """The model's own choice, with the config's numbers."""
    if not hasattr(model, "configure_optimizers"):
        raise ValueError(f"{type(model).__name__} has no configure_optimizers(): give Trainer an optimizer")
    return model.configure_optimizers(lr=config.max_lr, weight_decay=config.weight_decay, betas=config.betas)


def scaler_of(model: Module, config: LMConfig) -> Any:
    """A GradScaler for float16, which has so few exponents that small gradients vanish without; else None."""
    if config.dtype != "float16":
        return None
    from shared.amp import GradScaler

    return GradScaler(device_of(model).type)


def device_of(model: Module) -> Any:
    """Where the model's parameters are."""
    return next(iter(model.parameters())).device

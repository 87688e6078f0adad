"""How to continue a text: the settings, their order of application, and the choice of a token."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.arrays.dtypes import bfloat16, float16
from shared.generation import processors
from shared.nn import functional as F
from shared.ops import multinomial
from shared.tensor import Tensor


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of a generation, for all its texts; `processors` explains those that change logits.

    `max_new_tokens` is how many tokens are written at most. `temperature` 0 takes the likeliest token each time; else
    tokens are drawn, and `top_k`, `top_p` and `min_p`, if given, limit which. The penalties, `no_repeat_ngram_size`
    (0 is off) and `logit_bias` {id: number} hold with and without draws. A text ends with one of `stop_tokens` (ids),
    or before one of `stop_strings`; a single one may be given as it is, several as list, tuple or set, and both become
    tuples. `seed` makes the draws repeatable. `dataclasses.replace` changes some. ValueError that names field and value
    for what makes no sense.

    >>> GenerationConfig(top_p=1.5)
    Traceback (most recent call last):
    ...
    ValueError: GenerationConfig: top_p should be None or a number above 0 and at most 1, but got 1.5
    >>> GenerationConfig(stop_strings="The end").stop_strings
    ('The end',)
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    stop_tokens: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (expected, fits) in RULES.items():
            if not fits(value := getattr(self, name)):
                raise ValueError(f"GenerationConfig: {name} should be {expected}, but got {value!r}")
        # copies, which whoever made the config cannot change behind its back
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        for name, one in (("stop_tokens", int), ("stop_strings", str)):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, one) else tuple(value))


def is_int(value: Any, least: float = -math.inf) -> bool:
    """True for an int of at least `least`, which True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """True for a finite int or float; no float is as large as some ints are."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_bias(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(is_int(token, 0) for token in value):
        return False
    return all(is_number(bias) or bias == -math.inf for bias in value.values())


def _are(kind: type, value: Any) -> bool:
    """True for an id (`kind` int) or a string that is not empty (str), and for a list, tuple or set of them."""
    values: Iterable[Any] = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return all(is_int(v, 0) if kind is int else isinstance(v, str) and v != "" for v in values)


RULES = {  # field: what is expected, and whether a value is that
    "max_new_tokens": ("an int of at least 0", lambda v: is_int(v, 0)),
    "temperature": ("a finite number of at least 0", lambda v: is_number(v) and v >= 0),
    "top_k": ("None or an int of at least 1", lambda v: v is None or is_int(v, 1)),
    "top_p": ("None or a number above 0 and at most 1", lambda v: v is None or is_number(v) and 0 < v <= 1),
    "min_p": ("None or a number from 0 to 1", lambda v: v is None or is_number(v) and 0 <= v <= 1),
    "repetition_penalty": ("a finite number above 0", lambda v: is_number(v) and v > 0),
    "presence_penalty": ("a finite number", is_number),
    "frequency_penalty": ("a finite number", is_number),
    "no_repeat_ngram_size": ("an int of at least 0", lambda v: is_int(v, 0)),
    "logit_bias": ("a dict from ids of at least 0 to numbers, finite or -inf", _is_bias),
    "stop_tokens": ("ids of at least 0", lambda v: _are(int, v)),
    "stop_strings": ("strings that are not empty", lambda v: _are(str, v)),
    "seed": ("None or an int", lambda v: v is None or is_int(v)),
}


def process(logits: Tensor, seen: processors.Rows, new: processors.Rows, config: GenerationConfig) -> Tensor:
    """The model's logits (B, V) → those that a token is chosen from, after all that `config` switches on.

    In this order, that of Hugging Face's transformers: logit bias, repetition penalty, (presence, frequency, which it
    does not have,) n-grams; and where tokens are drawn, temperature, top-k, top-p, min-p. So penalties do not depend on
    the temperature, and what top-p keeps does. Each of the last three sees what those before it left, renormalised.
    `seen` and `new` are B lists of ids each: the whole text of a row, and its new tokens. Logits of 16 bits become
    float32 first: rounded to theirs, a small penalty would be none.

    >>> from shared.ops import tensor
    >>> process(tensor([[1.0, 2.0, 4.0]]), [[2]], [[]], GenerationConfig(temperature=0.5, top_k=2)).tolist()
    [[-inf, 4.0, 8.0]]
    """
    if logits.dtype in (float16, bfloat16):
        logits = logits.float()
    if config.logit_bias:
        logits = processors.logit_bias(logits, config.logit_bias)
    if config.repetition_penalty != 1:
        logits = processors.repetition_penalty(logits, seen, config.repetition_penalty)
    if config.presence_penalty:
        logits = processors.presence_penalty(logits, new, config.presence_penalty)
    if config.frequency_penalty:
        logits = processors.frequency_penalty(logits, new, config.frequency_penalty)
    if config.no_repeat_ngram_size:
        logits = processors.no_repeat_ngrams(logits, seen, config.no_repeat_ngram_size)
    return warp(logits, config) if config.temperature else logits


def warp(logits: Tensor, config: GenerationConfig) -> Tensor:
    """The second half of `process`, for draws: temperature, then top-k, top-p and min-p, those that are switched on."""
    if config.temperature != 1:
        logits = processors.temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = processors.top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = processors.top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = processors.min_p(logits, config.min_p)
    return logits


def choose(logits: Tensor, config: GenerationConfig, generator: Any = None) -> list[int]:
    """One id for each row of processed logits (B, V): the largest score's at temperature 0, else a draw.

    Drawn with `generator` (the default one where there is none) from the softmax of the logits as they are: `process`
    has divided by the temperature. ValueError that names the row where every token is forbidden (all −inf), or where
    the largest score is NaN or inf.

    >>> from shared.ops import tensor
    >>> choose(tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]]), GenerationConfig(temperature=0))
    [1, 0]
    """
    for row, largest in enumerate(logits.amax(-1).tolist()):
        if largest == -math.inf:
            raise ValueError(f"choose: no token is left in row {row}: all have the score -inf; forbid fewer of them")
        if not math.isfinite(largest):
            raise ValueError(f"choose: the largest score of row {row} is {largest}")
    if config.temperature == 0:
        return logits.argmax(-1).tolist()
    return multinomial(F.softmax(logits, dim=-1), 1, generator=generator)[:, 0].tolist()

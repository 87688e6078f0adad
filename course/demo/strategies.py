"""The ways to choose a token, each with what it means in one sentence and the numbers that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """A number with its name in GenerationConfig or `beam_search`, what it does, and what it may be."""

    name: str
    label: str
    info: str
    minimum: float
    maximum: float
    step: float
    default: float

    def read(self, value: Any) -> float | int:
        """The value as the number that it must be: whole where the steps are. ValueError that names the parameter."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{self.label}: expected a number, but got {str(value)[:40]!r}.") from None
        if not self.minimum <= number <= self.maximum:  # NaN too
            raise ValueError(f"{self.label}: expected {self.minimum:g} to {self.maximum:g}, but got {number:g}.")
        if self.step < 1:
            return number
        if number != int(number):
            raise ValueError(f"{self.label}: expected a whole number, but got {number:g}.")
        return int(number)


def whole(label: str, value: Any, minimum: int, maximum: int) -> int:
    """The value as a whole number; ValueError that names it.

    >>> whole("Layer", 2.0, 1, 4)
    2
    """
    return int(Parameter("", label, "", minimum, maximum, 1, minimum).read(value))


@dataclass(frozen=True)
class Strategy:
    """A way to choose, in a sentence, and the names of its parameters."""

    name: str
    sentence: str
    parameters: tuple[str, ...] = ()


PARAMETERS = {
    p.name: p
    for p in (
        Parameter(
            "temperature",
            "Temperature",
            "Scores are divided by it: below 1 likely tokens get likelier, above 1 rare ones get a chance.",
            0.1,
            2.0,
            0.05,
            0.8,
        ),
        Parameter("top_k", "k", "How many of the likeliest tokens stay in the draw.", 1, 100, 1, 10),
        Parameter(
            "top_p",
            "p",
            "The likeliest tokens stay in the draw until their probabilities add up to this.",
            0.05,
            1.0,
            0.05,
            0.9,
        ),
        Parameter(
            "min_p",
            "Smallest share",
            "A token stays in the draw if it has at least this share of the likeliest token's probability.",
            0.0,
            1.0,
            0.01,
            0.1,
        ),
        Parameter("num_beams", "Beams", "How many texts are followed at once.", 2, 8, 1, 4),
        Parameter(
            "length_penalty",
            "Length penalty",
            "A text's log-probability is divided by its length to this power: 0 prefers short texts, 1 is the mean.",
            0.0,
            2.0,
            0.1,
            1.0,
        ),
        Parameter(
            "repetition_penalty",
            "Repetition penalty",
            "Tokens that have been there already, in the prompt or after it, score less; 1 is off.",
            1.0,
            2.0,
            0.05,
            1.0,
        ),
        Parameter(
            "no_repeat_ngram_size",
            "No n-gram twice",
            "No run of so many tokens may come a second time; 0 is off.",
            0,
            10,
            1,
            0,
        ),
    )
}
AGAINST_REPETITION = ("repetition_penalty", "no_repeat_ngram_size")
BEAM_SEARCH = "Beam search"
STRATEGIES = {
    s.name: s
    for s in (
        Strategy("Greedy", "Always the likeliest token: the same text every time, and soon the same words."),
        Strategy(
            "Sampling", "A draw from all tokens, each with the probability that the model gives it.", ("temperature",)
        ),
        Strategy("Top-k", "A draw from the k likeliest tokens, however sure the model is.", ("temperature", "top_k")),
        Strategy(
            "Nucleus",
            "A draw from the fewest tokens that together have probability p: few where the model is sure, many where "
            "it is not.",
            ("temperature", "top_p"),
        ),
        Strategy(
            "Min-p",
            "A draw from the tokens that are not much less likely than the likeliest: the bar rises and falls with it.",
            ("temperature", "min_p"),
        ),
        Strategy(
            BEAM_SEARCH,
            "Follows several texts at once and keeps those that are likeliest as a whole; nothing is drawn, and the "
            "text appears at the end.",
            ("num_beams", "length_penalty"),
        ),
    )
}
DEFAULT = "Nucleus"


@dataclass(frozen=True)
class Settings:
    """What to do with a prompt: the strategy, its numbers by name, how many tokens, and the seed of the draws."""

    strategy: str = DEFAULT
    values: Mapping[str, Any] | None = None
    max_new_tokens: int = 100
    seed: int = 0

    def numbers(self) -> dict[str, Any]:
        """The strategy's own parameters and those against repetition, read; ValueError that names a wrong one.

        >>> Settings("Top-k", {"top_k": 3.0, "top_p": 0.5}).numbers()["top_k"]
        3
        """
        if self.strategy not in STRATEGIES:
            raise ValueError(f"There is no strategy {str(self.strategy)[:40]!r}; there are {', '.join(STRATEGIES)}.")
        names = (*STRATEGIES[self.strategy].parameters, *AGAINST_REPETITION)
        given = self.values or {}
        return {name: PARAMETERS[name].read(given.get(name, PARAMETERS[name].default)) for name in names}

    def config(self, stop_tokens: tuple[int, ...] = ()) -> Any:
        """The GenerationConfig of it; for beam search without the beams, which `beam_search` takes itself.

        Numbers of other strategies have no effect: who chooses top-k gets no nucleus that was set before.
        """
        from shared.generation import GenerationConfig

        numbers = {name: n for name, n in self.numbers().items() if name not in ("num_beams", "length_penalty")}
        if "temperature" not in numbers and self.strategy != BEAM_SEARCH:
            numbers["temperature"] = 0.0
        return GenerationConfig(max_new_tokens=self.max_new_tokens, seed=self.seed, stop_tokens=stop_tokens, **numbers)

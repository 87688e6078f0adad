"""What a request does: read a prompt, write token by token, and look at what else each token could have been."""

from __future__ import annotations

import codecs
import math
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models import Reader
from .strategies import Settings
from .turns import Turns

LONGEST = 50_000  # characters of a prompt; more are refused unread
ALTERNATIVES = 5


class PromptError(ValueError):
    """A prompt that the model cannot continue, with what to do about it."""


class Stopped(Exception):
    """Somebody pressed Stop in the middle of a search."""


# ---------------------------------------------------------------- the prompt


def read_prompt(reader: Reader, prompt: str) -> list[int]:
    """The ids of a prompt, none of them special, whatever is written in it.

    PromptError for one that is empty, that has more tokens than the model reads, or characters that the tokenizer does
    not know: it names them.
    """
    if not isinstance(prompt, str) or not prompt:
        raise PromptError("The prompt is empty. A model continues what it has read: write a few characters first.")
    if len(prompt) > LONGEST:
        raise PromptError(
            f"The prompt has {len(prompt):,} characters; more than {LONGEST:,} are not read. Keep the end of it."
        )
    if unknown := unknown_parts(reader.tokenizer, prompt):
        names = ", ".join(map(name_part, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        known = "".join(c for c in getattr(reader.tokenizer, "text_ids", {}) if len(c) == 1 and c.isprintable())
        raise PromptError(
            f"This model does not know {names}. "
            + (f"It reads the {len(reader.tokenizer.text_ids)} characters it was trained on: {known}" if known else "")
        )
    try:
        ids = reader.tokenizer.encode(prompt)
    except ValueError as error:
        raise PromptError(f"The prompt cannot be read: {error}") from None
    if len(ids) > reader.block_size:
        raise PromptError(
            f"The prompt has {len(ids):,} tokens, but this model looks at {reader.block_size:,} at most: shorten it by "
            f"{len(ids) - reader.block_size:,}."
        )
    if not ids:  # a vocabulary of words splits white space into nothing
        raise PromptError("There is no token in this prompt: write a word.")
    return ids


def unknown_parts(tokenizer: Any, prompt: str) -> list[str]:
    """The characters, or words, of a prompt that a vocabulary has no id for, each once, in order."""
    if any(0xD800 <= ord(c) < 0xE000 for c in prompt):
        return sorted({c for c in prompt if 0xD800 <= ord(c) < 0xE000})
    if not hasattr(tokenizer, "text_ids") or tokenizer.unk_id is not None:
        return []
    return [part for part in dict.fromkeys(tokenizer.split(prompt)) if part not in tokenizer.text_ids]


def name_part(part: str) -> str:
    """A character with its code point, for a message; a word in quotation marks.

    >>> name_part("é"), name_part("\\0"), name_part("word")
    ('é (U+00E9)', 'U+0000', '“word”')
    """
    if len(part) > 1:
        return f"“{part[:40]}”"
    code = f"U+{ord(part):04X}"
    visible = part.isprintable() and not part.isspace() and not unicodedata.combining(part)
    return f"{part} ({code})" if visible else code


# ---------------------------------------------------------------- what is shown of a token


@dataclass(frozen=True)
class Alternative:
    """A token that could have come: id, label, the model's probability, and that which the strategy made of it."""

    token: int
    label: str
    probability: float
    drawn: float | None = None


@dataclass(frozen=True)
class Choice:
    """A token that came: its id, what it adds to the text, its label, and where it stood among all others.

    `probability` is the model's own, the softmax of its logits; `drawn` is the one it was chosen with, after
    temperature, penalties and cuts (None for beam search, which draws nothing). `rank` is 1 for the likeliest.
    """

    token: int
    text: str
    label: str
    probability: float
    drawn: float | None
    rank: int
    alternatives: tuple[Alternative, ...]

    @property
    def bits(self) -> float:
        """The surprise, −log2 of the model's probability."""
        return -math.log2(max(self.probability, 1e-30))


class Speller:
    """What each next token adds to a text: characters as soon as they are complete, and a label to show it by.

    >>> from shared.text import ByteLevelBPE
    >>> tokenizer = ByteLevelBPE([])
    >>> speller = Speller(tokenizer)
    >>> [speller.add(i) for i in tokenizer.encode("né")]
    [('n', 'n'), ('', '⟨c3⟩'), ('é', 'é')]
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._last: int | None = None

    def add(self, token: int) -> tuple[str, str]:
        """(text, label) of the next token; half a character and special tokens add no text, but have a label."""
        last, self._last = self._last, token
        if token >= self.tokenizer.vocab_size:  # some models have scores for more tokens than there are
            text = ""
        elif hasattr(self.tokenizer, "decode_bytes"):
            text = self._decoder.decode(self.tokenizer.decode_bytes([token], skip_specials=True))
        elif last is None:
            text = self.tokenizer.decode([token], skip_specials=True)
        else:  # a vocabulary of words puts a space between two of them
            text = self.tokenizer.decode([last, token], skip_specials=True)
            text = text.removeprefix(self.tokenizer.decode([last], skip_specials=True))
        return text, text or label(self.tokenizer, token)


def label(tokenizer: Any, token: int) -> str:
    """A token by itself: its text, its bytes where these are no characters, or its number where it has no name."""
    if token >= tokenizer.vocab_size:
        return f"⟨{token}⟩"
    if hasattr(tokenizer, "decode_bytes"):
        content = tokenizer.decode_bytes([token])
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return f"⟨{content.hex(' ')}⟩"
    return tokenizer.decode([token])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities (V,) in float64; forbidden tokens, −inf, get 0."""
    scores = scores.astype(np.float64)
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def look(reader: Reader, speller: Speller, token: int, logits: np.ndarray, drawn: np.ndarray | None) -> Choice:
    """The token among the others: logits (V,) of the model, and probabilities (V,) that it was drawn from."""
    p = softmax(logits)
    best = np.argpartition(-p, range(min(ALTERNATIVES, len(p))))[:ALTERNATIVES]
    alternatives = tuple(
        Alternative(int(i), label(reader.tokenizer, int(i)), float(p[i]), None if drawn is None else float(drawn[i]))
        for i in best
    )
    text, shown = speller.add(token)
    rank, chance = 1 + int((p > p[token]).sum()), None if drawn is None else float(drawn[token])
    return Choice(token, text, shown, float(p[token]), chance, rank, alternatives)


# ---------------------------------------------------------------- writing


def write(
    reader: Reader, ids: list[int], settings: Settings, stopped: threading.Event, turns: Turns
) -> Iterator[Choice]:
    """Continues ids with one token after the other, until there are enough, the model ends, or `stopped` is set.

    Its draws and its cache are its own: what it writes depends on nothing but the arguments.
    """
    from shared.generation import process, stream

    config = settings.config(reader.stop_tokens)
    speller, seen = Speller(reader.tokenizer), list(ids)
    speller.add(ids[-1])
    steps = stream(reader.model, [ids], config)
    while not stopped.is_set():
        with turns:
            step = next(steps, None)
            if step is None or (token := step.tokens[0]) is None:
                return
            processed = process(step.logits, [seen], [seen[len(ids) :]], config).numpy(force=True)[0]
            logits = step.logits.numpy(force=True)[0]
            choice = look(reader, speller, token, logits, _drawn(processed, config.temperature))
        seen.append(token)
        yield choice


def _drawn(processed: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities that a token was chosen with; greedy gives all to one."""
    if temperature:
        return softmax(processed)
    drawn = np.zeros(len(processed))
    drawn[processed.argmax()] = 1.0
    return drawn


@dataclass(frozen=True)
class Text:
    """One result of a beam search: its tokens, ln of its probability, and the score it was compared by."""

    choices: list[Choice]
    log_prob: float
    score: float


class _Watched:
    """A model that counts how often it is read, passes the turn on before, and can be stopped."""

    def __init__(self, model: Any, stopped: threading.Event, turns: Turns):
        self._model, self._stopped, self._turns = model, stopped, turns
        self.reads = 0
        self.given_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def extend(self, *args: Any, **kwargs: Any) -> Any:
        self._turns.pass_on()
        if self._stopped.is_set() or self.given_up:
            raise Stopped
        self.reads += 1
        return self._model.extend(*args, **kwargs)


def search(
    reader: Reader, ids: list[int], settings: Settings, stopped: threading.Event, turns: Turns
) -> Iterator[int | list[Text]]:
    """Beam search: yields how many tokens it has read so far, now and then, and at last the texts, the best first.

    Yields no texts where `stopped` is set before it is done.
    """
    watched = _Watched(reader.model, stopped, turns)

    def work() -> list[Text]:
        from shared.generation import beam_search

        numbers, config = settings.numbers(), settings.config(reader.stop_tokens)
        with turns:
            beams = beam_search(
                watched,
                ids,
                numbers["num_beams"],
                settings.max_new_tokens,
                numbers["length_penalty"],
                reader.stop_tokens,
                num_return=numbers["num_beams"],
                config=config,
            )
            return [Text(reread(reader, ids, beam.ids), beam.log_prob, beam.score) for beam in beams]

    with ThreadPoolExecutor(1, "beams") as pool:
        future = pool.submit(work)
        try:
            while True:
                try:
                    yield future.result(timeout=0.1)
                    return
                except NotYet:
                    yield watched.reads
        except Stopped:
            return
        finally:
            watched.given_up = True  # whoever no longer listens needs no result


def reread(reader: Reader, ids: list[int], new: list[int]) -> list[Choice]:
    """The tokens `new` after ids, each among the others as the model saw it, in as few passes as its context allows."""
    from shared.autograd import no_grad
    from shared.ops import tensor

    speller, text, size = Speller(reader.tokenizer), [*ids, *new], reader.block_size
    speller.add(ids[-1])
    found: list[Choice] = []
    while len(found) < len(new):
        place = len(ids) + len(found)  # of the next token to look at
        first = 0 if place <= size else place - max(1, size // 2)
        with no_grad():
            logits = reader.model(tensor([text[first : first + size]])).numpy(force=True)[0]
        for row in logits[place - 1 - first :][: len(text) - place]:
            found.append(look(reader, speller, text[len(ids) + len(found)], row, None))
    return found

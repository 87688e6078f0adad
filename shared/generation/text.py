"""Text in, text out: what `decoding` does with ids, for a model and its tokenizer.

for piece in stream_text(model, tokenizer, "To be", GenerationConfig(top_p=0.9, stop_strings=("\\n\\n",))):
    print(piece, end="", flush=True)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shared.generation.config import GenerationConfig
from shared.generation.decoding import stream
from shared.text.bpe import END_OF_TEXT

HALF = "\ufffd"  # what a tokenizer of bytes makes of a character whose last bytes are still to come


class TextStream:
    """The text of ids that come one by one, without half characters and without what may become a stop string.

    `add` takes an id and returns the text that is certain with it, perhaps none; `end`, when no more come, returns
    what was kept back. Once a stop string was found, `stopped` is True, and nothing from it on is text. `stop_strings`
    are several, or a single one as it is; ValueError for one that is empty.

    >>> from shared.text import CharVocabulary
    >>> tokenizer = CharVocabulary.from_text("abc.!")
    >>> text = TextStream(tokenizer, stop_strings=["..!"])
    >>> [text.add(i) for i in tokenizer.encode("a.b..!c")], text.stopped, text.end()
    (['a', '', '.b', '', '', '', ''], True, '')
    """

    def __init__(self, tokenizer: Any, stop_strings: str | Sequence[str] = ()) -> None:
        stops = stop_strings if isinstance(stop_strings, str) else tuple(stop_strings)
        self.tokenizer, self.stop_strings = tokenizer, GenerationConfig(stop_strings=stops).stop_strings
        self.ids: list[int] = []
        self.given = 0  # so many characters of their text were returned
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with this token; special tokens are none."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids, skip_specials=True).rstrip(HALF)
        held = max((overlap(text, stop) for stop in self.stop_strings), default=0)
        return self._release(text, len(text) - held)

    def end(self) -> str:
        """What is left when no token comes any more."""
        text = self.tokenizer.decode(self.ids, skip_specials=True)
        return self._release(text, len(text))

    def _release(self, text: str, certain: int) -> str:
        """What was not yet given of the first `certain` characters, or of those before a stop string.

        Where several are there, the one that is complete first counts, as if the characters had come one by one.
        """
        if self.stopped:
            return ""
        places = [(text.find(stop, self.given), len(stop)) for stop in self.stop_strings]
        found = [(place + length, place) for place, length in places if place >= 0]
        if found:
            self.stopped, certain = True, min(found)[1]
        start, self.given = self.given, max(self.given, certain)
        return text[start:certain]


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` with which `stop` begins; that it is all of `stop` does not count.

    >>> overlap("the end, th", "the"), overlap("the end", "the")
    (2, 0)
    """
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0


def stream_text(
    model: Any, tokenizer: Any, prompt: str, config: GenerationConfig | None = None, *, generator: Any = None
) -> Iterator[str]:
    """Continues a text; yields what is new in pieces as it is written, never half a character.

    It ends before the first of `config.stop_strings`, before a token of `config.stop_tokens`, or after
    `config.max_new_tokens`. An empty prompt is read as the token that stands between texts, <|endoftext|>, if the
    tokenizer has it. Errors: those of `stream`, and the tokenizer's for a prompt that it cannot read.

    >>> from shared.models import GPT, GPTConfig
    >>> from shared.text import CharVocabulary
    >>> tokenizer = CharVocabulary.from_text("to be")
    >>> model = GPT(GPTConfig.preset("toy", vocab_size=tokenizer.vocab_size))
    >>> len("".join(stream_text(model, tokenizer, "to", GenerationConfig(max_new_tokens=40))))
    40
    """
    config = config or GenerationConfig()
    steps = stream(model, [prompt_ids(tokenizer, prompt)], config, generator=generator)
    return _pieces(steps, TextStream(tokenizer, config.stop_strings), config)


def _pieces(steps: Iterator[Any], text: TextStream, config: GenerationConfig) -> Iterator[str]:
    for step in steps:
        if step.tokens[0] in config.stop_tokens:
            break
        if piece := text.add(step.tokens[0]):
            yield piece
        if text.stopped:
            break
    if piece := text.end():
        yield piece


def generate_text(
    model: Any, tokenizer: Any, prompts: Sequence[str], config: GenerationConfig | None = None, *, generator: Any = None
) -> list[str]:
    """What follows each of the prompts, all written at once; ends, errors and empty prompts as for `stream_text`.

    >>> from shared.models import GPT, GPTConfig
    >>> from shared.text import CharVocabulary
    >>> tokenizer = CharVocabulary.from_text("to be")
    >>> model = GPT(GPTConfig.preset("toy", vocab_size=tokenizer.vocab_size))
    >>> [len(text) for text in generate_text(model, tokenizer, ["to", "b"], GenerationConfig(max_new_tokens=7))]
    [7, 7]
    """
    if isinstance(prompts, str):
        raise TypeError("generate_text: expected a list of prompts, but got one string; write [prompt]")
    config = config or GenerationConfig()
    texts = [TextStream(tokenizer, config.stop_strings) for _ in prompts]
    written, done = [""] * len(texts), [False] * len(texts)
    for step in stream(model, [prompt_ids(tokenizer, p) for p in prompts], config, generator=generator):
        for row, token in enumerate(step.tokens):
            done[row] = done[row] or token is None or token in config.stop_tokens
            if not done[row]:
                written[row] += texts[row].add(token)
                done[row] = texts[row].stopped
        if all(done):
            break
    return [start + text.end() for start, text in zip(written, texts, strict=True)]


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a prompt; for an empty one that of <|endoftext|>, which every text of GPT-2's training followed."""
    ids = tokenizer.encode(prompt)
    specials = getattr(tokenizer, "special_tokens", {})
    return ids or ([specials[END_OF_TEXT]] if END_OF_TEXT in specials else [])

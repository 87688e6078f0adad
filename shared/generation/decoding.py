"""Writing with a model: read the prompt, choose a token, read that, until there is enough.

    for step in stream(model, [tokenizer.encode("To be")], GenerationConfig(max_new_tokens=20, top_p=0.9)):
        print(step.tokens)

`stream` is the loop, and `generate` its result. What a model needs for both: `config.block_size`, `blocks`, `extend`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.arrays.random import Generator
from shared.autograd import no_grad
from shared.generation.cache import GenerationCache, new_caches
from shared.generation.config import GenerationConfig, choose, process
from shared.ops import tensor
from shared.tensor import Tensor

Prompts = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Step:
    """One token for each text: `tokens`, None for those that are finished; and `logits` (B, V), as the model gave them.

    The logits are those that the tokens were chosen from, before the config's processors.
    """

    tokens: list[int | None]
    logits: Tensor


def stream(
    model: Any, prompts: Prompts, config: GenerationConfig | None = None, *, generator: Generator | None = None
) -> Iterator[Step]:
    """Continues each of the prompts, ids (B, T) or lists of ids of any lengths, token by token, all at once.

    Each text ends with a token of `config.stop_tokens`, which is yielded too, or after `config.max_new_tokens`. Draws
    come from `generator`; else from a new one, if the config has a seed; else from the default one. The stop strings of
    the config are for `stream_text`, which knows the tokenizer.
    Prompts and texts may fill the model's context, block_size tokens. Where the next token would not fit, the last
    block_size // 2 are read anew, at positions from 0 on, and what stood before is forgotten.
    The model is in eval mode while it computes, and no gradient is recorded. ValueError for a prompt that is empty or
    longer than block_size.

    >>> import shared
    >>> from shared.models import GPT, GPTConfig
    >>> steps = list(stream(GPT(GPTConfig.preset("toy")), [[1, 2, 3], [4]], GenerationConfig(max_new_tokens=5)))
    >>> len(steps), len(steps[0].tokens)
    (5, 2)
    """
    config = config or GenerationConfig()
    seen = prompt_lists(prompts, model.config.block_size)
    return _steps(model, seen, config, generator_of(model, config, generator))


def _steps(model: Any, seen: list[list[int]], config: GenerationConfig, generator: Generator | None) -> Iterator[Step]:
    """The loop of `stream`: yields a `Step` for each token. `seen` are the ids of each text so far, which grow.

    Each time: `read` gives the logits (B, V) of what follows ids, the caches and the padding; `process` changes them by
    the texts (`seen`) and their new tokens (`new`), `choose` takes one token for each. At first, and whenever the
    caches hold block_size tokens, `context` says what is read of each text, `pad_left` makes ids and padding of it, and
    the caches are new (`new_caches`); else the tokens that were chosen are read, (B, 1). What is read lies on the
    model's device (`device_of`).
    A text is finished with a token of `config.stop_tokens`, which is yielded; from then on it yields None, though it is
    read on with the others. When all are finished, or after `config.max_new_tokens`, there is nothing more.
    """
    new: list[list[int]] = [[] for _ in seen]
    finished = [False] * len(seen)
    caches = new_caches(model)
    padding: Tensor | None = None
    ids: Tensor | None = None
    for _ in range(config.max_new_tokens):
        if ids is None or len(caches[0]) == model.config.block_size:
            ids, padding = pad_left(context(seen, model.config.block_size, first=ids is None), device_of(model))
            caches = new_caches(model)
        logits = read(model, ids, caches, padding)
        chosen = choose(process(logits, seen, new, config), config, generator)
        tokens = [None if done else token for token, done in zip(chosen, finished, strict=True)]
        for row, token in enumerate(chosen):
            seen[row].append(token)
            new[row].append(token)
            finished[row] = finished[row] or token in config.stop_tokens
            if finished[row] and config.no_repeat_ngram_size:  # it is read on, and must not run out of tokens
                seen[row] = [0] * len(seen[row])
        yield Step(tokens, logits)
        if all(finished):
            return
        ids = tensor(chosen, device=logits.device).unsqueeze(1)  # (B, 1)


def generate(
    model: Any, prompts: Prompts, config: GenerationConfig | None = None, *, generator: Generator | None = None
) -> list[list[int]]:
    """What `stream` yields, for each prompt the list of its new ids; a stop token, if one came, is the last.

    >>> import shared
    >>> from shared.models import GPT, GPTConfig
    >>> model, config = GPT(GPTConfig.preset("toy")), GenerationConfig(max_new_tokens=5, seed=1)
    >>> generate(model, [[1, 2, 3]], config) == generate(model, [[1, 2, 3]], config)
    True
    """
    rows: list[list[int]] | None = None
    for step in stream(model, prompts, config, generator=generator):
        rows = rows or [[] for _ in step.tokens]
        for row, token in zip(rows, step.tokens, strict=True):
            if token is not None:
                row.append(token)
    return rows or [[] for _ in prompts]


def read(model: Any, ids: Tensor, caches: list[GenerationCache], padding: Tensor | None = None) -> Tensor:
    """The logits (B, V) of what follows ids (B, T), which follow what the caches hold; without dropout or gradients."""
    return read_last(model, ids, caches, 1, padding)[:, -1]


def read_last(
    model: Any, ids: Tensor, caches: list[GenerationCache], number: int, padding: Tensor | None = None
) -> Tensor:
    """As `read`, the logits (B, number, V) of what follows each of the last `number` ids."""
    was_training = model.training
    if was_training:  # another thread may be reading: leave a model that is in eval mode alone
        model.eval()
    try:
        with no_grad():
            return model.extend(ids, caches, padding, number)
    finally:
        if was_training:
            model.train()


def context(texts: list[list[int]], block_size: int, first: bool) -> list[list[int]]:
    """What the model is to read of each text: all of it at first; later, when the context is full, its last part.

    That is block_size // 2 tokens, and at least one: there is room for as many before it has to be done again.
    Positions move with it, so that nothing that was cached can be kept. A text that is shorter is read whole.

    >>> context([[1, 2, 3, 4, 5], [6]], block_size=4, first=False)
    [[4, 5], [6]]
    """
    return texts if first else [text[-max(1, block_size // 2) :] for text in texts]


def pad_left(texts: Sequence[Sequence[int]], device: Any = None) -> tuple[Tensor, Tensor | None]:
    """Lists of ids → ids (B, T), T the longest, fillers (id 0) first, and their numbers (B,); None if there are none.

    The last tokens stand one below the other then, and so do those that follow.

    >>> pad_left([[5, 6, 7], [8]])
    (tensor([[5, 6, 7],
            [0, 0, 8]]), tensor([0, 2]))
    """
    longest = max(len(text) for text in texts)
    fillers = [longest - len(text) for text in texts]
    ids = tensor([[0] * n + list(text) for n, text in zip(fillers, texts, strict=True)], device=device)
    return ids, tensor(fillers, device=device) if any(fillers) else None


def prompt_lists(prompts: Prompts, block_size: int) -> list[list[int]]:
    """The prompts as lists of their own; ValueError for none, and for one that cannot be read."""
    if isinstance(prompts, Tensor):
        if prompts.ndim != 2:
            raise ValueError(f"expected prompts of ids (B, T), but got shape {tuple(prompts.shape)}")
        prompts = prompts.tolist()
    if len(prompts) == 0 or not all(isinstance(p, Sequence) and not isinstance(p, str) for p in prompts):
        raise ValueError("expected at least one prompt, each a list of ids")
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(
                f"prompt {row} is empty: a model continues what it has read, so give it one token at least"
            )
        if len(prompt) > block_size:
            raise ValueError(
                f"prompt {row} has {len(prompt)} tokens, but the model reads at most {block_size}: shorten it"
            )
    return [list(prompt) for prompt in prompts]


def one_prompt(prompt: Tensor | Sequence[int], block_size: int) -> list[int]:
    """The ids of a single prompt, (T,) or (1, T), as a list of their own; errors as for several."""
    if not isinstance(prompt, Tensor):
        nested = len(prompt) > 0 and isinstance(prompt[0], Sequence) and not isinstance(prompt, str)
        if nested and len(prompt) != 1:
            raise ValueError(f"expected one prompt of ids, but got {len(prompt)}")
        return prompt_lists(prompt if nested else [prompt], block_size)[0]
    rows = prompt.unsqueeze(0) if prompt.ndim == 1 else prompt
    if rows.ndim == 2 and len(rows) != 1:
        raise ValueError(f"expected one prompt of ids (T,) or (1, T), but got shape {tuple(prompt.shape)}")
    return prompt_lists(rows, block_size)[0]


def generator_of(model: Any, config: GenerationConfig, generator: Generator | None) -> Generator | None:
    """Where draws come from: `generator`; else a new one with the config's seed; else None, the default one."""
    if generator is None and config.seed is not None:
        return Generator(device_of(model)).manual_seed(config.seed)
    return generator


def device_of(model: Any) -> Any:
    return next(iter(model.parameters())).device

"""Two drafts that guess what the kept model will write, and a slower twin of it that needs them more.

ngrams = NGrams.of_shakespeare(tokenizer, 5)     # counted: a draft, and a judge of texts
draft = kept_draft()                             # trained: a GPT of two narrow blocks
slow = enlarged(model, wider=4, blocks=12)       # the model's own probabilities, at the cost of GPT-2's blocks

Run as a script it trains the other draft, a GPT of two blocks, and keeps it in draft/: half a minute of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from kept import kept_model

import shared
from course.results import Results
from shared import Tensor
from shared.data import RandomWindows, sequential_windows
from shared.models import GPT, GPTConfig, load_pretrained, save_pretrained
from shared.training import evaluate_loss, train_step, warmup_cosine

DRAFT = Path(__file__).resolve().parent / "draft"


def kept_draft() -> GPT:
    """The draft that this script trained, in eval mode."""
    return load_pretrained(DRAFT).eval()


@lru_cache(maxsize=1)
def texts() -> tuple[str, str]:
    """The training text and the held-out text of TinyShakespeare."""
    train, val = (part.text for part in shared.data.load("tinyshakespeare"))
    return train, val


class NGrams:
    """Counted n-grams, each order smoothed by the one below.

    p(c | h) = (count(hc) + strength · p(c | h without its first id)) / (count(h) + strength).

    It judges texts (`bits`), and it can be a draft (`next_logits`, `crop`): it looks at the last n − 1 ids of a text.

    >>> table = NGrams(np.array([0, 1, 0, 1, 0, 2]), vocab_size=3, order=2, strength=1.0)
    >>> table.probabilities([0]).round(3).tolist()  # after 0: 1 twice, 2 once
    [0.119, 0.583, 0.298]
    """

    def __init__(self, ids: np.ndarray, vocab_size: int, order: int, strength: float = 10.0) -> None:
        self.vocab_size, self.order, self.strength = vocab_size, order, strength
        self.tables = []  # for each n: the codes of its n-grams, rising, and how often each stands in the text
        codes = np.zeros(len(ids), np.int64)
        for n in range(1, order + 1):
            codes = codes[: len(ids) - n + 1] * vocab_size + ids[n - 1 :]
            self.tables.append(np.unique(codes, return_counts=True))

    @classmethod
    def of_shakespeare(cls, tokenizer: Any, order: int) -> NGrams:
        """Counted in the training text."""
        return cls(np.array(tokenizer.encode(texts()[0]), np.int64), tokenizer.vocab_size, order)

    def probabilities(self, text: Sequence[int]) -> np.ndarray:
        """Of each id that may follow: (V,)."""
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for n, (codes, counts) in enumerate(self.tables, start=1):
            if n - 1 > len(text):
                break
            head = 0
            for i in text[len(text) - n + 1 :]:
                head = head * self.vocab_size + i
            first, last = np.searchsorted(codes, [head * self.vocab_size, (head + 1) * self.vocab_size])
            if first == last:  # this history never occurred, and so no longer one did
                break
            found = counts[first:last]
            p = self.strength * p
            p[codes[first:last] - head * self.vocab_size] += found
            p /= found.sum() + self.strength
        return p

    def bits(self, prompt: Sequence[int], new: Sequence[int]) -> np.ndarray:
        """−log₂ p of each id of `new`, after the prompt and those before it: (len(new),)."""
        text = [*prompt, *new]
        places = range(len(prompt), len(text))
        return -np.log2([self.probabilities(text[max(0, i - self.order + 1) : i])[text[i]] for i in places])

    def next_logits(self, text: Sequence[int]) -> Tensor:
        """ln p of what follows, (1, V): what `speculate` asks of a draft."""
        p = self.probabilities(text[max(0, len(text) - self.order + 1) :])
        return shared.from_numpy(np.log(p, dtype=np.float32)[None])

    def crop(self, length: int) -> None:
        """It remembers no text, so there is nothing to forget."""


def enlarged(model: GPT, wider: int, blocks: int) -> GPT:
    """A model with the same logits that is `wider` times as wide and has `blocks` blocks: slower, and no cleverer.

    Every vector stands in it `wider` times over, so that means and variances stay; each matrix is made of copies of
    the old one, divided by their number. Further blocks add zero. Source: Chen, Goodfellow and Shlens, "Net2Net:
    Accelerating learning via knowledge transfer", 2016.
    """
    c = model.config
    sizes = {"n_embd": c.n_embd * wider, "n_head": c.n_head * wider, "n_layer": blocks}
    large = GPT(replace(c, **sizes, tie_weights=False)).eval()
    old = {name: p.detach().numpy() for name, p in model.named_parameters()}
    old["lm_head.weight"] = old["token_embedding.weight"] / wider
    with shared.no_grad():
        for name, parameter in large.named_parameters():
            if name not in old:  # a further block
                if "out_proj" in name or "linear2" in name:
                    parameter.zero_()
                continue
            parameter.copy_(shared.from_numpy(_tiled(name, old[name], wider)))
    return large


def _tiled(name: str, array: np.ndarray, wider: int) -> np.ndarray:
    """One parameter of the larger model. Tables are repeated along the width, matrices along both sides."""
    parts = np.split(array, 3) if "in_proj" in name else [array]  # queries, keys, values
    if array.ndim == 1:
        made = [np.tile(part, wider) for part in parts]
    elif "embedding" in name or "positions" in name or "lm_head" in name:
        made = [np.tile(array, (1, wider))]
    else:
        made = [np.tile(part, (wider, wider)) / wider for part in parts]
    return np.ascontiguousarray(np.concatenate(made), dtype=np.float32)


def train(steps: int, seed: int) -> tuple[GPT, float, float]:
    """A GPT of two blocks, 48 wide, its loss on the held-out text in nats, and the seconds of its training."""
    tokenizer = kept_model()[1]
    train_ids, val_ids = (np.array(tokenizer.encode(text), np.uint16) for text in texts())
    shared.manual_seed(seed)
    sizes = {"block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 48, "dropout": 0.0}
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **sizes))
    optimizer = model.configure_optimizers(lr=1e-2, betas=(0.9, 0.99))
    windows = RandomWindows(train_ids, 8, 128, seed)
    start = time.process_time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, 1e-2, 1e-4, steps // 20, steps)
        train_step(model, optimizer, *next(windows))
    seconds = time.process_time() - start
    return model.eval(), evaluate_loss(model, sequential_windows(val_ids, 16, 128)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the draft of two blocks and keeps it in draft/.")
    parser.add_argument("--steps", type=int, default=2800, help="updates (default: 2800)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, loss, seconds = train(args.steps, args.seed)
    save_pretrained(model, DRAFT)
    size = sum(path.stat().st_size for path in DRAFT.iterdir())
    results = Results(__file__, seed=args.seed)
    results.metric("draft_parameters", model.num_parameters())
    results.metric("draft_bytes", size, unit="bytes")
    results.metric("draft_val_loss", round(loss, 4), unit="nats")
    results.metric("draft_seconds", round(seconds, 1), unit="s")
    results.save()
    print(f"{model.num_parameters():,} parameters, {size:,} bytes, {loss:.4f} nats, {seconds:.1f} s")


if __name__ == "__main__":
    main()

"""Note 06: a small causal language model made of encoder blocks, and the counted bigrams that it has to beat.

    python sprints/07_transformer_block/results/language_model.py                      the embedded text, half a minute
    python sprints/07_transformer_block/results/language_model.py --text wikitext-2 --steps 2000 --prompt " = Lobster"

trains one model and lets it write; what is measured and drawn for the note is in `perplexity.py`.

What `perplexity.py`, notebook 02 and the milestone test take from here (importing it reads and draws nothing):

    text = corpus()                                  # Python's reference text: text.train, .valid, .test, .vocab_size
    table = bigrams(text.train, text.vocab_size)     # (V, V), each row a distribution over the next character
    bigram_nats(table, text.test)                    # mean −ln p; exp of it is the perplexity
    shared.manual_seed(seed)
    model = LanguageModel(text.vocab_size, max_len=32)
    train(model, text.train, steps=400, length=32, seed=seed)
    model_nats(model, text.test)                     # over windows of max_len that do not overlap

Measured with these very lines, seeds 0 to 9, Python 3.11: about 3 seconds of one core each; perplexity of the bigrams
10.32, of the model 6.71 to 6.96, so the ratio of the two is 0.651 to 0.674.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import shared
from shared import Tensor, nn, optim
from shared.nn import functional as F
from shared.optim.lr_scheduler import OneCycleLR

# ---------------------------------------------------------------- text


@dataclass(frozen=True)
class Corpus:
    """A text as ids of its characters, int64 (N,), in three parts; settings are chosen on `valid`."""

    name: str
    chars: list[str]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def vocab_size(self) -> int:
        """How many characters there are, V."""
        return len(self.chars)

    def decode(self, ids: np.ndarray) -> str:
        """The text of some ids."""
        return "".join(self.chars[i] for i in ids)


def corpus(name: str = "python-reference") -> Corpus:
    """The text called `name`; where it cannot be had, Python's reference text, and one printed sentence says so.

    WikiText-2 has a part for validation; of the others it is the last tenth of the training text.
    """
    train, test = shared.data.load(name, fallback=True)
    if name == "wikitext-2" and train.name.startswith("WikiText-2"):
        return Corpus("WikiText-2", train.chars, train.ids, shared.data.WikiText2("valid").ids, test.ids)
    cut = int(0.9 * len(train.ids))
    return Corpus(train.name.rsplit(",", 1)[0], train.chars, train.ids[:cut], train.ids[cut:], test.ids)


# ---------------------------------------------------------------- counting


def bigrams(ids: np.ndarray, vocab_size: int, strength: float = 30.0) -> np.ndarray:
    """Row a, column b: the share of b among the characters that follow a, smoothed. (V, V), rows sum to 1.

    To the pairs counted after a, `strength` more are added, spread as the single characters are; so a pair that was
    never seen is not impossible. The singles have one more of each for the same reason.
    """
    pairs = np.zeros((vocab_size, vocab_size))
    np.add.at(pairs, (ids[:-1], ids[1:]), 1)
    singles = (np.bincount(ids, minlength=vocab_size) + 1) / (len(ids) + vocab_size)
    return (pairs + strength * singles) / (pairs.sum(axis=1, keepdims=True) + strength)


def bigram_nats(table: np.ndarray, ids: np.ndarray) -> float:
    """The mean of −ln p(next | this) over all neighbours in `ids`."""
    return float(-np.log(table[ids[:-1], ids[1:]]).mean())


# ---------------------------------------------------------------- the model


class LanguageModel(nn.Module):
    """ids (B, T) → logits (B, T, V): at each position a score for each character that may come next.

    Embedding plus sinusoids for the positions, `num_layers` blocks (pre-norm, causal), a layer norm, and a linear
    layer to the scores. `make_block()` returns another kind of block; without `positions` the model is told none.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        max_len: int = 64,
        dropout: float = 0.0,
        make_block: Callable[[], nn.Module] | None = None,
        positions: bool = True,
    ):
        super().__init__()

        def block() -> nn.Module:
            return nn.EncoderBlock(d_model, num_heads, 4 * d_model, dropout, activation="gelu", norm_first=True)

        self.max_len = max_len
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.positions = nn.PositionalEncoding(d_model, dropout, max_len) if positions else None
        self.blocks = nn.ModuleList([(make_block or block)() for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T), T ≤ max_len → logits (B, T, V)."""
        x = self.embedding(ids)  # (B, T, d_model)
        if self.positions is not None:
            x = self.positions(x)
        for block in self.blocks:
            x = block(x, is_causal=True)
        return self.head(self.norm(x))


def next_token_loss(model: nn.Module, windows: np.ndarray) -> Tensor:
    """The mean of −ln p over all characters of `windows` (B, T + 1) but the first of each, given those before it."""
    logits = model(shared.from_numpy(np.ascontiguousarray(windows[:, :-1])))  # (B, T, V)
    targets = shared.from_numpy(np.ascontiguousarray(windows[:, 1:]))  # (B, T)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train(
    model: nn.Module,
    ids: np.ndarray,
    steps: int,
    length: int = 64,
    batch_size: int = 16,
    lr: float = 5e-3,
    seed: int = 0,
    after_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """AdamW on random windows of `length`, one cycle of the rate up to `lr`; returns each step's loss in nats.

    `seed` is that of the windows. Ends early where the loss is no longer finite. `after_step(step, loss)` looks on.
    """
    optimizer = optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    rng, losses = np.random.default_rng(seed), []
    model.train()
    for step in range(steps):
        starts = rng.integers(0, len(ids) - length, size=(batch_size, 1))
        optimizer.zero_grad()
        loss = next_token_loss(model, ids[starts + np.arange(length + 1)])
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(step + 1, losses[-1])
    return losses


def nats_by_position(model: nn.Module, ids: np.ndarray, length: int, batch_size: int = 64) -> np.ndarray:
    """−ln p of each character by its place in the window, mean over windows that do not overlap: (length,).

    Place 0 is predicted from one character, as a bigram does it, place t from t + 1.
    """
    count = (len(ids) - 1) // length
    windows = ids[np.arange(count)[:, None] * length + np.arange(length + 1)]
    total = np.zeros(length)
    model.eval()
    with shared.no_grad():
        for start in range(0, count, batch_size):
            part = windows[start : start + batch_size]
            logits = model(shared.from_numpy(part[:, :-1].copy()))
            losses = F.cross_entropy(logits.flatten(0, 1), shared.from_numpy(part[:, 1:].flatten()), reduction="none")
            total += losses.numpy().reshape(-1, length).sum(axis=0)
    return total / count


def model_nats(model: LanguageModel, ids: np.ndarray) -> float:
    """The mean of −ln p over `ids`, in windows of max_len that do not overlap: little context at each one's start."""
    return float(nats_by_position(model, ids, model.max_len).mean())


def sample(model: LanguageModel, prompt: list[int], length: int, temperature: float = 1.0, seed: int = 0) -> list[int]:
    """`prompt` and `length` more ids, each drawn from what the model expects after the last max_len."""
    rng, ids = np.random.default_rng(seed), list(prompt)
    model.eval()
    with shared.no_grad():
        for _ in range(length):
            logits = model(shared.tensor([ids[-model.max_len :]]))[0, -1]
            p = F.softmax(logits / temperature, dim=-1).numpy().astype(np.float64)
            ids.append(int(rng.choice(len(p), p=p / p.sum())))
    return ids


# ---------------------------------------------------------------- one training, to look at


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", default="python-reference", help="python-reference, tinyshakespeare or wikitext-2")
    parser.add_argument("--steps", type=int, default=1000, help="of 16 windows each (default: 1000)")
    parser.add_argument("--length", type=int, default=64, help="characters in a window (default: 64)")
    parser.add_argument("--width", type=int, default=64, help="d_model (default: 64)")
    parser.add_argument("--layers", type=int, default=4, help="how many blocks (default: 4)")
    parser.add_argument("--prompt", default="The ", help="what the sample goes on from")
    parser.add_argument("--sample", type=int, default=400, help="how many characters to write (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from tqdm import tqdm

    text = corpus(args.text)
    baseline = bigram_nats(bigrams(text.train, text.vocab_size), text.test)
    print(f"{text.name}: {len(text.train):,} characters to train on, {text.vocab_size} distinct")
    print(f"bigrams: perplexity {math.exp(baseline):.2f} on the test part ({baseline:.3f} nats a character)")
    shared.manual_seed(args.seed)
    model = LanguageModel(text.vocab_size, args.width, num_layers=args.layers, max_len=args.length)
    with tqdm(total=args.steps, unit="step") as bar:

        def after_step(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        train(model, text.train, args.steps, args.length, seed=args.seed, after_step=after_step)
    nats = model_nats(model, text.test)
    size = sum(p.numel() for p in model.parameters())
    print(f"model of {size:,} parameters: perplexity {math.exp(nats):.2f} ({nats:.3f} nats a character)\n")
    known = [text.chars.index(char) for char in args.prompt if char in text.chars]
    print(text.decode(np.array(sample(model, known or [0], args.sample, temperature=0.8, seed=args.seed))))


if __name__ == "__main__":
    main()

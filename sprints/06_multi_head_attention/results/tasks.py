"""Models with and without attention that have the same number of parameters, and the tasks they are trained on.

For the milestone tests (one core; seconds are CPU time on a shared machine; importing this module draws nothing):

    train_reversal(kind, seed).accuracy                 200 steps, seeds 0 … 19 (0 … 9 without attention)
        "attention"     1.000 in all seeds, with 1 and with 4 heads        at most 0.9 s
        "feed-forward"  0.096 … 0.102 (chance is 0.1)                      at most 0.3 s
        "mean"          0.259 … 0.273,   "convolution"  0.244 … 0.256      at most 0.7 s
    train_babi(stories(1, seed=seed), kind, seed).accuracy    600 steps; 1,000 generated questions, then 1,000 new ones
        "attention"     0.992 … 1.000 in seeds 0 … 19 (4 heads: 0.993 …)   at most 1.1 s, 0.1 s more for the stories
        "feed-forward"  0.534 … 0.670 in seeds 0 … 19                      at most 0.8 s
        "mean"          0.376 … 0.411,   "convolution"  0.472 … 0.509, seeds 0 … 9

On the published files of task 1, seeds 0 … 4: attention 0.995 … 1.000, feed-forward 0.530 … 0.630, mean 0.387 … 0.411,
convolution 0.472 … 0.494. `stories(1, real=True)` reads those.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import shared
from shared import Tensor, nn, optim
from shared.nn import functional as F
from shared.optim.lr_scheduler import OneCycleLR
from shared.text import PAD, WordVocabulary, babi

SYMBOLS, LENGTH = 10, 12
KINDS = ("attention", "feed-forward", "mean", "convolution")
TIMES = 250  # ages of sentences that have a vector of their own


class Run(NamedTuple):
    """A trained model, its accuracy on questions it was not trained on, and the CPU seconds of the training."""

    model: nn.Module
    accuracy: float
    seconds: float


# ---------------------------------------------------------------- what stands where attention would


class Mixer(nn.Module):
    """Without attention: what the tokens of `x` hand to a query, as a feed-forward network or a convolution makes it.

    (B, S, d), and a query (B, 1, d) or None → (B, S, d) before pooling. Parameters: 4 d² + 3 d or 4 d² + 2 d.
    """

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.kind = kind
        if kind == "convolution":
            self.first, self.second = nn.Conv1d(width, width, 3, padding=1), nn.Linear(width, width)
        else:
            self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "convolution":
            return self.second(F.relu(self.first(x.transpose(1, 2)).transpose(1, 2)))
        return self.second(F.relu(self.first(x)))


# ---------------------------------------------------------------- reversal


def sequences(count: int, seed: int, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Random sequences of symbols (N, length), int64, and the same from back to front."""
    tokens = np.random.RandomState(seed).randint(0, SYMBOLS, (count, length))
    return shared.tensor(tokens), shared.tensor(tokens[:, ::-1].copy())


class Reverser(nn.Module):
    """Tokens (B, T) → logits (B, T, answers · SYMBOLS) by one layer: embedding + position, what it adds, a map."""

    def __init__(self, kind: str, width: int = 32, num_heads: int = 1, length: int = LENGTH, answers: int = 1):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(SYMBOLS, width)
        self.positions = nn.LearnedPositionalEncoding(width, dropout=0.0, max_len=length)
        nn.init.normal_(self.positions.weight)
        self.mix = nn.MultiHeadAttention(width, num_heads) if kind == "attention" else Mixer(kind, width)
        self.answer = nn.Linear(width, answers * SYMBOLS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.positions(self.embed(tokens))
        mixed = self.mix(x)
        if self.kind == "mean":
            mixed = mixed.mean(dim=1, keepdim=True)
        return self.answer(x + mixed)

    def weights(self, tokens: Tensor) -> Tensor:
        """The attention weights (B, heads, T, T)."""
        with shared.no_grad():
            return self.mix(self.positions(self.embed(tokens)), need_weights=True)[1]


def train_reversal(
    kind: str = "attention", seed: int = 0, steps: int = 200, num_heads: int = 1, length: int = LENGTH, lr: float = 0.01
) -> Run:
    """A Reverser after `steps` batches of 64 new sequences; accuracy: the part right of 500 sequences' symbols."""
    shared.manual_seed(seed)
    model = Reverser(kind, num_heads=num_heads, length=length)
    x, y = sequences(64 * steps, 1000 + seed, length)
    test_x, test_y = sequences(500, 5000 + seed, length)
    seconds = fit(model, lambda i: (model(x[64 * i : 64 * i + 64]), y[64 * i : 64 * i + 64]), steps, lr)
    with shared.no_grad():
        right = (model(test_x).argmax(-1) == test_y).float()
    return Run(model, right.mean().item(), seconds)


def fit(model: nn.Module, batch, steps: int, lr: float, final: float = 0.0) -> float:
    """Adam under one cycle; `batch(step)` gives logits (…, C) and targets. CPU seconds."""
    optimizer = optim.Adam(model.parameters(), lr=lr)
    schedule = OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)
    start = time.process_time()
    model.train()
    for step in range(steps):
        logits, targets = batch(step)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    return time.process_time() - start


# ---------------------------------------------------------------- bAbI


class Encoded(NamedTuple):
    """Questions as numbers: `facts` (N, S, W) and `questions` (N, W) are words, `answers` (N,) places in `names`.

    The last sentence is always the last row; what is missing before it, and behind a sentence's words, is padding (0).
    """

    facts: np.ndarray
    questions: np.ndarray
    answers: np.ndarray


class Stories(NamedTuple):
    """A task, ready for a model."""

    train: Encoded
    test: Encoded
    words: WordVocabulary
    names: list[str]
    source: str
    texts: list[babi.Question]  # of the test part


def stories(task: int, questions: int = 1000, real: bool = False, seed: int = 0, memory: int = 50) -> Stories:
    """A task of bAbI, each part of `questions` questions; of a long story the last `memory` sentences."""
    return together((task,), questions, real, seed, memory)[0]


def together(
    numbers: Sequence[int], questions: int = 1000, real: bool = False, seed: int = 0, memory: int = 50
) -> list[Stories]:
    """Several tasks with one vocabulary and the same names of answers."""
    data = [babi.load(task, real=real, questions=questions, seed=seed) for task in numbers]
    every = [q for task in data for part in (task.train, task.test) for q in part]
    text = {line for q in every for line in (*q.facts, q.question)}
    words = WordVocabulary.from_text(sorted(text), specials=(PAD,), lower=True)
    names = sorted({q.answer for q in every})
    size = min(memory, max(len(q.facts) for q in every))
    found = []
    for task in data:
        parts = [encode(part, words, names, size) for part in (task.train, task.test)]
        found.append(Stories(*parts, words, names, task.source, task.test))
    return found


def encode(asked: Sequence[babi.Question], words: WordVocabulary, names: list[str], size: int) -> Encoded:
    """The questions as arrays, stories cut to their last `size` sentences."""
    lines = {line: words.encode(line) for q in asked for line in (*q.facts, q.question)}
    longest = max(map(len, lines.values()))
    rows = {line: np.pad(ids, (0, longest - len(ids))) for line, ids in lines.items()}
    facts = np.zeros((len(asked), size, longest), np.int64)
    for i, q in enumerate(asked):
        told = q.facts[-size:]
        facts[i, size - len(told) :] = [rows[line] for line in told]
    answers = np.array([names.index(q.answer) for q in asked])
    return Encoded(facts, np.array([rows[q.question] for q in asked]), answers)


class Answerer(nn.Module):
    """Sentences (B, S, W) and a question (B, W) → logits (B, answers).

    A sentence is the sum of its words' vectors and of one for its age, counted from the end. The question, the sum of
    its words' vectors, takes something from the sentences in each of `hops` turns, and adds it to itself. The turns
    have weights of their own, unless they are `tied`.
    """

    def __init__(
        self,
        kind: str,
        words: int,
        answers: int,
        width: int = 32,
        num_heads: int = 1,
        hops: int = 1,
        tied: bool = False,
    ):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.age = nn.Embedding(TIMES, width)
        for table in (self.embed, self.age):
            nn.init.normal_(table.weight, std=0.3)
        with shared.no_grad():
            self.embed.weight[0].zero_()
        make = (lambda: nn.MultiHeadAttention(width, num_heads)) if kind == "attention" else lambda: Mixer(kind, width)
        self.turns = nn.ModuleList([make() for _ in range(1 if tied else hops)])
        self.hops = hops
        self.answer = nn.Linear(width, answers)

    def forward(self, facts: Tensor, question: Tensor, weights: list[Tensor] | None = None) -> Tensor:
        real = facts[:, :, 0] != 0
        age = self.age(shared.arange(facts.shape[1] - 1, -1, -1))
        x = self.embed(facts).sum(dim=2) + age
        asked = self.embed(question).sum(dim=1, keepdim=True)
        for hop in range(self.hops):
            asked = asked + self.taken(self.turns[hop % len(self.turns)], x, asked, real, weights)
        return self.answer(asked[:, 0])

    def taken(self, turn: nn.Module, x: Tensor, asked: Tensor, real: Tensor, weights: list[Tensor] | None) -> Tensor:
        """What one turn takes from the sentences, (B, 1, width)."""
        if self.kind == "attention":
            mask = real[:, None, None, :]
            if weights is None:
                return turn(asked, x, mask=mask)
            out, found = turn(asked, x, mask=mask, need_weights=True)
            weights.append(found)
            return out
        share = (real.float() / real.float().sum(dim=1, keepdim=True))[:, :, None]
        if self.kind == "mean":
            return turn(asked + (x * share).sum(dim=1, keepdim=True))
        return (turn(x + asked) * share).sum(dim=1, keepdim=True)


def train_babi(
    data: Stories | Sequence[Stories], kind: str = "attention", seed: int = 0, steps: int = 600, hops: int = 1,
    num_heads: int = 1, width: int = 32, lr: float = 0.01, batch_size: int = 32, tied: bool = False,
) -> Run:  # fmt: skip
    """An Answerer after `steps` batches, each of one task; accuracy: the part of the last task's test it answers."""
    given = [data] if isinstance(data, Stories) else list(data)
    shared.manual_seed(seed)
    model = Answerer(kind, len(given[0].words), len(given[0].names), width, num_heads, hops, tied)
    random = np.random.RandomState(seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        part = given[random.randint(len(given)) if len(given) > 1 else 0].train
        chosen = random.randint(0, len(part.answers), batch_size)
        facts, questions, answers = (shared.tensor(x[chosen]) for x in part)
        return model(facts, questions), answers

    seconds = fit(model, batch, steps, lr)
    return Run(model, accuracy(model, given[-1].test), seconds)


def accuracy(model: Answerer, part: Encoded) -> float:
    """The part of the questions that the model answers."""
    with shared.no_grad():
        guesses = model(shared.tensor(part.facts), shared.tensor(part.questions)).argmax(-1)
    return float((guesses.numpy() == part.answers).mean())

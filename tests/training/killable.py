"""Trainings for `test_kills` to kill: `python -m tests.training.killable NAME FOLDER` trains, or goes on, until the end.

It writes one line for whatever happens: "resumed N", "step N LOSS" (hexadecimal, so to the bit), "saving N", "saved N",
"end WEIGHTS" (their SHA-256). To be killed another training needs no more than a function in TRAININGS that does so.
"""

import hashlib
import os
import random
import sys

import numpy as np

import shared
from shared import checkpoint, nn
from shared.data import Dataset, StatefulDataLoader
from shared.models import GPT, GPTConfig
from shared.optim import lr_scheduler
from shared.training import LMConfig, Trainer, find_checkpoint, load_checkpoint, save_checkpoint


def say(*words):
    """One line, at once: what is left in a buffer dies with the process."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def seed_for(folder):
    """Always the same for a training that begins, and another for each that goes on: nothing is right by chance."""
    seed = 1 if find_checkpoint(folder) is None else 1000 + os.getpid()
    shared.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return seed


def end(model):
    weights = [tensor.numpy().tobytes() for tensor in model.state_dict().values()]
    say("end", hashlib.sha256(b"".join(weights)).hexdigest())


# ---------------------------------------------------------------- the trainer of language models


class Watched(Trainer):
    """A Trainer that writes what it does."""

    def advance(self):
        row = super().advance()
        say("step", self.step, float(row["loss"]).hex())
        return row

    def save(self):
        say("saving", self.step)
        super().save()
        say("saved", self.step)

    def _begin(self, resume):
        super()._begin(resume)
        if self.step:
            say("resumed", self.step)

    def _finish(self):
        """No plot: it would take longer than the training."""


def gpt(folder):
    """A small GPT with dropout and a wide vocabulary, so that saving takes longer than training for three updates."""
    seed_for(folder)
    tokens = np.random.default_rng(0).integers(0, 6000, size=3000)
    model = GPT(GPTConfig(vocab_size=6000, block_size=16, n_layer=2, n_head=2, n_embd=64, dropout=0.2))
    config = LMConfig(
        steps=24,
        batch_size=2,
        accumulation=2,
        max_lr=1e-2,
        min_lr=1e-3,
        warmup_steps=5,
        eval_interval=6,
        eval_batches=2,
        checkpoint_interval=3,
    )
    Watched(model, tokens[:2500], tokens[2500:], config, folder=folder, progress=False).train(resume=True)
    end(model)


# ---------------------------------------------------------------- a loop of its own


class Noisy(Dataset):
    """Two words and a class, different every time, by each of the three sources of randomness."""

    def __init__(self, size=36):
        rng = np.random.default_rng(0)
        self.words = rng.integers(0, WORDS, size=(size, 2))

    def __len__(self):
        return len(self.words)

    def __getitem__(self, i):
        noise = shared.randn(WIDTH) * 0.1 + random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        return self.words[i], noise, int(self.words[i].sum() % 4)


WORDS, WIDTH = 10_000, 64  # 0.6 million parameters, which takes longer to save than to train for a few steps


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.linear = nn.Linear(WIDTH, 4)

    def forward(self, words, noise):
        return self.linear(self.norm(self.dropout(self.words(words).sum(dim=1) + noise)))


def classifier(folder, updates=30, accumulate=2, every=3):
    """Batch norm, dropout, noise from three sources, and accumulation over two batches, so that passes of nine batches end within an update."""
    seed_for(folder)
    model = Classifier()
    optimizer = shared.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = lr_scheduler.warmup_cosine(optimizer, 5, updates)
    loader = StatefulDataLoader(Noisy(), batch_size=4, shuffle=True)
    parts = {"scheduler": scheduler, "data": [loader], "config": {"updates": updates, "accumulate": accumulate}}
    done = 0
    if find_checkpoint(folder) is not None:
        done = load_checkpoint(folder, model, optimizer, **parts)
        say("resumed", done)
    batches = endless(loader)
    while done < updates:
        optimizer.zero_grad()
        total = 0.0
        for _ in range(accumulate):
            words, noise, classes = next(batches)
            loss = nn.functional.cross_entropy(model(words, noise), classes) / accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        scheduler.step()
        done += 1
        say("step", done, total.hex())
        if done % every == 0 or done == updates:
            say("saving", done)
            save_checkpoint(folder, model, optimizer, done, value=total, **parts)
            say("saved", done)
    end(model)


def endless(loader):
    while True:
        yield from loader


TRAININGS = {"gpt": gpt, "classifier": classifier}

if __name__ == "__main__":
    checkpoint.ABANDONED_AFTER = 0.5  # seconds: what an earlier kill left is cleaned up within the test
    TRAININGS[sys.argv[1]](sys.argv[2])

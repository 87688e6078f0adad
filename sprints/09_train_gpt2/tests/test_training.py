"""Sprint 09's milestones on whole trainings: broken off and resumed, and judged by counted bigrams on real text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import shared
from course.oracles import doing, require
from shared.data import RandomWindows, sequential_windows
from shared.models import GPT, GPTConfig
from shared.text import CharVocabulary
from shared.training import LMConfig, Trainer, evaluate_loss, train_step, warmup_cosine

# ------------------------------------------------------------------------ broken off and resumed

LETTERS = np.random.default_rng(0).choice(7, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05], size=600).astype(np.uint16)
SETTINGS = {"steps": 12, "batch_size": 2, "accumulation": 2, "warmup_steps": 3, "eval_interval": 4, "eval_batches": 2}


class Killed(BaseException):
    """As if the process had ended there: nothing is tidied up."""


class Fragile(Trainer):
    """A trainer that is gone before update number `until`."""

    until = 10**9

    def advance(self) -> dict[str, Any]:
        if self.step == self.until:
            raise Killed
        return Trainer.advance(self)


def trained(folder: Path, until: int = 10**9, resume: bool = False) -> list[tuple[float, float]]:
    """(loss, norm) of each update in the log of a training with dropout, which ends before update `until`."""
    shared.manual_seed(1 if resume else 0)  # another process has another state
    sizes = {"vocab_size": 7, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, "dropout": 0.2}
    config = LMConfig(**SETTINGS, max_lr=0.02, min_lr=0.002, checkpoint_interval=4, seed=5)
    trainer = Fragile(GPT(GPTConfig(**sizes)), LETTERS[:500], LETTERS[500:], config, folder=folder, progress=False)
    trainer.until = until
    trainer._finish = lambda: None  # the picture at the end takes longer than the training
    try:
        with doing("a training of twelve updates"):
            trainer.train(resume=resume)
    except Killed:
        pass
    rows = [row for row in trainer.log.rows if "lr" in row]
    return [(row["loss"], row["norm"]) for row in rows]


def test_a_training_that_is_broken_off_and_resumed_has_the_losses_of_the_unbroken_one(tmp_path):
    whole = trained(tmp_path / "whole")
    require(len(whole) == 12, f"a training of twelve updates has {len(whole)} in its log")
    first = trained(tmp_path / "broken", until=7)
    require(first == whole[:7], "two trainings with one seed have different losses before one of them is broken off")
    resumed = trained(tmp_path / "broken", resume=True)
    require(len(resumed) == 12, f"the log of the resumed training has {len(resumed)} updates, where 12 are expected")
    wrong = next((step for step, (a, b) in enumerate(zip(whole, resumed, strict=True), 1) if a != b), 0)
    a, b = whole[wrong - 1], resumed[wrong - 1]
    require(
        not wrong,
        f"resumed from the checkpoint of step 4, update {wrong} has a loss of {b[0]!r} and a norm of {b[1]!r}, where "
        f"the unbroken training has {a[0]!r} and {a[1]!r}. Weights, the optimizer's means, the schedule, the place in "
        "the text and the generator of dropout are all in the checkpoint: what else does an update depend on?",
    )


# ------------------------------------------------------------------------ real text

# Over the seeds 0 to 2 the loss on unseen text is 0.13 to 0.16 nats per character below that of counted bigrams on
# TinyShakespeare, and 0.12 to 0.15 on Python's reference, which stands in for it where there is no network.
STEPS, BATCH, LENGTH = 320, 32, 8
MARGIN = 0.05
SEEN, UNSEEN = 300_000, 1 << 14  # characters


def bigram_nats(train: np.ndarray, unseen: np.ndarray, size: int) -> float:
    """Nats per character of counted pairs, one added to each count so that none is impossible."""
    counts = np.ones((size, size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    logs = np.log(counts / counts.sum(1, keepdims=True))
    return float(-logs[unseen[:-1], unseen[1:]].mean())


def small(train: np.ndarray, unseen: np.ndarray, size: int, seed: int = 0) -> tuple[list[float], float]:
    """The losses of a small GPT's training, and its nats per character on the unseen text afterwards."""
    shared.manual_seed(seed)
    sizes = {"block_size": LENGTH, "n_layer": 2, "n_head": 4, "n_embd": 48, "dropout": 0.0, "bias": False}
    model = GPT(GPTConfig(vocab_size=size, **sizes))
    optimizer = model.configure_optimizers(lr=1.0)
    losses = []
    for step, (inputs, targets) in zip(range(STEPS), RandomWindows(train, BATCH, LENGTH, seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, 6e-3, 5e-4, 100, STEPS)
        losses.append(train_step(model, optimizer, inputs, targets)[0])
    return losses, evaluate_loss(model, sequential_windows(unseen, 64, LENGTH))


def test_a_small_gpt_is_less_surprised_by_real_text_than_counted_bigrams(record_property):
    parts = [part.text for part in shared.data.load("tinyshakespeare", fallback=True)]
    vocabulary = CharVocabulary.from_text("".join(parts))
    train, unseen = (np.array(vocabulary.encode(part), np.int64) for part in (parts[0][:SEEN], parts[1][:UNSEEN]))
    size = vocabulary.vocab_size
    bigrams = bigram_nats(train, unseen, size)
    with doing("training a small GPT on real text"):
        losses, nats = small(train, unseen, size)
    record_property("nats", nats)
    require(
        abs(losses[0] - math.log(size)) < 0.5,
        f"the first loss is {losses[0]:.2f} nats; a model that knows nothing is as surprised by any of the {size} "
        f"characters: ln {size} = {math.log(size):.2f}",
    )
    require(
        nats < bigrams - MARGIN,
        f"after {STEPS} updates the loss on unseen text is {nats:.3f} nats per character, where counted bigrams have "
        f"{bigrams:.3f} and at least {MARGIN} less is asked for. The training loss went from {losses[0]:.2f} to "
        f"{np.mean(losses[-10:]):.2f}. Are targets the next tokens, is every line of an update there, does the rate "
        "rise and fall?",
    )
    require(
        nats > bigrams - 1.2,
        f"the loss on unseen text is {nats:.3f} nats, {bigrams - nats:.2f} below that of counted bigrams: no model of "
        "this size knows so much after so few updates, unless it sees the characters that it is to predict",
    )

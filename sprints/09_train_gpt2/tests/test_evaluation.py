"""Sprint 09's milestone on measuring a model: the mean over all tokens, and nothing is changed. Mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import shared
from course.oracles import check, doing, require
from shared import nn
from shared.autograd import is_grad_enabled
from shared.training.next_token import evaluate_loss

# What the model expects after each word, and three batches of different sizes: 2 · 4, 1 · 4 and 1 · 1 tokens.
P = np.array(
    [[1 / 4, 1 / 2, 1 / 8, 1 / 8], [1 / 16, 7 / 16, 1 / 4, 1 / 4], [1 / 2, 1 / 64, 15 / 64, 1 / 4], [1 / 4] * 4]
)
INPUTS = [np.array([[0, 1, 2, 0], [0, 0, 3, 1]]), np.array([[2, 3, 1, 0]]), np.array([[2]])]
TARGETS = [np.array([[1, 2, 0, 3], [0, 1, 1, 0]]), np.array([[1, 1, 2, 1]]), np.array([[1]])]
BITS = [-np.log2(P[x, y]) for x, y in zip(INPUTS, TARGETS, strict=True)]
TOKENS, LN2 = 13, math.log(2)
HINTS = {
    "has no len": "`batches` may be a generator, which has no length and can be gone through once: count on the way.",
    "not subscriptable": "`batches` may be a generator, which can only be gone through, once.",
    "no batch": "Has something gone through `batches` before? A generator can be gone through once, then it is empty.",
    "division by zero": "Is anything counted? And without a batch a ValueError is expected.",
}


class Watched(nn.Module):
    """A table of what follows each word, behind dropout; notes in which state it is called."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 4, dtype=shared.float64)
        self.dropout = nn.Dropout(0.5)
        with shared.no_grad():
            self.table.weight.copy_(shared.tensor(np.log(P)))
        self.called: list[dict[str, bool]] = []
        self.casting = False

    def forward(self, ids: shared.Tensor) -> shared.Tensor:
        self.called.append({"training": self.training, "recording": is_grad_enabled(), "cast": self.casting})
        return self.dropout(self.table(ids))

    @contextmanager
    def cast(self) -> Iterator[None]:
        """What an autocast region would be."""
        self.casting = True
        yield
        self.casting = False


def batches() -> Iterator[tuple[shared.Tensor, shared.Tensor]]:
    for x, y in zip(INPUTS, TARGETS, strict=True):
        yield shared.tensor(x), shared.tensor(y)


def mistakes() -> dict[str, Any]:
    """What the loss would be by one wrong turn."""
    means = [bits.mean() * LN2 for bits in BITS]
    total = sum(bits.sum() for bits in BITS) * LN2
    windows = [len(bits) for bits in BITS]
    rows = [row.mean() * LN2 for bits in BITS for row in bits]
    return {
        "the mean of the batches' means: the last batch has fewer tokens, and counts as much": float(np.mean(means)),
        "the mean of the windows' means: what is left at the end is a shorter window, and counts as much": float(
            np.mean(rows)
        ),
        "a batch's mean times its windows, over all tokens": sum(n * m for n, m in zip(windows, means, strict=True))
        / TOKENS,
        "a batch's mean times its width, over the sum of the widths": sum(
            bits.shape[1] * m for bits, m in zip(BITS, means, strict=True)
        )
        / sum(bits.shape[1] for bits in BITS),
        "the last batch alone": means[-1],
        "the first batch alone": means[0],
        "all batches but the last": (BITS[0].sum() + BITS[1].sum()) * LN2 / 12,
        "all batches but the first": (BITS[1].sum() + BITS[2].sum()) * LN2 / 5,
        "a sum over all tokens": total,
        "a sum of the batches' means": sum(means),
        "a sum of means over all tokens: a batch's loss is a mean, times its tokens is its sum": sum(means) / TOKENS,
        "a sum over all tokens, divided by the batches": total / 3,
        "a sum over all tokens, divided by the windows": total / 4,
        "bits: nats are asked for": total / TOKENS / LN2,
        "the perplexity: the loss is asked for": math.exp(total / TOKENS),
        "the mean of the batches' perplexities": float(np.mean(np.exp(means))),
        "the largest batch's loss": max(means),
        "the smallest batch's loss": min(means),
    }


def measured(model: Watched, what: str, **options: Any) -> Any:
    with doing(what, HINTS):
        loss = evaluate_loss(model, batches(), **options)
    require(loss is not None, f"{what} returns None: is a `return` missing?")
    require(isinstance(loss, float), f"{what} returns a {type(loss).__name__}: a float is asked for, by .item()")
    return loss


def check_state(training: bool) -> None:
    """The loss, and all that has to be as before."""
    model = Watched()
    shared.manual_seed(7)
    model(shared.tensor(INPUTS[0])).sum().backward()
    model.train(training)
    model.called.clear()
    before = model.table.weight.tolist(), model.table.weight.grad.tolist()
    random = np.asarray(shared.get_rng_state()).tolist()
    what = f"evaluate_loss of a model in {'train' if training else 'eval'} mode"
    loss = measured(model, what)
    require(
        not any(call["training"] for call in model.called),
        f"{what}: the model is in train mode while it is measured, and half of it drops out: model.eval() comes first",
    )
    require(
        len(model.called) == 3,
        f"{what} calls the model {len(model.called)} times for three batches",
    )
    require(
        not any(call["recording"] for call in model.called),
        f"{what}: a graph is recorded, which holds all activations for a backward() that never comes: with no_grad()",
    )
    check(f"the loss of thirteen tokens in batches of 8, 4 and 1 by {what}", loss, wanted(), mistakes(), 1e-7)
    require(
        model.training is training and model.dropout.training is training,
        f"{what} leaves it in {'eval' if training else 'train'} mode: "
        + (
            "the training goes on without dropout" if training else "it comes back as it came, not always in train mode"
        ),
    )
    require(is_grad_enabled(), f"{what} leaves recording switched off: use `with no_grad():`, which ends by itself")
    gradient = None if model.table.weight.grad is None else model.table.weight.grad.tolist()
    require(gradient == before[1], f"{what} changes the gradient that is there, perhaps half of an accumulation")
    require(model.table.weight.tolist() == before[0], f"{what} changes the weights")
    require(
        np.asarray(shared.get_rng_state()).tolist() == random,
        f"{what} draws random numbers, or sets a seed: a training that is measured more often would be another one",
    )


def wanted() -> float:
    return sum(float(bits.sum()) for bits in BITS) * LN2 / TOKENS


def check_after_an_error() -> None:
    def failing() -> Iterator[tuple[shared.Tensor, shared.Tensor]]:
        yield shared.tensor(INPUTS[0]), shared.tensor(TARGETS[0])
        raise KeyboardInterrupt

    model = Watched().train()
    with pytest.raises(KeyboardInterrupt):
        evaluate_loss(model, failing())
    require(
        model.training,
        "a measurement that is broken off leaves the model in eval mode: the mode is restored in a `finally`, and a "
        "notebook can go on",
    )
    try:
        loss = evaluate_loss(model, iter(()))
    except ValueError:
        loss = None
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(
            f"evaluate_loss without a batch ends in {type(error).__name__}: {error}, where a ValueError that "
            "says so is expected",
            pytrace=False,
        )
    require(loss is None, f"evaluate_loss without a batch is {loss}: a ValueError is expected, nothing was measured")


def test_measuring_is_the_mean_over_all_tokens_and_changes_nothing():
    check_state(training=True)
    check_state(training=False)
    model = Watched()
    measured(model, "evaluate_loss in a cast", cast=model.cast)
    require(all(call["cast"] for call in model.called), "a forward pass is not inside `with cast():`")
    check_after_an_error()

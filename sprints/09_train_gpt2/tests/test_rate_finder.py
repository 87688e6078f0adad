"""Sprint 09's milestone on the sweep that finds a learning rate. A known mistake is named in the message."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import shared
from course.oracles import check, doing, require
from shared import nn
from shared.optim import SGD, AdamW
from shared.training.lr_finder import find_learning_rate, one_update


class Slope(nn.Module):
    """One weight w, whose loss is w²: SGD with rate r takes it to w · (1 − 2r)."""

    def __init__(self, start: float = 4.0, dropout: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(shared.tensor([start], dtype=shared.float64))
        self.bias = nn.Parameter(shared.tensor([0.0], dtype=shared.float64))
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> shared.Tensor:
        return (self.dropout(self.weight) ** 2 + self.bias**2).sum()


def swept(lowest: float, highest: float, steps: int, stop_at: float = 4.0, **wrong: Any) -> tuple[list, list]:
    """Rates and losses for Slope by hand, or with one wrong turn."""
    w, velocity, rates, losses = 4.0, 0.0, [], []
    for i in range(steps):
        part = i / wrong.get("over", steps - 1)
        rate = lowest * (highest / lowest) ** part if not wrong.get("linear") else lowest + (highest - lowest) * part
        before = w
        gradient = 2 * w + (velocity if wrong.get("kept") else 0)
        velocity = gradient
        w -= (wrong.get("rate") or rate) * gradient
        loss = w**2 if wrong.get("after") else before**2
        if wrong.get("anew"):
            w = 4.0
        rates.append(rate)
        losses.append(loss)
        if loss > stop_at * min(losses):
            break
    return rates, losses


def check_sweep() -> None:
    model = Slope()
    optimizer = SGD(model.parameters(), lr=0.125)
    with doing("find_learning_rate of w² from 0.01 to 100 in 5 steps"):
        pair = find_learning_rate(model, model, optimizer, lowest=0.01, highest=100, steps=5, stop_at=1e99)
    require(pair is not None, "find_learning_rate returns None: is a `return` missing?")
    rates, losses = pair
    wanted = swept(0.01, 100, 5, 1e99)
    check(
        "the rates that were tried, from 0.01 to 100 in 5 steps",
        rates,
        wanted[0],
        {
            "steps of the same size: each rate is the same factor above the one before": swept(
                0.01, 100, 5, 1e99, linear=True
            )[0],
            "a factor of (highest / lowest) ** (1 / steps), so that `highest` is never reached: five rates have four "
            "steps between them": swept(0.01, 100, 5, 1e99, over=5)[0],
            "a rate that is multiplied before it is used: the first one tried is `lowest`": [10 * r for r in wanted[0]],
            "a last rate that is missing: the loss that ends the sweep is in the result": wanted[0][:-1],
            "the rates from above": wanted[0][::-1],
        },
        1e-9,
    )
    check(
        "the losses of w² from w = 4: each is the one before the update with its rate",
        losses,
        wanted[1],
        {
            "losses after the update: losses[i] is the one before the update with rates[i]": swept(
                0.01, 100, 5, 1e99, after=True
            )[1],
            "a gradient that is not cleared: each update adds all gradients before it": swept(
                0.01, 100, 5, 1e99, kept=True
            )[1],
            "a model that begins anew with each rate: it goes on from where it is": swept(
                0.01, 100, 5, 1e99, anew=True
            )[1],
            "the optimizer's own rate in all updates: is it set in param_groups?": swept(
                0.01, 100, 5, 1e99, rate=0.125
            )[1],
            "no update": [16.0] * 5,
        },
        1e-6,
    )
    require(
        all(isinstance(loss, float) for loss in losses),
        f"losses are {type(losses[0]).__name__}s: a loss as a Tensor keeps the whole graph of its batch in memory",
    )


def endless() -> str:
    """Which end is meant by a sweep that goes on where the loss is above four times the lowest: another row tells."""
    given = [1.0, 2.0, 0.25, 3.5, 4.5, 5.0]  # 3.5 is above 4 · 0.25, the lowest and the one before; 4.5 above 4 · 1
    model, coming = Slope(), iter(given)
    losses = find_learning_rate(
        model, lambda: model() * 0 + next(coming), SGD(model.parameters(), lr=1.0), steps=6, stop_at=4.0
    )[1]
    ends = {4: "an end beside the loss before it", 5: "an end beside the first loss"}
    return f"{ends.get(len(losses), 'no end')}, where the lowest so far is meant"


def check_end() -> None:
    given = [10.0, 2.0, 8.0, 5.0, 9.0, 7.0]  # 8 is not above 4 · 2, but 9 is
    model, coming = Slope(), iter(given)
    with doing("a sweep that ends above 4 times the lowest loss"):
        rates, losses = find_learning_rate(
            model, lambda: model() * 0 + next(coming), SGD(model.parameters(), lr=1.0), steps=6, stop_at=4.0
        )
    looks = {
        1: "stop_at taken for a loss: it is a factor, of the lowest loss so far",
        6: endless() if len(losses) == 6 else "",
        4: "a last loss that is missing: the one that ends the sweep is in the result",
        3: "an end at stop_at times the lowest, where it is to be above",
    }
    require(
        losses == given[:5] and len(rates) == 5,
        f"a sweep with losses 10, 2, 8, 5, 9, 7 and stop_at=4 gives {losses} and {len(rates)} rates, where 9 is the "
        f"last: the first above 4 times the lowest so far. That is what one gets from: "
        f"{looks.get(len(losses), 'another end')}.",
    )
    bad = iter([3.0, 2.0, math.nan, 1.0])
    model = Slope()
    with doing("a sweep in which a loss is NaN"):
        rates, losses = find_learning_rate(
            model, lambda: model() * 0 + next(bad), SGD(model.parameters(), lr=1.0), steps=4, stop_at=9.0
        )
    require(
        not any(math.isnan(loss) for loss in losses),
        "a loss that is NaN is among the losses: it ends the sweep and is left out",
    )
    require(
        losses == [3.0, 2.0] and len(rates) == 2,
        f"losses of 3, 2 and NaN give rates {rates} and losses {losses}: the sweep ends where one is not finite, and "
        "rates and losses are of one length",
    )


def check_as_before() -> None:
    model = Slope(dropout=0.5)
    optimizer = AdamW([{"params": [model.weight], "lr": 0.25}, {"params": [model.bias], "lr": 0.5}])
    shared.manual_seed(3)
    for failing in (False, True):
        model.train()
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        model.train(False)
        before = model.weight.detach().tolist(), model.weight.grad.tolist()
        moments = [np.asarray(s["exp_avg"]).tolist() for s in optimizer.state.values()]
        random, rates, seen = np.asarray(shared.get_rng_state()).tolist(), [], []

        def loss(failing=failing, rates=rates, seen=seen) -> shared.Tensor:
            rates.append([group["lr"] for group in optimizer.param_groups])
            seen.append(model.training)
            if failing and len(rates) == 3:
                raise KeyboardInterrupt
            return model()

        try:
            with doing("a sweep with AdamW, two groups and dropout"):
                find_learning_rate(model, loss, optimizer, lowest=0.01, highest=1.0, steps=4, stop_at=1e9)
        except KeyboardInterrupt:
            pass
        when = "after a sweep that was broken off by an error" if failing else "after the sweep"
        require(
            all(abs(a - b) < 1e-12 for a, b in rates) or len({b for _, b in rates}) > 1,
            "the rate is set in the first group alone: an optimizer may have several, as decay_groups makes them",
        )
        require(all(seen), "the sweep runs in eval mode: its losses should be those of a training, with dropout")
        require(
            model.weight.tolist() == before[0],
            f"{when} the weight is {model.weight.tolist()}, where it was {before[0]}: a sweep is to leave no trace",
        )
        told = [group["lr"] for group in optimizer.param_groups]
        require(told == [0.25, 0.5], f"{when} the optimizer's rates are {told}, where they were 0.25 and 0.5")
        now = [np.asarray(s["exp_avg"]).tolist() for s in optimizer.state.values()]
        require(now == moments, f"{when} the optimizer's running means are {now}, where they were {moments}")
        gradient = None if model.weight.grad is None else model.weight.grad.tolist()
        require(gradient == before[1], f"{when} the gradient is {gradient}, where it was {before[1]}")
        require(not model.training, f"{when} the model is in train mode, where it was in eval mode")
        require(
            np.asarray(shared.get_rng_state()).tolist() == random,
            f"{when} the generator is elsewhere: with dropout, a training would go on differently",
        )


def check_refused() -> None:
    for options in ({"lowest": 0.0}, {"lowest": 1.0, "highest": 0.1}, {"steps": 1}):
        model = Slope()
        try:
            find_learning_rate(model, model, SGD(model.parameters(), lr=1.0), **options)
        except ValueError:
            continue
        except NotImplementedError:
            raise
        except Exception as error:
            told = f"ends in {type(error).__name__}: {error}"
        else:
            told = "goes on"
        pytest.fail(f"a sweep with {options} {told}, where a ValueError that says so is expected", pytrace=False)


def check_one_update() -> None:
    model = Slope()
    model.weight.grad = shared.tensor([100.0], dtype=shared.float64)
    with doing("one_update of w² with rate 0.25"):
        loss = one_update(SGD(model.parameters(), lr=9.0), model, 0.25)
    require(
        isinstance(loss, float),
        f"one_update returns a {type(loss).__name__}: the loss before the update is asked for, as a float",
    )
    check("the loss that one_update returns, from w = 4", loss, 16.0, {"the loss after the update": 4.0})
    check(
        "the weight after one_update with rate 0.25 from w = 4: 4 − 0.25 · 8",
        model.weight.tolist(),
        [2.0],
        {
            "the gradient of before added: it has to be cleared first": [4 - 0.25 * 108],
            "the gradient of before alone": [4 - 0.25 * 100],
            "the optimizer's own rate: `rate` belongs into every one of param_groups": [4 - 9 * 8.0],
            "no update": [4.0],
            "two updates": [0.0],
            "an update uphill": [6.0],
        },
    )


def test_a_sweep_of_rates_shows_where_the_loss_falls_and_leaves_no_trace():
    check_one_update()
    check_sweep()
    check_end()
    check_as_before()
    check_refused()

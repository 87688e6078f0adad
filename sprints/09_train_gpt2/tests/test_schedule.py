"""Sprint 09's milestones on the schedule and on what decays. A known mistake is named in the message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import shared
from course.oracles import check, doing, require
from shared.models import GPT, GPTConfig
from shared.optim import AdamW
from shared.training.schedule import warmup_cosine

# ------------------------------------------------------------------------ warm-up and cosine


def curve(rate: Callable[[int], float], steps: int = 13) -> list[float]:
    return [rate(step) for step in range(steps)]


def mistakes(high: float, low: float, warm: int, end: int) -> dict[str, list[float]]:
    """The curve of thirteen updates with one wrong turn."""

    def half(done: float, to: float = low, of: float = high - low) -> float:
        return to + 0.5 * (1 + math.cos(math.pi * done)) * of

    def after(step: int) -> float:
        return half((step - warm) / (end - warm)) if step < end else low

    def rising(first: Callable[[int], float], until: int = warm) -> list[float]:
        return curve(lambda step: first(step) if step < until else after(step))

    def falling(later: Callable[[int], float], flat: bool = True) -> list[float]:
        return curve(
            lambda step: high * (step + 1) / (warm + 1) if step < warm else low if flat and step >= end else later(step)
        )

    span = end - warm
    found = {
        "step / warmup_steps: the first update has rate 0 and does nothing, and is lost": lambda: rising(
            lambda s: high * s / warm
        ),
        "(step + 1) / warmup_steps: the warm-up is at its top one update early, and there twice": lambda: rising(
            lambda s: high * (s + 1) / warm
        ),
        "step / (warmup_steps + 1): the first update has rate 0": lambda: rising(lambda s: high * s / (warm + 1)),
        "no warm-up: the first updates have the full rate": lambda: rising(lambda s: high),
        "the cosine from the first update on, without a warm-up": lambda: curve(
            lambda s: half((s - warm) / span) if 0 <= s < end else low
        ),
        "a warm-up that begins at min_lr: it begins near 0": lambda: rising(
            lambda s: low + (high - low) * (s + 1) / (warm + 1)
        ),
        "a warm-up to min_lr": lambda: rising(lambda s: low * (s + 1) / (warm + 1)),
        "a warm-up along a cosine: it is linear": lambda: rising(
            lambda s: high * 0.5 * (1 - math.cos(math.pi * (s + 1) / (warm + 1)))
        ),
        "min_lr during the whole warm-up": lambda: rising(lambda s: low),
        "a warm-up that is one update too long, so that update `warmup_steps` is not at the top": lambda: rising(
            lambda s: high * (s + 1) / (warm + 2), warm + 1
        ),
        "a cosine that is counted from update 0, so that the rate jumps down after the warm-up": lambda: falling(
            lambda s: half(s / end)
        ),
        "(step − warmup_steps) / decay_steps, so that the rate jumps down at the end": lambda: falling(
            lambda s: half((s - warm) / end)
        ),
        "decay_steps counted from the end of the warm-up: they are counted from 0, as `step` is": lambda: falling(
            lambda s: half((s - warm) / end) if s < end + warm else low, flat=False
        ),
        "a cosine that ends one update too early": lambda: falling(
            lambda s: half((s - warm) / (span - 1)) if s < end - 1 else low
        ),
        "a cosine that ends one update too late": lambda: falling(
            lambda s: half((s - warm) / (span + 1)) if s < end + 1 else low, flat=False
        ),
        "a cosine that begins one update too late: update `warmup_steps` is at the top": lambda: falling(
            lambda s: half((s - warm - 1) / (span - 1)) if s > warm else high
        ),
        "a cosine that has begun one update before: update `warmup_steps` is at the top": lambda: falling(
            lambda s: half((s - warm + 1) / span)
        ),
        "min_lr ignored: the cosine falls to 0": lambda: (
            falling(lambda s: half((s - warm) / span, 0, high), False)[:end] + [0.0] * (13 - end)
        ),
        "min_lr ignored while the rate falls, so that it jumps up at the end": lambda: falling(
            lambda s: half((s - warm) / span, 0, high)
        ),
        "min_lr added to a cosine of height max_lr: the height is max_lr − min_lr": lambda: falling(
            lambda s: half((s - warm) / span, low, high)
        ),
        "the larger of cosine and min_lr: the cosine itself is to end at min_lr": lambda: falling(
            lambda s: max(low, half((s - warm) / span, 0, high))
        ),
        "a straight line instead of half a cosine": lambda: falling(lambda s: high + (low - high) * (s - warm) / span),
        "a whole cosine, down and up again: half of it, cos from 0 to π": lambda: falling(
            lambda s: half(2 * (s - warm) / span)
        ),
        "a quarter of a cosine: cos from 0 to π/2": lambda: falling(
            lambda s: low + math.cos(math.pi / 2 * (s - warm) / span) * (high - low)
        ),
        "a cosine without 1 + and ½, which goes below 0": lambda: falling(
            lambda s: low + math.cos(math.pi * (s - warm) / span) * (high - low)
        ),
        "1 − cos, which rises": lambda: falling(lambda s: low + high - half((s - warm) / span)),
        "cos without the factor π": lambda: falling(lambda s: half((s - warm) / span / math.pi)),
        "degrees: the cosine of math is of radians": lambda: falling(
            lambda s: low + 0.5 * (1 + math.cos(180 * (s - warm) / span)) * (high - low)
        ),
        "a factor 2 for the missing ½": lambda: falling(
            lambda s: low + (1 + math.cos(math.pi * (s - warm) / span)) * (high - low)
        ),
        "after decay_steps the cosine rises again: from there the rate stays at min_lr": lambda: falling(
            lambda s: half((s - warm) / span), flat=False
        ),
        "0 after decay_steps: the rate stays at min_lr": lambda: [*falling(after)[:end], *[0.0] * (13 - end)],
        "max_lr after decay_steps: the rate stays at min_lr": lambda: [*falling(after)[:end], *[high] * (13 - end)],
        "max_lr until the end: nothing falls. Is the part that is done rounded down, by //?": lambda: falling(
            lambda s: high
        ),
        "a factor of max_lr: the rate itself is asked for": lambda: [rate / high for rate in falling(after)],
    }
    return {name: make() for name, make in found.items() if warm or "step / warmup" not in name}


def check_curve(high: float, low: float, warm: int, end: int) -> None:
    what = f"warmup_cosine from {high:g} to {low:g}, warm-up {warm}, decay {end}"
    with doing(
        what, {"division by zero": "Without a warm-up there is nothing to divide by: the cosine begins at once."}
    ):
        found = curve(lambda step: warmup_cosine(step, high, low, warm, end))
    require(None not in found, f"{what} is None in update {found.index(None) if None in found else 0}: a `return`?")
    done = [(step - warm) / (end - warm) for step in range(13)]
    wanted = [
        high * (step + 1) / (warm + 1)
        if step < warm
        else low + (high - low) * (1 + math.cos(math.pi * part)) / 2
        if step < end
        else low
        for step, part in enumerate(done)
    ]
    check(f"the rates of updates 0 to 12 by {what}", found, wanted, mistakes(high, low, warm, end), 1e-7 * high)
    require(all(isinstance(rate, float) for rate in found), f"{what}: a rate is a float, not {type(found[0]).__name__}")


def check_no_cosine() -> None:
    """Where the decay ends with the warm-up, or before it: a line, then min_lr."""
    for warm, end in ((4, 4), (4, 2)):
        what = f"warmup_cosine with a warm-up of {warm} and decay_steps {end}"
        with doing(what, {"division by zero": "Update decay_steps has min_lr: step >= decay_steps, not >."}):
            found = curve(lambda step, warm=warm, end=end: warmup_cosine(step, 2.0, 0.4, warm, end), 7)
        line = [2.0 * (step + 1) / 5 for step in range(4)]
        turns = {
            "decay_steps looked at before the warm-up: update numbers below warmup_steps are on its line": [
                *line[:end],
                *[0.4] * (7 - end),
            ]
        }
        check(f"the rates of updates 0 to 6 by {what}", found, [*line, 0.4, 0.4, 0.4], turns, 1e-7)


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    check_curve(2.0, 0.4, 3, 9)  # 0.5, 1, 1.5, 2, then the cosine, then 0.4
    check_curve(6e-4, 6e-5, 4, 10)
    check_curve(1.0, 0.2, 0, 8)
    check_curve(1.0, 0.0, 2, 12)
    check_no_cosine()


# ------------------------------------------------------------------------ what decays

SIZES = {"vocab_size": 7, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4, "dropout": 0.0}


def gpt(**changes: Any) -> GPT:
    shared.manual_seed(0)
    return GPT(GPTConfig(**(SIZES | changes)))


def named(model: GPT, groups: Any) -> list[tuple[list[str], float | None]]:
    """(names of its parameters, weight_decay) of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    known = {id(value): name for name, value in model.state_dict().items()}
    found = []
    for group in groups:
        members = list(group["params"])
        strange = [p for p in members if id(p) not in names]
        copies = [known[id(p)] for p in strange if id(p) in known]
        require(
            not strange,
            "a group has Tensors that are not the model's parameters"
            + (f" ({copies[0]} of state_dict(), which has no gradient)" if copies else ": are they copies, or names?"),
        )
        found.append(([names[id(p)] for p in members], group.get("weight_decay")))
    return found


def told(name: str) -> str:
    """What kind of parameter a name is."""
    if name.endswith("bias"):
        return "biases"
    if "norm" in name:
        return "the scales of norms"
    return "the tables of tokens and positions" if "embedding" in name or "positions" in name else "matrices"


def check_groups(what: str, model: GPT) -> None:
    with doing(f"decay_groups(0.3) of {what}"):
        groups = model.decay_groups(0.3)
        for group in groups or ():
            kind = type(group["params"])
            require(kind in (list, tuple), f"the params of a group are a {kind.__name__}, where a list is expected")
        found = named(model, groups) if groups is not None else []
    require(groups is not None, "decay_groups returns None: is a `return` missing?")
    require(
        all(decay is not None for _, decay in found),
        "a group says nothing of its weight_decay: it then has AdamW's own default of 0.01; 0.0 has to be said",
    )
    members = [name for names, _ in found for name in names]
    twice = sorted({name for name in members if members.count(name) > 1})
    require(not twice, f"{twice} of {what} are in the groups twice, and would be updated twice")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = [name for name in members if name not in trained]
    require(not frozen, f"{frozen} of {what} are in the groups though they require no gradient: frozen is not trained")
    missing = sorted(trained - set(members))
    require(not missing, f"{missing} of {what} are in no group, and would never be trained")
    decays = {name: decay for names, decay in found for name in names}
    wanted = {name: 0.3 if p.ndim >= 2 else 0.0 for name, p in model.named_parameters() if p.requires_grad}
    wrong = {name: decays[name] for name in wanted if decays[name] != wanted[name]}
    if wrong == {name: 0.3 - wanted[name] for name in wanted}:
        pytest.fail(f"the two groups of {what} are exchanged: matrices and tables decay", pytrace=False)
    if not wrong:
        require(
            [decay for _, decay in found] == [0.3, 0.0],
            f"decay_groups(0.3) of {what} gives groups with a weight_decay of {[decay for _, decay in found]}, where "
            "two are expected, [0.3, 0.0]: what decays comes first, and a group that nobody is in is there too",
        )
        return
    strengths = {decays[name] for name, decay in wanted.items() if decay}
    if len(strengths) == 1 and not strengths & {0.0, 0.3} and all(wanted[name] for name in wrong):
        pytest.fail(
            f"in {what} the right ones decay, but by {strengths.pop():g}, whatever decay_groups is given: it was 0.3",
            pytrace=False,
        )
    kinds = [kind for kind in dict.fromkeys(map(told, wrong)) if kind]
    never = all(decay == 0 for decay in decays.values())
    how = "nothing decays" if never else f"{' and '.join(kinds)} {'decay' if max(wrong.values()) else 'do not decay'}"
    rule = "what has two dimensions or more decays, matrices and tables; biases and norms, of one dimension, do not"
    first = next(iter(wrong))
    pytest.fail(
        f"in {what} {how}: {rule}.\n{first} has a weight_decay of {wrong[first]}, where {wanted[first]} is expected",
        pytrace=False,
    )


def decayed(model: GPT, optimizer: Any) -> dict[str, float]:
    """The factor by which an update shrinks each parameter that has no gradient to follow."""
    with shared.no_grad():
        for p in model.parameters():
            p.copy_(shared.ones_like(p))
            p.grad = shared.zeros_like(p)
    optimizer.step()
    return {name: float(p.detach().numpy().mean()) for name, p in model.named_parameters()}


def check_optimizer() -> None:
    model = gpt()
    with doing("configure_optimizers(lr=0.5, weight_decay=0.2, betas=(0.7, 0.8), eps=1e-3)"):
        optimizer = model.configure_optimizers(lr=0.5, weight_decay=0.2, betas=(0.7, 0.8), eps=1e-3)
    require(optimizer is not None, "configure_optimizers returns None: is a `return` missing?")
    require(
        isinstance(optimizer, AdamW),
        f"configure_optimizers returns {type(optimizer).__name__}: AdamW is asked for, whose decay shrinks weights "
        "by themselves; Adam's enters the gradient, where it is divided by the root of the mean square",
    )
    for group in optimizer.param_groups:
        for name, wanted in (("lr", 0.5), ("betas", (0.7, 0.8)), ("eps", 1e-3)):
            value = tuple(group[name]) if name == "betas" else group[name]
            require(
                value == wanted,
                f"the optimizer's {name} is {value}, where {wanted} was given: is {name} handed on to AdamW?",
            )
    factors = decayed(model, optimizer)
    wanted = {name: 1 - 0.5 * 0.2 if p.ndim >= 2 else 1.0 for name, p in model.named_parameters()}
    for name, factor in factors.items():
        both = f"an update without a gradient leaves {factor:.4g} of {name}, where {wanted[name]:.4g} is expected"
        all_alike = len({round(f, 6) for f in factors.values()}) == 1
        require(
            abs(factor - wanted[name]) < 1e-6,
            f"{both}, as if its weight_decay were {(1 - factor) / 0.5:.3g}, where 0.2 was given"
            f"{': all parameters are treated alike, as if there were no groups' if all_alike else ''}",
        )
    frozen = gpt(bias=False)
    for p in frozen.parameters():
        p.requires_grad_(p.ndim >= 2)
    with doing("configure_optimizers of a model whose norms are frozen, so that one group has nobody in it"):
        optimizer = frozen.configure_optimizers(lr=0.1)
    require(
        all(len(group["params"]) for group in optimizer.param_groups),
        "configure_optimizers hands on a group that nobody is in: AdamW gets the groups with somebody in them",
    )
    require(
        sum(len(group["params"]) for group in optimizer.param_groups)
        == sum(p.requires_grad for p in frozen.parameters()),
        "configure_optimizers of a model with frozen parameters has others in it than those that are trained",
    )


def test_matrices_and_tables_decay_and_nothing_else_does():
    check_groups("a GPT with biases", gpt())
    check_groups("a GPT whose head has a table of its own", gpt(tie_weights=False))
    check_groups("a GPT without biases", gpt(bias=False))
    half = gpt()
    half.token_embedding.weight.requires_grad_(False)
    half.norm.bias.requires_grad_(False)
    check_groups("a GPT whose token table is frozen", half)
    vectors = gpt()
    for p in vectors.parameters():
        p.requires_grad_(p.ndim >= 2)
    check_groups("a GPT whose biases and norms are frozen", vectors)
    check_optimizer()

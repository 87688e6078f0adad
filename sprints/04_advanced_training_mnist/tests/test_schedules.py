"""Sprint 04's milestone on learning-rate schedules. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import shared
from course.oracles import check, doing, require
from shared import optim
from shared.optim import lr_scheduler
from shared.optim.lr_scheduler.one_cycle import along_cosine


def optimizer_with(*rates: float) -> optim.SGD:
    """SGD with one parameter group per rate; the parameters have no gradients, so that nothing moves."""
    return optim.SGD([{"params": [shared.zeros(1, requires_grad=True)], "lr": rate} for rate in rates], momentum=0.9)


def rates_of(make: Callable[[optim.SGD], lr_scheduler.LRScheduler], steps: int, *rates: float) -> np.ndarray:
    """The rates in the optimizer at every step, (steps, groups)."""
    optimizer, found = optimizer_with(*(rates or (1.0,))), []
    scheduler = make(optimizer)
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(found)


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def check_cosine() -> None:
    """The curve between two values, falling and rising."""
    shares = np.array([0, 0.25, 0.5, 0.75, 1])
    for start, end in ((1.0, 0.0), (2.0, 10.0)):
        change = end - start
        with doing("along_cosine"):
            found = [along_cosine(start, end, float(share)) for share in shares]
        check(
            f"along_cosine from {start:g} to {end:g} at the shares 0, ¼, ½, ¾ and 1",
            found,
            [cosine(start, end, share) for share in shares],
            {
                "start and end exchanged": [cosine(end, start, share) for share in shares],
                "a straight line": start + change * shares,
                "a whole period of the cosine, which comes back: π · share is half of one": [
                    cosine(start, end, 2 * share) for share in shares
                ],
                "a quarter of a period, which is not level at its end": start
                + change * (1 - np.cos(np.pi / 2 * shares)),
                "an argument without π": [end - change * (1 + math.cos(share)) / 2 for share in shares],
                "a curve twice as high: 1 + cos goes from 2 to 0": end - change * (1 + np.cos(np.pi * shares)),
                "a curve that ends at 0, whatever `end` is": start * (1 + np.cos(np.pi * shares)) / 2,
                "`end` counted twice": end + start * (1 + np.cos(np.pi * shares)) / 2,
            },
            tolerance=1e-9,
        )


def check_warm_up() -> None:
    """`warmup_cosine`: three steps up, four down."""
    up, down = [0.25, 0.5, 0.75], [cosine(1, 0, t / 4) for t in range(5)]
    with doing("warmup_cosine with 3 of 7 steps for the warm-up"):
        found = rates_of(lambda o: lr_scheduler.warmup_cosine(o, 3, 7), 8)[:, 0]
    check(
        "the rates of warmup_cosine(optimizer with lr = 1, warmup_steps=3, total_steps=7), and one step more",
        found,
        up + down,
        {
            "a warm-up that begins with a rate of 0: the first step is wasted": [0, 1 / 3, 2 / 3, *down],
            "a warm-up that is over one step too early: 1 / warmup_steps instead of 1 / (warmup_steps + 1)": [
                *(1 / 3, 2 / 3, 1, *down)
            ],
            "no warm-up": [*(cosine(1, 0, t / 7) for t in range(8))],
            "no warm-up, the cosine is as long as without one": [*(cosine(1, 0, t / 4) for t in range(8))],
            "a cosine as long as the whole training: for the warm-up's steps it is too long": [
                *up,
                *(cosine(1, 0, t / 7) for t in range(5)),
            ],
            "a cosine that has been running since step 0: it begins after the warm-up": [
                *up,
                *(cosine(1, 0, t / 7) for t in range(3, 8)),
            ],
            "a warm-up whose last step comes one too early": [0.25, 0.625, 1, 1, *down[1:]],
            "a cosine that takes over one step late: its milestone is warmup_steps": [*up, 1, 1, *down[1:-1]],
            "a warm-up one step too long": [0.2, 0.4, 0.6, 0.8, *(cosine(1, 0, t / 3) for t in range(4))],
            "a cosine one step too long, which is not at its end after the last step": [
                *up,
                *(cosine(1, 0, t / 5) for t in range(5)),
            ],
            "a cosine one step too short": [*up, *(cosine(1, 0, t / 3) for t in range(5))],
            "a warm-up times the cosine": [a * cosine(1, 0, t / 7) for t, a in enumerate([*up, 1, 1, 1, 1, 1])],
            "a warm-up that stays where it ends": [*up, 1, 1, 1, 1, 1],
        },
        tolerance=1e-5,
    )
    with doing("warmup_cosine with two parameter groups and eta_min"):
        found = rates_of(lambda o: lr_scheduler.warmup_cosine(o, 1, 3, eta_min=0.1), 4, 1.0, 3.0)
    right = [[rate / 2, rate, cosine(rate, 0.1, 0.5), 0.1] for rate in (1, 3)]
    check(
        "the rates of two groups, 1 and 3, with warmup_steps=1, total_steps=3, eta_min=0.1",
        found.T,
        right,
        {
            "an eta_min that is not looked at": [[rate / 2, rate, rate / 2, 0] for rate in (1, 3)],
            "the first group's rate for both": [right[0]] * 2,
            "eta_min as a share of the rate": [[r / 2, r, cosine(r, 0.1 * r, 0.5), 0.1 * r] for r in (1, 3)],
        },
        tolerance=1e-5,
    )
    with doing("warmup_cosine without a warm-up", {"ZeroDivision": "With warmup_steps = 0 there is the cosine alone."}):
        found = rates_of(lambda o: lr_scheduler.warmup_cosine(o, 0, 4), 5)[:, 0]
    check("the rates without a warm-up, which are the cosine's", found, down, tolerance=1e-5)
    for warmup, total in ((4, 4), (5, 4), (-1, 4)):
        try:
            with doing(f"warmup_cosine with warmup_steps={warmup} and total_steps={total}, which is a ValueError,"):
                lr_scheduler.warmup_cosine(optimizer_with(1.0), warmup, total)
            refused = False
        except AssertionError as error:
            refused = "ValueError" in str(error).partition(":")[0]
        require(
            refused,
            f"warmup_steps={warmup} with total_steps={total} should be refused with a ValueError: "
            + ("no steps are left for the cosine" if warmup > 0 else "a warm-up of fewer than no steps"),
        )


def check_one_cycle() -> None:
    """OneCycleLR: in which phase a step is, and how far it has come in it."""

    def cycle(make: Callable[[float, float, float], float] | None = None, **options) -> np.ndarray:
        strategy = "linear" if make is None else "cos"
        schedule = {
            "max_lr": 1.0,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
            "anneal_strategy": strategy,
            **options,
        }
        return rates_of(lambda o: lr_scheduler.OneCycleLR(o, **schedule), options["total_steps"])[:, 0]

    with doing("OneCycleLR with linear phases"):
        found = cycle(total_steps=10, pct_start=0.3)
    rise, fall = [0.1, 0.55, 1.0], [1 - 0.999 * t / 7 for t in range(1, 8)]
    check(
        "the rates of a cycle of 10 steps: from 0.1 to 1 at step 2, then to 0.001 at step 9",
        found,
        rise + fall,
        {
            "a share that counts from step 0 in every phase: it counts from where the phase begins": [
                *rise,
                *(1 - 0.999 * t / 9 for t in range(3, 10)),
            ],
            "a share of the step among all steps of the phases before it, too": [
                *rise,
                *(1 - 0.999 * (t - 2) / 9 for t in range(3, 10)),
            ],
            "the first phase throughout": [0.1 + 0.45 * t for t in range(10)],
            "the last phase throughout": [1 - 0.999 * t / 9 for t in range(10)],
            "a phase that begins one step after the end of the one before": [
                *rise,
                *(1 - 0.999 * (t - 3) / 6 for t in range(3, 10)),
            ],
        },
        tolerance=1e-6,
    )
    with doing("OneCycleLR with a cosine in each phase"):
        found = cycle(cosine, total_steps=10, pct_start=0.3)
    by_cosine = [cosine(0.1, 1, t / 2) for t in range(3)] + [cosine(1, 0.001, t / 7) for t in range(1, 8)]
    check("the same with a cosine in each phase", found, by_cosine, {"straight lines": rise + fall}, tolerance=1e-6)
    # Here the phases end between two steps: at 1.1 and 6, and at 1.1, 2.2 and 6.
    for three, ends, values in ((False, (1.1, 6), (0.1, 1, 0.001)), (True, (1.1, 2.2, 6), (0.1, 1, 0.1, 0.001))):
        with doing(f"OneCycleLR of 7 steps with three_phase={three}"):
            found = cycle(total_steps=7, pct_start=0.3, three_phase=three)
        check(
            f"the rates of a cycle of 7 steps with three_phase={three}, whose phases end at {ends}",
            found,
            np.interp(range(7), (0, *ends), values),
            {
                "ends of phases rounded to whole steps": np.interp(range(7), (0, *map(round, ends)), values),
            },
            tolerance=1e-6,
        )
    optimizer = optimizer_with(1.0)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=10, pct_start=0.3, anneal_strategy="linear")
    momenta = []
    for _ in range(10):
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        with doing("a step of OneCycleLR, the last one coming after the last batch", {"": "The last phase goes on."}):
            scheduler.step()
    right = [0.95, 0.9, *(0.85 + 0.1 * t / 7 for t in range(8))]
    check("the momentum meanwhile, which falls as the rate rises", momenta, right, {"none": [0.9] * 10}, tolerance=1e-6)


def test_schedules_have_the_rates_computed_by_hand_at_every_step():
    check_cosine()
    check_warm_up()
    check_one_cycle()

"""The learning rate of a language model's training, as a function of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, max_lr: float, min_lr: float, warmup_steps: int, decay_steps: int) -> float:
    """The learning rate of update number `step`, counted from 0: a linear warm-up, then a cosine from max_lr to min_lr.

    Over the first `warmup_steps` updates the rate is max_lr · (step + 1) / (warmup_steps + 1), so that none is zero;
    update `warmup_steps` has max_lr. From there half a cosine falls to min_lr, reached at `decay_steps`, and it stays
    there; with decay_steps ≤ warmup_steps there is no cosine, and min_lr follows the line. A float.
    `shared.optim.lr_scheduler.warmup_cosine` makes the same curve by putting two schedules in a row. Source: Karpathy,
    nanoGPT, train.py, get_lr; Radford et al., "Improving language understanding by generative pre-training", 2018,
    section 4.1.

    >>> [round(warmup_cosine(step, 1.0, 0.1, warmup_steps=3, decay_steps=7), 3) for step in range(9)]
    [0.25, 0.5, 0.75, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    if step >= decay_steps:
        return min_lr
    done = (step - warmup_steps) / (decay_steps - warmup_steps)  # 0 … 1
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * done)) * (max_lr - min_lr)

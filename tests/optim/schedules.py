"""The learning-rate schedules that are compared with PyTorch's; each is made from the module that holds the classes."""

STARTING_RATES = (0.5, 0.02)  # one per parameter group

SCHEDULES = {
    "StepLR": lambda m, o, **k: m.StepLR(o, step_size=3, gamma=0.3, **k),
    "StepLR default": lambda m, o, **k: m.StepLR(o, 4, **k),
    "MultiStepLR": lambda m, o, **k: m.MultiStepLR(o, milestones=[2, 5, 5, 9], gamma=0.5, **k),
    "ExponentialLR": lambda m, o, **k: m.ExponentialLR(o, gamma=0.8, **k),
    "LambdaLR": lambda m, o, **k: m.LambdaLR(o, lambda epoch: 1 / (1 + epoch), **k),
    "LambdaLR per group": lambda m, o, **k: m.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 + e], **k),
    "LinearLR": lambda m, o, **k: m.LinearLR(o, **k),
    "LinearLR down": lambda m, o, **k: m.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=8, **k),
    "ConstantLR": lambda m, o, **k: m.ConstantLR(o, **k),
    "ConstantLR long": lambda m, o, **k: m.ConstantLR(o, factor=0.25, total_iters=7, **k),
    "MultiplicativeLR": lambda m, o, **k: m.MultiplicativeLR(o, lambda epoch: 0.95 if epoch < 9 else 1.0, **k),
    "MultiplicativeLR per group": lambda m, o, **k: m.MultiplicativeLR(o, [lambda e: 0.9, lambda e: 1 + 0.01**e], **k),
    "PolynomialLR": lambda m, o, **k: m.PolynomialLR(o, **k),
    "PolynomialLR cubic": lambda m, o, **k: m.PolynomialLR(o, total_iters=9, power=3.0, **k),
    "CosineAnnealingLR": lambda m, o, **k: m.CosineAnnealingLR(o, T_max=8, **k),
    "CosineAnnealingLR twice": lambda m, o, **k: m.CosineAnnealingLR(o, 5, eta_min=0.001, **k),
    "CosineAnnealingWarmRestarts": lambda m, o, **k: m.CosineAnnealingWarmRestarts(o, T_0=3, **k),
    "CosineAnnealingWarmRestarts longer": lambda m, o, **k: m.CosineAnnealingWarmRestarts(o, 2, 2, 0.01, **k),
}

# These take no `last_epoch`, or need what the run before left in the groups; `n` is the length of the training.
LONG = {
    "OneCycleLR": lambda m, o, n: m.OneCycleLR(o, max_lr=0.5, total_steps=n),
    "OneCycleLR per group": lambda m, o, n: m.OneCycleLR(
        o,
        [0.5, 0.1],
        epochs=n // 4,
        steps_per_epoch=4,
        pct_start=0.4,
        anneal_strategy="linear",
        base_momentum=[0.8, 0.7],
        max_momentum=[0.9, 0.95],
        div_factor=10.0,
        final_div_factor=100.0,
    ),
    "OneCycleLR three phases": lambda m, o, n: m.OneCycleLR(
        o, 0.5, n, pct_start=0.35, cycle_momentum=False, three_phase=True
    ),
    "CyclicLR": lambda m, o, n: m.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "CyclicLR halved": lambda m, o, n: m.CyclicLR(o, 0.01, [0.1, 0.3], 2, 3, mode="triangular2", base_momentum=0.5),
    "CyclicLR shrinking": lambda m, o, n: m.CyclicLR(
        o, [0.01, 0.02], 0.1, 4, mode="exp_range", gamma=0.97, max_momentum=[0.9, 0.95]
    ),
    "CyclicLR of one's own": lambda m, o, n: m.CyclicLR(
        o, 0.01, 0.1, 2, 1, scale_fn=lambda step: 0.9**step, scale_mode="iterations", cycle_momentum=False
    ),
    "CyclicLR of Adam": lambda m, o, n: m.CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda cycle: 1 / cycle),
    "SequentialLR": lambda m, o, n: m.SequentialLR(
        o, [m.LinearLR(o, total_iters=n // 4), m.CosineAnnealingLR(o, n - n // 4)], [n // 4]
    ),
    "SequentialLR of three": lambda m, o, n: m.SequentialLR(
        o, [m.ConstantLR(o), m.ExponentialLR(o, 0.9), m.StepLR(o, 2)], [n // 4, n // 2]
    ),
    "SequentialLR with restarts": lambda m, o, n: m.SequentialLR(
        o, [m.LambdaLR(o, lambda e: 0.1 * (1 + e)), m.CosineAnnealingWarmRestarts(o, 3, 2)], [4]
    ),
    "SequentialLR of a SequentialLR": lambda m, o, n: m.SequentialLR(
        o, [m.SequentialLR(o, [m.ConstantLR(o), m.LinearLR(o)], [3]), m.MultiStepLR(o, [2, 3])], [7]
    ),
    "SequentialLR without a first": lambda m, o, n: m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.9)], [0]),
    "ChainedScheduler": lambda m, o, n: m.ChainedScheduler([m.ConstantLR(o, 0.1, 4), m.ExponentialLR(o, 0.9)]),
    "ChainedScheduler of cosines": lambda m, o, n: m.ChainedScheduler(
        [m.LinearLR(o), m.CosineAnnealingLR(o, n)], optimizer=o
    ),
    "SequentialLR of a ChainedScheduler": lambda m, o, n: m.SequentialLR(
        o, [m.ChainedScheduler([m.LinearLR(o), m.ExponentialLR(o, 0.9)]), m.CosineAnnealingLR(o, n)], [6]
    ),
}

PLATEAUS = {
    "defaults": {"patience": 2},
    "max": {"mode": "max", "patience": 1, "factor": 0.5},
    "absolute": {"threshold_mode": "abs", "threshold": 0.05, "patience": 1},
    "max absolute": {"mode": "max", "threshold_mode": "abs", "threshold": 0.01, "patience": 0, "factor": 0.9},
    "cooldown": {"patience": 0, "cooldown": 3, "factor": 0.7},
    "lowest per group": {"patience": 0, "factor": 0.3, "min_lr": [0.1, 0.005]},
    "coarse": {"patience": 0, "factor": 0.5, "eps": 0.02},
}


def measurements(n):
    """A loss that falls, stays, jumps up and falls again."""
    return [1 / (1 + 0.3 * i) + 0.2 * (i % 7 == 5) + 0.1 * (i % 50 > 20) for i in range(n)]

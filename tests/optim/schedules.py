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
}

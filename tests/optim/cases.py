"""Every combination of options that is compared with PyTorch, and the problem that is optimized in each."""

from itertools import product

import numpy as np

STEPS = 12
SHAPES = ((3, 4), (4,), ())


def _all(name, **choices):
    for values in product(*choices.values()):
        yield name, dict(zip(choices, values, strict=True))


CASES = [
    *(
        (name, options)
        for name, options in _all(
            "SGD",
            lr=[0.05],
            momentum=[0, 0.9],
            dampening=[0, 0.5],
            weight_decay=[0, 0.1],
            nesterov=[False, True],
            maximize=[False, True],
        )
        if not options["nesterov"] or (options["momentum"] and not options["dampening"])
    ),
    *_all("Adam", lr=[0.05], weight_decay=[0, 0.1], amsgrad=[False, True], maximize=[False, True]),
    *_all("Adam", lr=[0.05], betas=[(0.5, 0.9)], eps=[1e-2], decoupled_weight_decay=[True], weight_decay=[0.1]),
    *_all("AdamW", lr=[0.05], weight_decay=[0.01, 0.3], amsgrad=[False, True], maximize=[False, True]),
    *_all(
        "RMSprop",
        lr=[0.05],
        alpha=[0.9],
        momentum=[0, 0.9],
        centered=[False, True],
        weight_decay=[0, 0.1],
        maximize=[False, True],
    ),
    *_all(
        "Adagrad",
        lr=[0.1],
        lr_decay=[0, 0.2],
        weight_decay=[0, 0.1],
        initial_accumulator_value=[0, 0.5],
        maximize=[False, True],
    ),
    *_all("Adadelta", lr=[1.0, 0.3], rho=[0.9, 0.5], weight_decay=[0, 0.1], maximize=[False, True]),
    *((name, {}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta")),
]
IDS = [f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" for name, options in CASES]


def start(dtype):
    """The parameters at the beginning, as arrays."""
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]


def gradient(param, number, step):
    """A gradient that depends on the parameter: of a quadratic, with noise, now and then exactly zero."""
    rng = np.random.default_rng((number, step))
    noise = rng.standard_normal(param.shape)
    grad = np.asarray(param * (0.5 + number) + noise)
    return np.where(noise > 1.5, 0, grad).astype(param.dtype)

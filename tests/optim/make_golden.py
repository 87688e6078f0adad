"""Writes golden.json: where PyTorch's optimizers and schedulers get to. Needs torch; run from the repository's root:

python -m tests.optim.make_golden
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.optim.cases import CASES, IDS, STEPS, gradient, start
from tests.optim.schedules import LONG, PLATEAUS, SCHEDULES, STARTING_RATES, measurements


def final_parameters(name, options):
    params = [torch.tensor(a, requires_grad=True) for a in start(np.float64)]
    optimizer = getattr(torch.optim, name)(params, **options)
    for step in range(STEPS):
        for i, p in enumerate(params):
            p.grad = torch.tensor(gradient(p.detach().numpy(), i, step))
        optimizer.step()
    return [x for p in params for x in p.detach().reshape(-1).tolist()]


def two_groups(last_epoch=-1):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in STARTING_RATES]
    if last_epoch >= 0:
        groups = [{**group, "lr": group["lr"] / 2, "initial_lr": group["lr"]} for group in groups]
    return torch.optim.SGD(groups)


def learning_rates(make, optimizer, *args, **options):
    scheduler, rates = make(torch.optim.lr_scheduler, optimizer, *args, **options), []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    return rates


def rates_on_a_plateau(options):
    scheduler, rates = torch.optim.lr_scheduler.ReduceLROnPlateau(two_groups(), **options), []
    for value in measurements(STEPS * 2):
        scheduler.step(value)
        rates.append(scheduler.get_last_lr())
    return rates


if __name__ == "__main__":
    golden = {
        "torch": torch.__version__.partition("+")[0],
        "parameters": {key: final_parameters(*case) for key, case in zip(IDS, CASES, strict=True)},
        "rates": {name: learning_rates(make, two_groups()) for name, make in SCHEDULES.items()},
        "rates from epoch 4": {n: learning_rates(make, two_groups(4), last_epoch=4) for n, make in SCHEDULES.items()},
        "rates of a training": {name: learning_rates(make, two_groups(), STEPS) for name, make in LONG.items()},
        "rates on a plateau": {name: rates_on_a_plateau(options) for name, options in PLATEAUS.items()},
    }
    text = json.dumps(golden, indent=0, sort_keys=True)
    Path(__file__).with_name("golden.json").write_text(text + "\n")

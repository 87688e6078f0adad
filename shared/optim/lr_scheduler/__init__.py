"""Learning-rate schedules: after each `optimizer.step()` (or each epoch), `scheduler.step()` sets the next rate.

Most change the rate they find in the optimizer, as PyTorch's do, so that several schedules of one optimizer
multiply. Source of names and formulas: the documentation of `torch.optim.lr_scheduler`; `warmup_cosine` and
`rates` are the course's.
"""

from shared.optim.lr_scheduler.base import LRScheduler, rates
from shared.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR, warmup_cosine
from shared.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from shared.optim.lr_scheduler.cyclic import CyclicLR
from shared.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from shared.optim.lr_scheduler.one_cycle import OneCycleLR
from shared.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "rates",
    "warmup_cosine",
]

"""Optimizers and learning-rate schedules under `torch.optim`'s names."""

from shared.optim import lr_scheduler
from shared.optim.adadelta import Adadelta
from shared.optim.adagrad import Adagrad
from shared.optim.adam import Adam, AdamW
from shared.optim.optimizer import Optimizer
from shared.optim.rmsprop import RMSprop
from shared.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]

"""The training loop that the lessons build up to."""

from shared.training.history import History
from shared.training.loop import accuracy, evaluate, fit, train_one_epoch

__all__ = ["History", "accuracy", "evaluate", "fit", "train_one_epoch"]

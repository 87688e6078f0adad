"""The optimizers' updates, one parameter at a time and in place; the formulas are in reference.py."""

from shared.arrays.kernels.optim.reference import adadelta, adagrad, adam, amsgrad, rmsprop, sgd

__all__ = ["adadelta", "adagrad", "adam", "amsgrad", "rmsprop", "sgd"]

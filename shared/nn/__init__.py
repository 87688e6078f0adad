"""Floor 3: layers, losses and what holds them together, with PyTorch's names."""
# ruff: noqa: F401  (a name is imported here so that users find it)

from shared.nn import functional, init, utils
from shared.nn.activation import (
    ELU,
    GELU,
    GLU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softmin,
    Softplus,
    Softsign,
    Tanh,
)
from shared.nn.container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from shared.nn.dropout import Dropout, Dropout1d, Dropout2d
from shared.nn.flatten import Flatten, Unflatten
from shared.nn.linear import Bilinear, Identity, Linear
from shared.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from shared.nn.module import Module
from shared.nn.parameter import Buffer, Parameter

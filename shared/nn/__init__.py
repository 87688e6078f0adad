"""Floor 3: layers, losses and what holds them together, with PyTorch's names."""
# ruff: noqa: F401  (a name is imported here so that users find it)

from shared.nn import functional, init, masks, utils
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
from shared.nn.attention import KVCache, MultiHeadAttention, MultiheadAttention
from shared.nn.blocks import DecoderBlock, EncoderBlock
from shared.nn.container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from shared.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from shared.nn.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from shared.nn.embedding import Embedding
from shared.nn.feedforward import PositionwiseFeedForward
from shared.nn.flatten import Flatten, Unflatten
from shared.nn.fold import Fold, Unfold
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
from shared.nn.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from shared.nn.padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from shared.nn.parameter import Buffer, Parameter
from shared.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from shared.nn.positional import LearnedPositionalEncoding, PositionalEncoding
from shared.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from shared.nn.upsampling import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

"""Floor 2: the operations, by family: for each a Function (formula and gradient) and a front door that checks."""

from types import ModuleType as _ModuleType

from shared.ops.activation import relu
from shared.ops.arithmetic import add, atan2, div, floor_divide, mul, pow, remainder, sub
from shared.ops.comparison import (
    allclose,
    bitwise,
    bitwise_not,
    eq,
    equal,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from shared.ops.creation import (
    arange,
    as_tensor,
    bernoulli,
    bincount,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    meshgrid,
    multinomial,
    normal,
    one_hot,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    tensor,
    to,
    zeros,
    zeros_like,
)
from shared.ops.diagonal import diag, diagonal, trace, tril, triu
from shared.ops.elementwise import abs_ as abs
from shared.ops.elementwise import (
    ceil,
    clamp,
    cos,
    erf,
    exp,
    expm1,
    floor,
    log,
    log1p,
    log2,
    log10,
    maximum,
    minimum,
    neg,
    reciprocal,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    tan,
    tanh,
    trunc,
    where,
)
from shared.ops.elementwise import round_ as round
from shared.ops.index import (
    argsort,
    bucketize,
    gather,
    getitem,
    index_add,
    index_select,
    isin,
    masked_fill,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    searchsorted,
    setitem,
    sort,
    take_along_dim,
    topk,
    unique,
)
from shared.ops.inplace import assign, copy_
from shared.ops.join import cat, chunk, hstack, narrow, select, split, stack, unbind, vstack
from shared.ops.matmul import addmm, bmm, dot, einsum, linear, matmul, mm, mv, outer
from shared.ops.operands import cast, clone, sizes_of
from shared.ops.reduce import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumsum,
    logsumexp,
    max,
    mean,
    median,
    min,
    norm,
    prod,
    std,
    sum,
    var,
    var_mean,
)
from shared.ops.shape import (
    broadcast_to,
    contiguous,
    expand,
    flatten,
    flip,
    movedim,
    pad,
    permute,
    ravel,
    repeat,
    repeat_interleave,
    reshape,
    roll,
    squeeze,
    t,
    tile,
    transpose,
    unflatten,
    unsqueeze,
    view,
)
from shared.ops.softmax import log_softmax, softmax

# The same operations under PyTorch's second names.
absolute, clip, concat, concatenate = abs, clamp, cat, cat
multiply, subtract, divide, true_divide = mul, sub, div, div
swapaxes = swapdims = transpose
moveaxis = movedim

__all__ = [name for name, value in list(globals().items()) if name[0] != "_" and not isinstance(value, _ModuleType)]

"""Looking up rows of a table: tokens become vectors."""

from __future__ import annotations

from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import check_same_device, xp
from shared.arrays.kernels import embedding as kernels
from shared.autograd import Function
from shared.ops.activation import require_tensor
from shared.tensor import Tensor


class Embedding(Function):
    """The rows weight[indices]; the gradient by a row is the sum over the places where it was used"""

    twice = True

    def __init__(self, indices: Any, padding_idx: int | None = None, scale_grad_by_freq: bool = False):
        self.indices, self.padding_idx, self.scale_grad_by_freq = indices, padding_idx, scale_grad_by_freq

    def forward(self, weight):
        """(num_embeddings, width) → (*indices.shape, width)."""
        self.num_embeddings = weight.shape[0]
        if self.needs[0]:
            self.indices = self.indices.copy()  # which nobody can change before backward reads them
        return kernels.embedding(weight, self.indices)

    def backward(self, grad):
        gather = EmbeddingWeight(self.indices, self.num_embeddings, self.padding_idx, self.scale_grad_by_freq)
        return gather(grad) if isinstance(grad, Tensor) else gather.forward(grad)


class EmbeddingWeight(Function):
    """The gradient of `Embedding` by the table, as an operation of its own"""

    twice = True

    def __init__(self, indices: Any, num_embeddings: int, padding_idx: int | None, scale_grad_by_freq: bool):
        self.indices, self.num_embeddings, self.padding_idx = indices, num_embeddings, padding_idx
        self.scale_grad_by_freq = scale_grad_by_freq

    def forward(self, grad):
        """(*indices.shape, width) → (num_embeddings, width)."""
        if self.scale_grad_by_freq:
            grad = grad * self.shares(grad)
        return kernels.embedding_weight(grad, self.indices, self.num_embeddings, self.padding_idx)

    def backward(self, grad):
        """Each place gets its row of `grad`, weighted as it was itself: the padding gets nothing."""
        if isinstance(grad, Tensor):
            return Embedding(self.indices)(grad) * Tensor(self.shares(grad.array))
        return kernels.embedding(grad, self.indices) * self.shares(grad)

    def shares(self, like: Any) -> Any:
        """What each place's gradient is multiplied by, (*indices.shape, 1): 1 over how often its index occurs, or 1."""
        module = xp(like)
        shares = module.ones(self.indices.shape, like.dtype)
        if self.scale_grad_by_freq:
            shares = 1 / module.bincount(self.indices.reshape(-1), minlength=1)[self.indices]
        if self.padding_idx is not None:
            shares = module.where(self.indices == self.padding_idx, 0, shares)
        return shares[..., None].astype(like.dtype)


def _check(indices: Any, weight: Any) -> None:
    """Raises where the table is not a matrix, or an index is no integer or names no row."""
    check_same_device("embedding", [indices, weight])
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: 'weight' must be 2-D, but got shape {tuple(weight.shape)}")
    if indices.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError(
            "embedding: Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got {indices.dtype.name} instead"
        )
    # One look at all: read without a sign, negative numbers are larger than any table.
    if indices.size and int(indices.view(f"u{indices.itemsize}").max()) >= weight.shape[0]:
        lowest = int(indices.min())
        raise IndexError(
            f"embedding: index out of range in self: {lowest if lowest < 0 else int(indices.max())} is not in "
            f"0 … {weight.shape[0] - 1}, the rows of a weight of shape {tuple(weight.shape)}"
        )


def _renormalize(weight: Tensor, indices: Any, max_norm: float, norm_type: float) -> None:
    """Scales the rows in use down to a norm of at most max_norm, in place and unrecorded."""
    module = xp(indices)
    used = module.unique(indices)
    rows = weight.array[used]
    norms = module.linalg.norm(rows, norm_type, axis=1, keepdims=True)
    too_long = norms > max_norm
    if bool(too_long.any()):
        weight.array[used] = module.where(too_long, rows * (max_norm / (norms + 1e-7)), rows).astype(rows.dtype)
        weight._version[0] += 1


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of `weight` (num_embeddings, width) that `input`, int64 or int32, names: (*input.shape, width).

    The row `padding_idx` (from the end where negative) gets no gradient. With `max_norm`, rows that are used and
    longer than it (by the p-norm, p = norm_type) are shortened to it in `weight` itself. With `scale_grad_by_freq`,
    a row's gradient is the mean over the places where it was used. Gradients are dense: `sparse` must be False.
    Errors: IndexError for an index that names no row, RuntimeError for indices that are no integers.

    >>> import shared
    >>> weight = shared.tensor([[0., 0.], [1., 2.], [3., 4.]], requires_grad=True)
    >>> out = embedding(shared.tensor([2, 1, 2]), weight)
    >>> out.sum().backward(); weight.grad
    tensor([[0., 0.],
            [1., 1.],
            [2., 2.]])
    """
    require_tensor("embedding", "indices", input)
    require_tensor("embedding", "weight", weight)
    indices = input.array
    _check(indices, weight.array)
    if sparse:
        raise NotImplementedError("embedding: sparse=True is not implemented; gradients are dense")
    if padding_idx is not None:
        padding_idx = in_table(padding_idx, weight.shape[0])
    if max_norm is not None:
        _renormalize(weight, indices, max_norm, norm_type)
    return Embedding(indices, padding_idx, scale_grad_by_freq)(weight)


def in_table(padding_idx: int, num_embeddings: int) -> int:
    """`padding_idx` counted from the beginning; AssertionError (as in PyTorch) where there is no such row."""
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise AssertionError(
            f"Padding_idx must be within num_embeddings, but {padding_idx} is not in "
            f"{-num_embeddings} … {num_embeddings - 1}"
        )
    return padding_idx % num_embeddings

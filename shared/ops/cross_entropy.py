"""Cross-entropy and negative log-likelihood: losses for outputs that are scores of classes."""

from __future__ import annotations

from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.arrays.kernels import softmax as kernels
from shared.autograd import Function
from shared.ops import elementwise
from shared.ops.activation import in_float32, require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.loss import check_reduction, legacy_reduction, reduced
from shared.ops.softmax import log_softmax
from shared.tensor import Tensor


class ClassLoss(Function):
    """A loss of rows (N, C) and their classes (N,): each times the weight of its row, summed and divided

    `weight` (N,), or None for 1, is 0 in ignored rows; `divisor` None leaves one loss per row.
    """

    def __init__(self, target: Any, weight: Any, divisor: Any):
        self.target, self.weight, self.divisor = target, weight, divisor

    def reduce(self, losses: Any) -> Any:
        if self.weight is not None:
            losses = xp(losses).where(self.weight == 0, 0, losses * self.weight)  # be an ignored loss infinite
        return losses if self.divisor is None else losses.sum() / self.divisor

    def row_gradient(self, grad: Any) -> Any:
        """The gradient by the loss of each row, (N,), or one number for all of them."""
        if self.divisor is not None:
            grad = grad / self.divisor
        if self.weight is not None:
            grad = xp(grad).where(self.weight == 0, 0, grad * self.weight)  # 0 also if all are: 0/0 is NaN
        return grad


class CrossEntropy(ClassLoss):
    """−log softmax(logits)[target]; the softmax and the logarithm in one step"""

    def forward(self, logits):
        if self.needs[0]:
            self.saved, self.target = (logits,), self.target.copy()  # backward reads it, whatever becomes of it
        return self.reduce(kernels.cross_entropy(logits, self.target))

    def backward(self, grad):
        (logits,) = self.saved
        grad = self.row_gradient(grad)
        return kernels.cross_entropy_gradient(logits, self.target, grad[:, None] if grad.ndim else grad)


class Nll(ClassLoss):
    """−log_probs[target]"""

    def forward(self, log_probs):
        self.size = log_probs.shape
        if self.needs[0]:
            self.target = self.target.copy()
        losses = -log_probs[xp(log_probs).arange(len(self.target)), self.target]
        return self.reduce(losses)

    def backward(self, grad):
        out = xp(grad).zeros(self.size, grad.dtype)
        out[xp(grad).arange(len(self.target)), self.target] = -self.row_gradient(grad)
        return out


def _rows(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Any]:
    """Input (C,), (N, C) or (N, C, d1, …) as rows (M, C), and the classes as an array (M,)."""
    shape, given = tuple(input.array.shape), tuple(target.array.shape)
    if input.ndim == 0:
        raise ValueError(
            f"{name}: expected input of shape (C,), (N, C) or (N, C, d1, …), but got a 0-dimensional tensor"
        )
    if not dtypes.is_floating(input.array.dtype):
        raise NotImplementedError(f"{name}: expected a floating-point input, but got {input.array.dtype.name}")
    if target.array.dtype not in (dtypes.int64, dtypes.uint8):
        raise RuntimeError(
            f"{name}: expected scalar type Long for target but found {target.array.dtype.name} of shape "
            f"{given}: class indices are int64 (target.long())"
            + (f", class probabilities have the shape of input, {shape}" if name == "cross_entropy" else "")
        )
    expected = shape[:1] * (input.ndim > 1) + shape[2:]
    if given != expected:
        _raise_wrong_target(name, shape, given, expected)
    classes = target.array.reshape(-1).astype(dtypes.int64, copy=False)
    if input.ndim <= 2:
        return input if input.ndim == 2 else input.reshape(1, -1), classes
    return input.movedim(1, -1).reshape(-1, shape[1]), classes


def _raise_wrong_target(name: str, shape: tuple, given: tuple, expected: tuple) -> None:
    if len(given) == len(expected) and given[:1] != expected[:1]:
        raise ValueError(
            f"{name}: Expected input batch_size ({expected[0]}) to match target batch_size ({given[0]}); "
            f"input has shape {shape}, target {given}"
        )
    hint = " Classes as one-hot rows need a floating dtype, or target.argmax(1)." if given == shape else ""
    raise RuntimeError(f"{name}: Expected target size {expected} for input of shape {shape}, got {given}.{hint}")


def _check_classes(name: str, classes: Any, count: int, ignore_index: int) -> tuple[Any, Any]:
    """The classes, each in [0, count), and which rows are ignored (None: none)."""
    module = xp(classes)
    # Seen as unsigned, a negative number is huge: one comparison finds both kinds of error.
    if not 0 <= ignore_index < count and (classes.size == 0 or classes.view("uint64").max() < count):
        return classes, None
    ignored = classes == ignore_index
    wrong = ((classes < 0) | (classes >= count)) & ~ignored
    if wrong.any():
        raise IndexError(
            f"{name}: Target {int(classes[wrong][0])} is out of bounds: with {count} classes, targets go "
            f"from 0 to {count - 1} (or are ignore_index={ignore_index})"
        )
    return module.where(ignored, 0, classes), ignored


def _check_weight(name: str, weight: Tensor | None, count: int) -> Any:
    if weight is None:
        return None
    if tuple(weight.shape) != (count,):
        raise RuntimeError(
            f"{name}: weight tensor should be defined either for all {count} classes or no classes "
            f"but got weight tensor of shape: {tuple(weight.shape)}"
        )
    return weight.array


def _row_weight(classes: Any, ignored: Any, weight: Any, dtype: Any) -> Any:
    """The weight of each row: that of its class, 0 if it is ignored; None where all are 1."""
    if ignored is None and weight is None:
        return None
    dtype = dtypes.float32 if dtype.itemsize < 4 else dtype
    rows = xp(classes).ones(classes.shape, dtype) if weight is None else weight[classes].astype(dtype)
    if ignored is not None:
        rows[ignored] = 0
    return rows


def _divisor(reduction: str, row_weight: Any, count: int) -> Any:
    if reduction == "mean":
        return count if row_weight is None else row_weight.sum()
    return 1 if reduction == "sum" else None


def _classified(
    function: type[ClassLoss],
    name: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """`function` of input and class indices, after the checks."""
    rows, classes = _rows(name, input, target)
    count = rows.array.shape[1]
    classes, ignored = _check_classes(name, classes, count, ignore_index)
    row_weight = _row_weight(classes, ignored, _check_weight(name, weight, count), rows.array.dtype)
    loss = in_float32(function(classes, row_weight, _divisor(reduction, row_weight, len(classes))), rows)
    return loss.reshape(target.shape) if reduction == "none" else loss


@follows_autocast
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−input[target] for log-probabilities (C,), (N, C) or (N, C, d1, …) and classes (), (N,) or (N, d1, …).

    `weight` (C,) multiplies each class; a mean is divided by the weights' sum. Rows of `ignore_index` do not
    count.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    require_tensor("nll_loss", "input", input)
    require_tensor("nll_loss", "target", target)
    return _classified(Nll, "nll_loss", input, target, weight, ignore_index, reduction)


@follows_autocast
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(input)[target], for logits (C,), (N, C) or (N, C, d1, …), in their dtype.

    target: class indices (int64, the shape of input without C) or probabilities (floating, input's shape).
    `weight` (C,) multiplies each class; a mean is divided by the weights' sum. Rows of `ignore_index` do not
    count. `label_smoothing` moves that share of the target to all classes alike.
    Source: Goodfellow et al., Deep Learning, sec. 6.2.2; for the smoothing Szegedy et al. (2016), sec. 7.

    >>> import shared
    >>> logits = shared.tensor([[2., 0.], [1e4, 0.]])
    >>> shared.nn.functional.cross_entropy(logits, shared.tensor([0, 1]), reduction="none").tolist()[1]
    10000.0
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    require_tensor("cross_entropy", "input", input)
    require_tensor("cross_entropy", "target", target)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if dtypes.is_floating(target.array.dtype) and target.array.shape == input.array.shape and input.ndim:
        if ignore_index >= 0:
            raise RuntimeError("cross_entropy: ignore_index is not supported for floating point target")
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    if label_smoothing == 0:
        return _classified(CrossEntropy, "cross_entropy", input, target, weight, ignore_index, reduction)
    return _smoothed_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)


def _cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    """−Σ target · weight · log softmax(input) over the classes; a mean is over rows, whatever the weights."""
    dim = 0 if input.ndim == 1 else 1
    count = input.shape[dim]
    if smoothing:
        target = target * (1 - smoothing) + smoothing / count
    terms = log_softmax(input, dim) * target
    if weight is not None:
        _check_weight("cross_entropy", weight, count)
        terms = terms * weight.reshape(-1, *[1] * (input.ndim - dim - 1))
    losses = -terms.sum(dim)
    return reduced(losses, reduction)


def _smoothed_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    """(1 − smoothing) · the loss of the target + smoothing · the mean of the losses of all classes."""
    rows, classes = _rows("cross_entropy", input, target)
    count = rows.array.shape[1]
    classes, ignored = _check_classes("cross_entropy", classes, count, ignore_index)
    class_weight = _check_weight("cross_entropy", weight, count)
    row_weight = _row_weight(classes, ignored, class_weight, rows.array.dtype)
    log_probs = log_softmax(rows, 1)
    of_target = in_float32(Nll(classes, row_weight, None), log_probs)
    of_all = -(log_probs if weight is None else log_probs * weight).sum(1)
    losses = of_target * (1 - smoothing) + of_all * (smoothing / count)
    if ignored is not None:
        losses = elementwise.where(Tensor(ignored), 0.0, losses)
    if reduction == "none":
        return losses.reshape(target.shape)
    return losses.sum() / _divisor(reduction, row_weight, len(classes))

"""Cross-entropy and negative log-likelihood: losses for outputs that are scores of classes."""

from __future__ import annotations

import math
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import elementwise
from shared.ops.activation import log_softmax, log_softmax_formula
from shared.ops.loss import check_reduction, legacy_reduction, reduced
from shared.tensor import Tensor


def cross_entropy_formula(logits: Any, target: Any) -> tuple[Any, Any]:
    """−log softmax(logits)[target] of each row, and the log-probabilities: (N, C), (N,) → (N,), (N, C)."""
    log_probs = log_softmax_formula(logits, 1)
    rows = xp(logits).arange(len(target))
    return -log_probs[rows, target], log_probs


def cross_entropy_gradient(log_probs: Any, target: Any, grad: Any) -> Any:
    """The gradient by the logits: (softmax − one-hot target) · grad, with grad (N, 1) or one number."""
    probs = xp(log_probs).exp(log_probs)
    probs[xp(probs).arange(len(target)), target] -= 1
    probs *= grad
    return probs


class CrossEntropy(Function):
    """−log softmax(logits)[target] for logits (N, C) and classes (N,), times a factor per row, summed or not

    The softmax and the logarithm in one step: the gradient by the logits is softmax − one-hot target.
    """

    def __init__(self, target: Any, factor: Any, summed: bool):
        self.target, self.factor, self.summed = target, factor, summed

    def forward(self, logits):
        wide = logits.astype(dtypes.float32) if logits.dtype.itemsize < 4 else logits
        losses, log_probs = cross_entropy_formula(wide, self.target)
        self.saved = (log_probs,) if self.needs[0] else ()
        return _finish(losses, self.factor, self.summed, logits.dtype)

    def backward(self, grad):
        (log_probs,) = self.saved
        grad = grad * self.factor
        return cross_entropy_gradient(log_probs, self.target, grad[:, None] if grad.ndim else grad)


class Nll(Function):
    """−log_probs[target] for log-probabilities (N, C), classes (N,), times a factor per row, summed or not"""

    def __init__(self, target: Any, factor: Any, summed: bool):
        self.target, self.factor, self.summed = target, factor, summed

    def forward(self, log_probs):
        self.shape_in = log_probs.shape
        losses = -log_probs[xp(log_probs).arange(len(self.target)), self.target]
        return _finish(losses, self.factor, self.summed, log_probs.dtype)

    def backward(self, grad):
        out = xp(grad).zeros(self.shape_in, grad.dtype)
        out[xp(grad).arange(len(self.target)), self.target] = -grad * self.factor
        return out


def _finish(losses: Any, factor: Any, summed: bool, dtype: Any) -> Any:
    """Losses times their factor; a row with factor 0 counts nothing, be its loss infinite."""
    if getattr(factor, "ndim", 0):
        losses = xp(losses).where(factor == 0, 0, losses * factor)
        return (losses.sum() if summed else losses).astype(dtype, copy=False)
    return ((losses.sum() if summed else losses) * factor).astype(dtype, copy=False)


def _rows(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Any]:
    """Input (C,), (N, C) or (N, C, d1, …) as rows (M, C), and the classes as an array (M,)."""
    shape, given = tuple(input.array.shape), tuple(target.array.shape)
    if input.ndim == 0:
        raise ValueError(
            f"{name}: expected input of shape (C,), (N, C) or (N, C, d1, …), but got a 0-dimensional tensor"
        )
    if not dtypes.is_floating(input.array.dtype):
        raise NotImplementedError(
            f"{name}: expected a floating-point input, but got {input.array.dtype.name}"
        )
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
    raise RuntimeError(
        f"{name}: Expected target size {expected} for input of shape {shape}, got {given}.{hint}"
    )


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


def _factors(classes: Any, ignored: Any, weight: Any, dtype: Any, reduction: str) -> Any:
    """What each row's loss is multiplied by: its class's weight, 0 if ignored, over their sum for a mean."""
    if ignored is None and weight is None:
        return 1.0 if reduction != "mean" else 1.0 / len(classes) if len(classes) else math.nan
    module = xp(classes)
    factor = module.ones(classes.shape, dtype) if weight is None else weight[classes].astype(dtype)
    if ignored is not None:
        factor[ignored] = 0
    return factor / factor.sum() if reduction == "mean" else factor


def _classified(
    function: Any,
    name: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """`function` (CrossEntropy or Nll) of input and class indices."""
    rows, classes = _rows(name, input, target)
    count = rows.shape[1]
    classes, ignored = _check_classes(name, classes, count, ignore_index)
    wide = rows.array.dtype if rows.array.dtype.itemsize >= 4 else dtypes.float32
    factor = _factors(classes, ignored, _check_weight(name, weight, count), wide, reduction)
    loss = function(classes, factor, reduction != "none")(rows)
    return loss.reshape(target.shape) if reduction == "none" else loss


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
    return _classified(Nll, "nll_loss", input, target, weight, ignore_index, reduction)


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
    count = rows.shape[1]
    classes, ignored = _check_classes("cross_entropy", classes, count, ignore_index)
    class_weight = _check_weight("cross_entropy", weight, count)
    factor = _factors(classes, ignored, class_weight, rows.array.dtype, "none")
    log_probs = log_softmax(rows, 1)
    of_target = Nll(classes, factor, False)(log_probs)
    of_all = -(log_probs if weight is None else log_probs * weight).sum(1)
    if ignored is not None:
        of_all = elementwise.where(Tensor(ignored), 0.0, of_all)
    losses = of_target * (1 - smoothing) + of_all * (smoothing / count)
    if reduction == "none":
        return losses.reshape(target.shape)
    if reduction == "sum" or not getattr(factor, "ndim", 0):
        return reduced(losses, reduction)
    return losses.sum() / Tensor(factor.sum())

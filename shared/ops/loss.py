"""Losses: how far an output is from its target, as one number (or one per element), with gradients."""

from __future__ import annotations

import math
import warnings
from typing import Any

from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops.activation import in_float32, require_tensor
from shared.ops.autocast import follows_autocast
from shared.ops.operands import promote
from shared.tensor import Tensor


def check_reduction(reduction: str, allowed: tuple[str, ...] = ("none", "mean", "sum")) -> None:
    if reduction not in allowed:
        raise ValueError(f"{reduction} is not a valid value for reduction: expected one of {', '.join(allowed)}")


def reduced(losses: Any, reduction: str) -> Any:
    """Array or Tensor of losses → their mean or sum, or the losses themselves; the mean of nothing is NaN."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean() if math.prod(losses.shape) else losses.sum() * math.nan


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that PyTorch's two deprecated arguments stand for, if one of them is given."""
    if size_average is None and reduce is None:
        return reduction
    chosen = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, use reduction='{chosen}' instead.", stacklevel=3)
    return chosen


# ---------------------------------------------------------------- element by element


class PointwiseLoss(Function):
    """A loss of each element, reduced. A subclass gives `losses` and their `slopes`, elementwise.

    `slopes` returns the derivative of each loss by input and by target, None where it is not needed.
    """

    def __init__(self, reduction: str, weight: Any = None):
        self.reduction, self.weight = reduction, weight

    def losses(self, input: Any, target: Any) -> Any:
        raise NotImplementedError

    def slopes(self, input: Any, target: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def forward(self, input, target):
        self.saved = (input, target)
        losses = self.losses(input, target)
        if self.weight is not None:
            losses = losses * self.weight
        self.count = losses.size
        return reduced(losses, self.reduction)

    def backward(self, grad):
        if self.reduction == "mean":
            grad = grad / self.count
        if self.weight is not None:
            grad = grad * self.weight
        to_input, to_target = self.slopes(*self.saved)
        return (
            to_input * grad if self.needs[0] else None,
            to_target * grad if self.needs[1] else None,
        )


class MseLoss(PointwiseLoss):
    """(input − target)²"""

    twice = True

    def losses(self, input, target):
        difference = input - target
        return difference * difference

    def slopes(self, input, target):
        slope = 2 * (input - target)
        return slope, -slope if self.needs[1] else None


class L1Loss(PointwiseLoss):
    """|input − target|; the slope at 0 is taken as 0"""

    def losses(self, input, target):
        return abs(input - target)

    def slopes(self, input, target):
        slope = xp(input).sign(input - target)
        return slope, -slope if self.needs[1] else None


class HuberLoss(PointwiseLoss):
    """½ d² where |d| ≤ delta, delta · (|d| − ½ delta) beyond, with d = input − target; times `scale`"""

    def __init__(self, delta: float, scale: float, reduction: str, weight: Any = None):
        super().__init__(reduction, weight)
        self.delta, self.scale = delta, scale

    def losses(self, input, target):
        size = abs(input - target)
        far = self.delta * (size - 0.5 * self.delta)
        return xp(size).where(size <= self.delta, 0.5 * size * size, far) * self.scale

    def slopes(self, input, target):
        slope = (input - target).clip(-self.delta, self.delta) * self.scale
        return slope, -slope if self.needs[1] else None


class BceLoss(PointwiseLoss):
    """−(t log p + (1 − t) log(1 − p)); the logarithms are kept above −100, as in PyTorch"""

    def losses(self, input, target):
        module = xp(input)
        log_p = module.maximum(module.log(input), -100)
        log_not_p = module.maximum(module.log1p(-input), -100)
        return (target - 1) * log_not_p - target * log_p

    def slopes(self, input, target):
        module = xp(input)
        to_target = None
        if self.needs[1]:
            to_target = module.maximum(module.log1p(-input), -100) - module.maximum(module.log(input), -100)
        return (input - target) / module.maximum((1 - input) * input, 1e-12), to_target


class BceWithLogitsLoss(PointwiseLoss):
    """(1 − t) x + (1 + (pos_weight − 1) t) · log(1 + e⁻ˣ): BceLoss of σ(x), without computing σ(x)"""

    def __init__(self, pos_weight: Any, reduction: str, weight: Any = None):
        super().__init__(reduction, weight)
        self.pos_weight = pos_weight

    def _softplus_of_minus(self, x):
        return xp(x).maximum(-x, 0) + xp(x).log1p(xp(x).exp(-abs(x)))

    def _factor(self, target):
        return 1 if self.pos_weight is None else 1 + (self.pos_weight - 1) * target

    def losses(self, input, target):
        return (1 - target) * input + self._factor(target) * self._softplus_of_minus(input)

    def slopes(self, input, target):
        sigmoid_of_minus = (1 - xp(input).tanh(input * 0.5)) * 0.5
        to_target = None
        if self.needs[1]:
            extra = 0 if self.pos_weight is None else (self.pos_weight - 1) * self._softplus_of_minus(input)
            to_target = extra - input
        return (1 - target) - self._factor(target) * sigmoid_of_minus, to_target


class KlDiv(PointwiseLoss):
    """t (log t − input), where input holds log-probabilities; 0 where t is 0"""

    def losses(self, input, target):
        module = xp(input)
        log_target = module.log(module.where(target > 0, target, 1))
        return target * (log_target - input)

    def slopes(self, input, target):
        module = xp(input)
        to_target = module.log(target) + 1 - input if self.needs[1] else None
        return -target, to_target


class KlDivLogTarget(PointwiseLoss):
    """eᵗ (t − input), where both hold log-probabilities"""

    def losses(self, input, target):
        return xp(target).exp(target) * (target - input)

    def slopes(self, input, target):
        probability = xp(target).exp(target)
        return -probability, probability * (target - input + 1) if self.needs[1] else None


def _pair(name: str, input: Tensor, target: Tensor) -> list[Tensor]:
    """Both in one dtype; differing shapes broadcast, with PyTorch's warning."""
    require_tensor(name, "input", input)
    require_tensor(name, "target", target)
    a, b = tuple(input.array.shape), tuple(target.array.shape)
    if a != b:
        warnings.warn(
            f"Using a target size ({b}) that is different to the input size ({a}). This will likely lead to "
            f"incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=4,
        )
    return promote(input, target)


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """PyTorch's weights of elements for mse and l1: a mean is divided by the sum of the weights."""
    if weight is None:
        return loss
    if tuple(weight.shape) != tuple(loss.shape):
        raise ValueError(
            f"Inputs and weights must have the same size, but got {tuple(loss.shape)} and {tuple(weight.shape)}"
        )
    loss = loss * weight
    return loss.sum() / weight.sum() if reduction == "mean" else reduced(loss, reduction)


@follows_autocast
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input − target)², reduced; shapes as in broadcasting, equal as a rule.

    >>> import shared
    >>> shared.nn.functional.mse_loss(shared.tensor([1., 2.]), shared.tensor([0., 4.]))
    tensor(2.5000)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    pair = _pair("mse_loss", input, target)
    return _weighted(in_float32(MseLoss(reduction if weight is None else "none"), *pair), weight, reduction)


@follows_autocast
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input − target|, reduced."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    pair = _pair("l1_loss", input, target)
    return _weighted(in_float32(L1Loss(reduction if weight is None else "none"), *pair), weight, reduction)


@follows_autocast
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """½ d²/beta where |d| < beta, |d| − ½ beta beyond, d = input − target. Source: Girshick (2015), eq. 3."""
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, size_average, reduce, reduction)
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    return in_float32(HuberLoss(beta, 1 / beta, reduction), *_pair("smooth_l1_loss", input, target))


@follows_autocast
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """½ d² where |d| ≤ delta, delta · (|d| − ½ delta) beyond, d = input − target. Source: Huber (1964)."""
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    check_reduction(reduction)
    a, b = _pair("huber_loss", input, target)
    if weight is not None and tuple(weight.shape) != tuple(input.shape):
        raise ValueError(
            f"huber_loss: Weights and input must have the same size, but got {tuple(weight.shape)} and "
            f"{tuple(input.shape)}"
        )
    return in_float32(HuberLoss(delta, 1.0, reduction, _own(weight)), a, b)


def _require_same_shape(name: str, input: Tensor, target: Tensor) -> None:
    require_tensor(name, "input", input)
    require_tensor(name, "target", target)
    a, b = tuple(input.array.shape), tuple(target.array.shape)
    if a != b:
        raise ValueError(f"{name}: Target size ({b}) must be the same as input size ({a})")


def _own(x: Tensor | None) -> Any:
    """The numbers of `x` as they are now: backward reads them, whatever becomes of `x` in between."""
    return None if x is None else x.array.copy()


@follows_autocast
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−(t log p + (1 − t) log(1 − p)) for probabilities p = input in [0, 1]; both of one shape."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    _require_same_shape("binary_cross_entropy", input, target)
    p = input.array
    if xp(p).any((p < 0) | (p > 1)):
        raise RuntimeError(
            "binary_cross_entropy: all elements of input should be between 0 and 1; "
            "for logits use binary_cross_entropy_with_logits"
        )
    return in_float32(BceLoss(reduction, _own(weight)), *promote(input, target))


@follows_autocast
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of σ(input), stable for logits of any size; `pos_weight` multiplies the positives.

    >>> import shared
    >>> x, t = shared.tensor([0., 1e4, -1e4]), shared.tensor([1., 1., 1.])
    >>> shared.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none").tolist()[1:]
    [0.0, 10000.0]
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    _require_same_shape("binary_cross_entropy_with_logits", input, target)
    function = BceWithLogitsLoss(_own(pos_weight), reduction, _own(weight))
    return in_float32(function, *promote(input, target))


@follows_autocast
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t (log t − input) for log-probabilities as input, probabilities (`log_target`: their logs) as target.

    `batchmean` divides the sum by the batch size: the Kullback–Leibler divergence per sample.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction, ("none", "mean", "sum", "batchmean"))
    require_tensor("kl_div", "input", input)
    require_tensor("kl_div", "target", target)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. "
            "'batchmean' "
            "divides only by the batch size, and aligns with the KL div math definition.",
            stacklevel=3,
        )
    function = (KlDivLogTarget if log_target else KlDiv)("sum" if reduction == "batchmean" else reduction)
    loss = in_float32(function, *promote(input, target))
    return loss / input.shape[0] if reduction == "batchmean" and input.ndim else loss

"""Batch, layer, RMS and group norm and their gradients; the formulas are in reference.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from shared.arrays.kernels import in_rows, select
from shared.arrays.kernels.norm import reference
from shared.arrays.kernels.norm.reference import inverse_std, unbiased, update_running

__all__ = [
    "batch_norm",
    "batch_norm_input",
    "group_norm",
    "group_norm_input",
    "inverse_std",
    "layer_norm",
    "layer_norm_input",
    "normalize_channels",
    "normalize_channels_input",
    "rms_norm",
    "rms_norm_input",
    "unbiased",
    "update_running",
]


def _kernels(*arrays: Any) -> ModuleType:
    given = [a for a in arrays if a is not None]
    return select("norm", *given) if all(a.size for a in given) else reference


def batch_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """`reference.batch_norm`: out (N, C, L), mean (C,), variance (C,)."""
    x = in_rows(x)
    return _kernels(x, weight, bias).batch_norm(x, weight, bias, eps)


def batch_norm_input(grad: Any, x: Any, mean: Any, inv_std: Any, weight: Any) -> tuple[Any, Any, Any]:
    """`reference.batch_norm_input`: the gradients by x, weight and bias."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(grad, x, mean, inv_std, weight).batch_norm_input(grad, x, mean, inv_std, weight)


def normalize_channels(x: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> Any:
    """`reference.normalize_channels`: (N, C, L)."""
    x = in_rows(x)
    return _kernels(x, mean, variance, weight, bias).normalize_channels(x, mean, variance, weight, bias, eps)


def normalize_channels_input(grad: Any, x: Any, mean: Any, inv_std: Any, weight: Any) -> tuple[Any, Any, Any]:
    """`reference.normalize_channels_input`: the gradients by x, weight and bias."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(grad, x, mean, inv_std, weight).normalize_channels_input(grad, x, mean, inv_std, weight)


def group_norm(x: Any, groups: int, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """`reference.group_norm`: out (N, C, L), mean and variance (N · groups, 1)."""
    x = in_rows(x)
    return _kernels(x, weight, bias).group_norm(x, groups, weight, bias, eps)


def group_norm_input(grad: Any, x: Any, groups: int, mean: Any, inv_std: Any, weight: Any) -> tuple[Any, Any, Any]:
    """`reference.group_norm_input`: the gradients by x, weight and bias."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(grad, x, mean, inv_std, weight).group_norm_input(grad, x, groups, mean, inv_std, weight)


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """`reference.layer_norm`: out (R, D), mean and inv_std (R, 1)."""
    x = in_rows(x)
    return _kernels(x, weight, bias).layer_norm(x, weight, bias, eps)


def layer_norm_input(grad: Any, x: Any, mean: Any, inv_std: Any, weight: Any) -> tuple[Any, Any, Any]:
    """`reference.layer_norm_input`: the gradients by x, weight and bias."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(grad, x, mean, inv_std, weight).layer_norm_input(grad, x, mean, inv_std, weight)


def rms_norm(x: Any, weight: Any, eps: float) -> tuple[Any, Any]:
    """`reference.rms_norm`: out (R, D), inv_rms (R, 1)."""
    x = in_rows(x)
    return _kernels(x, weight).rms_norm(x, weight, eps)


def rms_norm_input(grad: Any, x: Any, inv_rms: Any, weight: Any) -> tuple[Any, Any]:
    """`reference.rms_norm_input`: the gradients by x and weight."""
    grad, x = in_rows(grad), in_rows(x)
    return _kernels(grad, x, inv_rms, weight).rms_norm_input(grad, x, inv_rms, weight)

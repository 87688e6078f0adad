"""Switches of the libraries underneath, under `torch.backends`' names.

    shared.backends.cuda.matmul.allow_tf32 = True      # the same as shared.set_float32_matmul_precision("high")

With it, float32 products on the GPU (matrix products, linear layers, convolutions) round their factors to TF32, which
has three decimal digits, and sum in float32: tensor cores multiply such factors. It is off unless asked for.
"""

from __future__ import annotations

from shared.arrays import cublas

PRECISIONS = ("highest", "high", "medium")


class _Matmul:
    """`backends.cuda.matmul`."""

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 products on the GPU may use TF32."""
        return cublas.allow_tf32

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        cublas.allow_tf32 = bool(allowed)


class cuda:
    """`backends.cuda`."""

    matmul = _Matmul()


def set_float32_matmul_precision(precision: str) -> None:
    """Sets "highest", the default: float32 throughout; or "high" or "medium": TF32 on the GPU. The CPU has no choice.

    >>> set_float32_matmul_precision("high")
    >>> cuda.matmul.allow_tf32, get_float32_matmul_precision()
    (True, 'high')
    >>> set_float32_matmul_precision("highest")
    """
    if precision not in PRECISIONS:
        raise RuntimeError(f"{precision!r} is not one of the precisions {', '.join(PRECISIONS)}")
    cuda.matmul.allow_tf32 = precision != "highest"


def get_float32_matmul_precision() -> str:
    """What is set: "highest", or "high" where TF32 is allowed."""
    return "high" if cuda.matmul.allow_tf32 else "highest"

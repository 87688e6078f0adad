"""Matrix products: matmul with PyTorch's rules for every number of dimensions, linear layers, einsum."""

from __future__ import annotations

import math
from typing import Any

from shared.arrays import dtypes, gemm
from shared.arrays.device import xp
from shared.autograd import Function
from shared.ops import reduce
from shared.ops.autocast import follows_autocast
from shared.ops.operands import promote
from shared.tensor import Tensor


class MatMul(Function):
    """a @ b for stacks of matrices; leading dimensions broadcast"""

    twice = True

    def forward(self, a, b):
        """The products of (…, n, k) and (…, k, m): (…, n, m). `gemm.matmul(a, b)` is a @ b, as fast as it gets.

        Keeps in the tuple `self.saved` what backward needs: of each operand's gradient, that is, where `self.needs`
        (one flag per operand) is True.
        """
        self.saved = (a if self.needs[1] else None, b if self.needs[0] else None)
        return gemm.matmul(a, b)

    def backward(self, grad):
        """(the gradient for a, the gradient for b), None where `self.needs` is False; `grad` is (…, n, m).

        For a it is (…, n, k) and for b (…, k, m), with the leading dimensions of `grad`: where one matrix served a
        whole stack, the engine adds its gradients up. `x.mT` exchanges the last two dimensions and copies nothing.
        `grad` and what was saved are Tensors when this gradient is itself to be differentiated: then the product is
        `matmul`, for arrays `gemm.matmul`; `@` serves both, a little slower.

        Source: Giles, "An extended collection of matrix derivative results" (2008), section 2.2.2.
        """
        a, b = self.saved
        product = matmul if isinstance(grad, Tensor) else gemm.matmul
        to_a = product(grad, b.mT) if self.needs[0] else None
        to_b = product(a.mT, grad) if self.needs[1] else None
        return to_a, to_b


class Linear(Function):
    """x Wᵀ + b over the last dimension of x

    With X the rows of x, (n, in), W (out, in) and G (n, out) the gradient: dX = G W, dW = Gᵀ X, db = Σ rows of G.
    """

    twice = True

    def forward(self, x, weight, bias=None):
        """x Wᵀ + b for raw arrays x (…, in), weight (out, in), bias (out,) or None → (…, out).

        x has one dimension or more; those before the last are kept. What `backward` reads of x and weight is kept
        in the tuple `self.saved`, the shape of x, if needed, in `self.size` (`self.shape` is the engine's, for the
        output's). None of the arguments is changed.
        """
        self.saved = (x if self.needs[1] else None, weight if self.needs[0] else None)
        self.size = x.shape
        rows = x.reshape(-1, x.shape[-1])
        out = gemm.matmul_transposed(rows, weight)
        if bias is not None:
            out += bias
        return out.reshape(*x.shape[:-1], weight.shape[0])

    def backward(self, grad):
        """The gradients by x, weight and bias, each in the shape of its own, from grad (…, out).

        A tuple of as many as `forward` was given arrays: two without a bias. None stands for one that is not
        needed: `self.needs` is a list of bools, one per array. grad and what was saved are raw arrays, or all of
        them Tensors where a gradient of the gradient is asked for: operators and methods that both have (@, .T,
        .reshape) serve either; self._bias_gradient sums the rows of a matrix of either kind.
        """
        x, weight = self.saved
        product = matmul if isinstance(grad, Tensor) else gemm.matmul
        grad = grad.reshape(-1, grad.shape[-1])
        to_x = product(grad, weight).reshape(self.size) if self.needs[0] else None
        to_weight = product(grad.T, x.reshape(-1, x.shape[-1])) if self.needs[1] else None
        to_bias = self._bias_gradient(grad) if self.needs[2:] == [True] else None
        return (to_x, to_weight, to_bias)[: len(self.needs)]

    def _bias_gradient(self, grad):
        """The sum of the rows of grad (n, out)."""
        return grad.sum(axis=0) if isinstance(grad, Tensor) else gemm.column_sums(grad)


def _mismatch(name: str, a: Tensor, b: Tensor, expected: str) -> RuntimeError:
    return RuntimeError(
        f"{name}: shapes {tuple(a.array.shape)} and {tuple(b.array.shape)} cannot be multiplied: {expected}"
    )


@follows_autocast
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; vectors count as a row on the left and a column on the right, stacks broadcast.

    Shapes: (…, n, k) @ (…, k, m) → (…, n, m). Errors: RuntimeError naming both shapes.

    >>> import shared
    >>> shared.matmul(shared.ones(2, 3), shared.ones(3, 4)).shape
    Size([2, 4])
    """
    for operand in (input, other):
        if not isinstance(operand, Tensor):
            raise TypeError(f"matmul: expected Tensors, but got {type(operand).__name__}")
    a, b = input, other
    if not a.array.ndim or not b.array.ndim:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {a.array.ndim}D and {b.array.ndim}D"
        )
    if a.array.dtype != b.array.dtype:
        raise RuntimeError(
            f"matmul: expected both matrices to have the same dtype, but got {a.array.dtype.name} and "
            f"{b.array.dtype.name}; convert one of them with .to(dtype)"
        )
    inner = b.array.shape[-2] if b.array.ndim > 1 else b.array.shape[0]
    if a.array.shape[-1] != inner:
        raise _mismatch(
            "matmul",
            a,
            b,
            f"the last size of the first ({a.array.shape[-1]}) must equal the last but one of the second ({inner})",
        )
    row, column = a.array.ndim == 1, b.array.ndim == 1
    a = a.unsqueeze(0) if row else a
    b = b.unsqueeze(1) if column else b
    out = MatMul()(a, b)
    if column:
        out = out.squeeze(-1)
    return out.squeeze(-1 if column else -2) if row else out


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices (n, k) and (k, m)."""
    if input.array.ndim != 2 or mat2.array.ndim != 2:
        raise _mismatch("mm", input, mat2, "both must be matrices (2 dimensions)")
    return matmul(input, mat2)


@follows_autocast
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta · input + alpha · mat1 @ mat2."""
    product = mm(mat1, mat2)
    return (input if beta == 1 else input * beta) + (product if alpha == 1 else product * alpha)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two stacks of matrices, (B, n, k) and (B, k, m)."""
    if input.array.ndim != 3 or mat2.array.ndim != 3 or input.array.shape[0] != mat2.array.shape[0]:
        raise _mismatch("bmm", input, mat2, "both must be 3-dimensional with the same first size")
    return matmul(input, mat2)


@follows_autocast
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix (n, k) and a vector (k,)."""
    if input.array.ndim != 2 or vec.array.ndim != 1:
        raise _mismatch("mv", input, vec, "the first must be a matrix, the second a vector")
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors of one length."""
    if input.array.ndim != 1 or tensor.array.ndim != 1 or input.array.shape != tensor.array.shape:
        raise _mismatch("dot", input, tensor, "both must be vectors of the same length")
    product = input * tensor
    return reduce.sum(product, dtype=product.dtype)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of every element of one vector with every element of another, (n, m)."""
    if input.array.ndim != 1 or vec2.array.ndim != 1:
        raise _mismatch("outer", input, vec2, "both must be vectors")
    return input.unsqueeze(1) * vec2.unsqueeze(0)


@follows_autocast
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias. Shapes: input (…, in), weight (out, in) or (in,), bias (out,) → (…, out)."""
    given = [input, weight] if bias is None else [input, weight, bias]
    for name, x in zip(("input", "weight", "bias"), given, strict=False):
        if not isinstance(x, Tensor):
            raise TypeError(f"linear(): argument '{name}' must be Tensor, not {type(x).__name__}")
    if weight.array.ndim == 1:
        out = matmul(input, weight)
        return out if bias is None else out + bias
    if not input.array.ndim or weight.array.ndim != 2 or input.array.shape[-1] != weight.array.shape[1]:
        raise _mismatch("linear", input, weight, "the input's last size must equal the weight's (out, in) second size")
    if len({x.array.dtype for x in given}) > 1:
        raise RuntimeError(
            f"linear: expected input, weight and bias to have the same dtype, but got "
            f"{', '.join(x.array.dtype.name for x in given)}"
        )
    if bias is not None and bias.array.shape != (weight.array.shape[0],):
        raise RuntimeError(
            f"linear: expected a bias of shape ({weight.array.shape[0]},) for a weight of shape "
            f"{tuple(weight.array.shape)}, but got {tuple(bias.array.shape)}"
        )
    return Linear()(*given)


# ---------------------------------------------------------------- einsum


def _letters(equation: str, operands: list[Tensor]) -> tuple[list[str], str]:
    """The subscripts of each operand and of the result, with '...' replaced by capital letters."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum(): {len(terms)} operands in {equation!r}, but {len(operands)} were given")
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    extra = [x.array.ndim - len(term.replace("...", "")) for term, x in zip(terms, operands, strict=True)]
    for i, (term, n) in enumerate(zip(terms, extra, strict=True)):
        if n < 0 or (n and "..." not in term):
            raise RuntimeError(
                f"einsum(): subscripts {term!r} do not name the {operands[i].array.ndim} dimensions of operand {i}"
            )
    widest = max(extra)  # ellipses align at the right: the last dimension gets the last letter everywhere
    terms = [t.replace("...", "".join(free[widest - n : widest])) for t, n in zip(terms, extra, strict=True)]
    ellipsis = "".join(free[:widest])
    if not arrow:
        letters = "".join(terms)
        output = ellipsis + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in ellipsis))
    return terms, output.replace("...", ellipsis)


@follows_autocast
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products over named dimensions (Einstein's convention).

    Worked out as one matrix product per pair of operands, so that it is differentiable and fast.

    >>> import shared
    >>> shared.einsum("ij,jk->ik", shared.ones(2, 3), shared.ones(3, 4)).shape
    Size([2, 4])
    """
    tensors = list(operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else list(operands)
    terms, output = _letters(equation, tensors)
    unknown = set(output) - set("".join(terms))
    if unknown or len(set(output)) != len(output):
        raise RuntimeError(f"einsum(): the output {output!r} of {equation!r} repeats a subscript or has an unknown one")
    tensors = promote(*tensors)
    terms, tensors = map(list, zip(*[_diagonal(t, x) for t, x in zip(terms, tensors, strict=True)], strict=True))
    _check_sizes(equation, terms, tensors)
    term, result = terms[0], tensors[0]
    for i in range(1, len(terms)):
        needed = set(output).union(*terms[i + 1 :])
        term, result = _contract(term, result, terms[i], tensors[i], needed)
    gone = [i for i, c in enumerate(term) if c not in output]
    if gone:
        result = reduce.sum(result, gone)
        term = "".join(c for c in term if c in output)
    return result.permute([term.index(c) for c in output]) if term != output else result


def _check_sizes(equation: str, terms: list[str], tensors: list[Tensor]) -> None:
    sizes: dict[str, int] = {}
    for term, x in zip(terms, tensors, strict=True):
        for letter, n in zip(term, x.array.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                if 1 not in (n, sizes[letter]):
                    raise RuntimeError(
                        f"einsum(): subscript {letter!r} of {equation!r} has size {n} for shape "
                        f"{tuple(x.array.shape)}, which does not broadcast with previously seen size {sizes[letter]}"
                    )
                sizes[letter] = max(n, sizes[letter])


def _diagonal(term: str, x: Tensor) -> tuple[str, Tensor]:
    """A repeated subscript within one operand takes the diagonal."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            order = [i for i in range(len(term)) if i not in (first, second)]
            moved = x.permute([first, second, *order])
            places = Tensor(xp(moved.array).arange(moved.array.shape[0], dtype=dtypes.int64))
            x = moved[places, places]
            term = letter + "".join(term[i] for i in order)
    return term, x


def _contract(term_a: str, a: Tensor, term_b: str, b: Tensor, needed: set[str]) -> tuple[str, Tensor]:
    """The product of two operands, summed over the subscripts nobody needs any more."""
    both = [c for c in term_a if c in term_b]
    batch = [c for c in both if c in needed]
    summed = [c for c in both if c not in needed]
    only_a = [c for c in term_a if c not in term_b]
    only_b = [c for c in term_b if c not in term_a]
    a = a.permute([term_a.index(c) for c in batch + only_a + summed])
    b = b.permute([term_b.index(c) for c in batch + summed + only_b])
    size: dict[str, int] = {}
    for letters, x in ((batch + only_a + summed, a), (batch + summed + only_b, b)):
        size.update({c: n for c, n in zip(letters, x.array.shape, strict=True) if n != 1})

    def joined(x: Tensor, *groups: list[str]) -> Tensor:
        shape = [size.get(c, 1) for g in groups for c in g]
        full = x.expand(shape)
        return full.reshape([math.prod(size.get(c, 1) for c in g) for g in groups])

    product = matmul(joined(a, batch, only_a, summed), joined(b, batch, summed, only_b))
    return "".join(batch + only_a + only_b), product.reshape([size.get(c, 1) for c in batch + only_a + only_b])

"""Attention compiled by Numba: block by block, scores and weights never leave the cache. Formulas in reference.py.

A block of scores belongs to `ROWS` queries and at most `COLUMNS` keys. What lies above the diagonal is not computed.
Forward keeps a running maximum and sum of each row over the blocks of its keys; their logarithm is all that backward
needs to compute a block of weights once more. Source: Dao, Fu, Ermon, Rudra and Ré, "FlashAttention", 2022,
algorithms 1 and 4.

Arrays are known to the kernels by address and strides: one compiled kernel serves every layout, such as queries, keys
and values that are columns of one projection, and BLAS takes such rows as they lie. Threads share the heads.
"""

from __future__ import annotations

import importlib
import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from shared.arrays.kernels.dropout import reference as drops
from shared.arrays.kernels.softmax.cpu import _exp, _largest, _sum, _sum_of_products
from shared.arrays.kernels.threads import match_blas, share

__all__ = ["attention_backward", "attention_forward", "warm_up"]

# NaN and infinities keep their meaning (see optim/cpu.py).
FASTMATH = {"contract", "nsz", "arcp"}
OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy", "cache": True, "nogil": True}
INNER = {**OPTIONS, "no_cpython_wrapper": True}  # for what only kernels call: a sixth less to compile
ROWS = 32  # queries of a block: fewer compute less above the diagonal, more make faster products
SHORT = 128  # queries up to which blocks have half as many
COLUMNS = 256  # keys of a block: scores of 32 KB in float32, which stay in the cache
SMALL_PRODUCT = 10**6  # multiplications that OpenBLAS does without packing: 113 GFLOP/s instead of 32
PARALLEL_FROM = 1 << 21  # multiplications; below, starting threads costs more than it saves
NO_MASK, BOOLEAN, ADDED = range(3)

_threads = match_blas()

u4 = np.uint32
_FIRST, _SECOND, _THIRD = u4(drops.FIRST), u4(drops.SECOND), u4(drops.THIRD)

# ---------------------------------------------------------------- memory and products


@intrinsic
def _pointer(context, address, like):
    """A pointer to numbers of the dtype of the array `like`."""
    pointer = types.CPointer(like.dtype)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(address, like), generate


@numba.njit(inline="always")
def _row(address, size, like):
    return numba.carray(_pointer(address, like), size)


_signature = types.intc(*[types.char] * 3, *[types.intp] * 11)
_xxgemm = types.ExternalFunction("numba_xxgemm", _signature)  # what `np.dot` calls; takes rows that lie apart


@numba.njit(inline="always")
def _address(x):
    return np.int64(x.ctypes.data)


@numba.njit(**INNER)
def _product(a, transposed, b, out, shape, numbers, alpha, beta):
    """out = numbers[alpha] · a @ b + numbers[beta] · out, row-major; a, b and out are (address, stride of rows).

    a is (m, k), stored as (k, m) if `transposed`, b (k, n); `shape` is (m, n, k). BLAS counts columns first, so it is
    given outᵀ = bᵀ aᵀ. The caller keeps every array alive: for Numba an address is no use of one.
    """
    size = numbers.itemsize
    kind, turned = ord("s") if size == 4 else ord("d"), ord("t") if transposed else ord("n")
    factor, share_of_out = _address(numbers) + alpha * size, _address(numbers) + beta * size
    m, n, k = shape
    _xxgemm(kind, ord("n"), turned, n, m, k, factor, b[0], b[1], a[0], a[1], share_of_out, out[0], out[1])


@intrinsic
def _turn_tile(context, source, source_step, target, target_step, factor):
    """target[c, r] = factor · source[r, c] for a tile of 64 bytes by as many rows, at addresses, with steps in bytes.

    In registers, which compiled loops do not come to: for each bit of the numbers 0 … 15, rows and columns exchange it.
    """
    side = 16 if factor == types.float32 else 8

    def generate(context, builder, signature, arguments):
        source, source_step, target, target_step, factor = arguments
        vector = ir.VectorType(context.get_value_type(signature.args[4]), side)

        def place(address, step, r):
            there = builder.add(address, builder.mul(step, ir.Constant(step.type, r)))
            return builder.inttoptr(there, vector.as_pointer())

        def shuffle(a, b, chosen):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), side), chosen))

        one = builder.insert_element(ir.Constant(vector, ir.Undefined), factor, ir.IntType(32)(0))
        every = shuffle(one, one, [0] * side)
        rows = [builder.load(place(source, source_step, r), align=64 // side, typ=vector) for r in range(side)]
        rows = [builder.fmul(row, every) for row in rows]
        bit = 1
        while bit < side:
            for r in range(side):
                if not r & bit:
                    a, b = rows[r], rows[r | bit]
                    rows[r] = shuffle(a, b, [side + c - bit if c & bit else c for c in range(side)])
                    rows[r | bit] = shuffle(a, b, [side + c if c & bit else c + bit for c in range(side)])
            bit *= 2
        for r in range(side):
            builder.store(rows[r], place(target, target_step, r), align=64 // side)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp, factor), generate


@numba.njit(**INNER)
def _turn(source, stride, count, out, factor):
    """out[:, :count] = factor · the rows at `source`, as columns."""
    width, size, columns = len(out), out.itemsize, out.shape[1]
    side = 64 // size
    for j in range(0, count, side):
        for c in range(0, width, side):
            at = source + (j * stride + c) * size
            if j + side <= count and c + side <= width:
                _turn_tile(at, stride * size, _address(out) + (c * columns + j) * size, columns * size, factor)
            else:
                for r in range(j, min(j + side, count)):
                    row = _row(source + r * stride * size, width, out)
                    for place in range(c, min(c + side, width)):
                        out[place, r] = factor * row[place]


# ---------------------------------------------------------------- a row of a block


@numba.njit(**INNER)
def _masked(row, kind, address, like, flags):
    """The mask's row at `address` applied to a row of scores."""
    if kind == BOOLEAN:
        may = _row(address, row.size, flags)
        for j in range(row.size):
            row[j] = row[j] if may[j] else -np.inf
    elif kind == ADDED:
        added = _row(address, row.size, like)
        for j in range(row.size):
            row[j] += added[j]


@numba.njit(**INNER)
def _exponentials(row, shift):
    """row = exp(row − shift)"""
    for j in range(row.size):
        row[j] = _exp(row[j] - shift)


@numba.njit(**INNER)
def _clear(row):
    for j in range(row.size):
        row[j] = 0


@numba.njit(**INNER)
def _scale(row, factor):
    for j in range(row.size):
        row[j] *= factor


@numba.njit(**INNER)
def _factors(row, place, first, second, threshold, scale):
    """What dropout multiplies a row of weights with; `place` is where its first element has its number."""
    zero = row.dtype.type(0)
    for i in range(row.size):
        # Numba takes sums and products of 32 bits for 64 bits wide: each is cut back
        h = u4(u4(u4(i) + place) + first)
        h = u4((h ^ (h >> u4(17))) * _FIRST)
        h = u4((h ^ (h >> u4(11))) + second)
        h = u4((h ^ (h >> u4(15))) * _SECOND)
        h = u4((h ^ (h >> u4(14))) * _THIRD)
        h = h ^ (h >> u4(15))
        row[i] = scale if (h >> u4(8)) >= threshold else zero


@numba.njit(**INNER)
def _multiply(row, other):
    for j in range(row.size):
        row[j] *= other[j]


@numba.njit(**INNER)
def _to_scores(weights, to_weights, mean):
    """to_weights = weights · (to_weights − mean): the gradient of a softmax."""
    for j in range(weights.size):
        to_weights[j] = weights[j] * (to_weights[j] - mean)


# ---------------------------------------------------------------- some heads

# q, k, v, … are tuples (address, stride of batches, of heads, of rows), strides in elements; `sizes` is (heads of keys,
# queries' heads to each of them, queries, keys, width of queries and keys, width of values). Query r sees the keys up
# to r + diagonal.


@numba.njit(**OPTIONS)
def _forward_piece(q, k, v, mask, kind, out, logs, sizes, units, diagonal, scale, drop):
    key_heads, group, queries, keys, width, value_width, block_rows, columns = sizes
    size, flags = logs.itemsize, np.empty(0, np.uint8)
    first_half, second_half, threshold, drop_scale = drop
    dropping = threshold > 0
    numbers, zero, one = np.array([0, 1]).astype(logs.dtype), 0, 1
    scores, factors = np.empty((min(block_rows, queries), columns), logs.dtype), np.empty(columns, logs.dtype)
    turned = np.empty((width, columns), logs.dtype)
    block, k_columns = (_address(scores), columns), (_address(turned), columns)
    largest, totals = np.empty(queries, logs.dtype), np.empty(queries, logs.dtype)
    for unit in range(units[0], units[1]):
        batch, key_head = unit // key_heads, unit % key_heads
        k_at, v_at = k[0] + (batch * k[1] + key_head * k[2]) * size, v[0] + (batch * v[1] + key_head * v[2]) * size
        for head in range(key_head * group, (key_head + 1) * group):
            q_at, out_at = q[0] + (batch * q[1] + head * q[2]) * size, out[0] + (batch * out[1] + head * out[2]) * size
            mask_at = mask[0] + (batch * mask[1] + head * mask[2]) * mask[4]
            place = (batch * key_heads * group + head) * queries * keys
            for first_key in range(0, keys, columns):
                count = min(columns, keys - first_key)
                _turn(k_at + first_key * k[3] * size, k[3], count, turned, scale)
                v_rows = v_at + first_key * v[3] * size, v[3]
                start = max(0, first_key - diagonal)  # queries before see none of these keys
                if first_key == 0:
                    for r in range(min(start, queries)):  # and here they see none at all
                        _clear(_row(out_at + r * out[3] * size, value_width, logs))
                        largest[r], totals[r] = -np.inf, 0
                for i in range(start // block_rows * block_rows, queries, block_rows):
                    rows = min(block_rows, queries - i)
                    seen = min(count, i + rows + diagonal - first_key)
                    if seen <= 0:
                        continue
                    q_rows, out_rows = (q_at + i * q[3] * size, q[3]), (out_at + i * out[3] * size, out[3])
                    _product(q_rows, False, k_columns, block, (rows, seen, width), numbers, one, zero)
                    for r in range(rows):
                        until = max(0, min(seen, i + r + 1 + diagonal - first_key))
                        row = _row(block[0] + r * columns * size, until, logs)
                        _clear(_row(block[0] + (r * columns + until) * size, seen - until, logs))
                        if kind != NO_MASK:
                            mask_row = mask_at + ((i + r) * mask[3] + first_key) * mask[4]
                            _masked(row, kind, mask_row, logs, flags)
                        highest = _largest(row) if until else logs.dtype.type(-np.inf)
                        if first_key:
                            before = largest[i + r]
                            if not highest > before and not np.isnan(highest):
                                highest = before
                        shift = logs.dtype.type(0) if highest == -np.inf else highest
                        _exponentials(row, shift)
                        if first_key:
                            fade = logs.dtype.type(0) if before == -np.inf else np.exp(before - shift)
                            totals[i + r] = totals[i + r] * fade + _sum(row)
                            if fade != 1:
                                _scale(_row(out_at + (i + r) * out[3] * size, value_width, logs), fade)
                        else:
                            totals[i + r] = _sum(row)
                        largest[i + r] = highest
                        if dropping:
                            here = u4(place + (i + r) * keys + first_key)
                            _factors(factors[:until], here, first_half, second_half, threshold, drop_scale)
                            _multiply(row, factors)
                    keep = one if first_key else zero
                    _product(block, False, v_rows, out_rows, (rows, value_width, seen), numbers, one, keep)
            logs_row = logs[batch, head]
            for r in range(queries):
                total = totals[r]
                nothing = total == 0
                _scale(
                    _row(out_at + r * out[3] * size, value_width, logs), logs.dtype.type(1 if nothing else 1 / total)
                )
                logs_row[r] = np.inf if nothing else largest[r] + np.log(total)
    return scores, turned  # alive until here: for Numba an address is no use of an array


@numba.njit(**OPTIONS)
def _backward_piece(q, k, v, mask, kind, out, logs, grad, to_q, to_k, to_v, sizes, units, diagonal, scale, drop):
    key_heads, group, queries, keys, width, value_width, block_rows, columns = sizes
    size, flags = logs.itemsize, np.empty(0, np.uint8)
    first_half, second_half, threshold, drop_scale = drop
    dropping = threshold > 0
    numbers, zero, one, scaled = np.array([0, 1, scale], logs.dtype), 0, 1, 2
    most = min(block_rows, queries)
    weights, to_weights = np.empty((most, columns), logs.dtype), np.empty((most, columns), logs.dtype)
    dropped = np.empty((most if dropping else 0, columns), logs.dtype)
    turned_k, turned_v = np.empty((width, columns), logs.dtype), np.empty((value_width, columns), logs.dtype)
    means = np.empty(queries, logs.dtype)
    block, to_block = (_address(weights), columns), (_address(to_weights), columns)
    k_columns, v_columns = (_address(turned_k), columns), (_address(turned_v), columns)
    values_block = (_address(dropped), columns) if dropping else block
    for unit in range(units[0], units[1]):
        batch, key_head = unit // key_heads, unit % key_heads
        k_at, v_at = k[0] + (batch * k[1] + key_head * k[2]) * size, v[0] + (batch * v[1] + key_head * v[2]) * size
        to_k_at = to_k[0] + (batch * to_k[1] + key_head * to_k[2]) * size
        to_v_at = to_v[0] + (batch * to_v[1] + key_head * to_v[2]) * size
        for j in range(keys):
            _clear(_row(to_k_at + j * to_k[3] * size, width, logs))
            _clear(_row(to_v_at + j * to_v[3] * size, value_width, logs))
        for head in range(key_head * group, (key_head + 1) * group):
            q_at, out_at = q[0] + (batch * q[1] + head * q[2]) * size, out[0] + (batch * out[1] + head * out[2]) * size
            to_q_at = to_q[0] + (batch * to_q[1] + head * to_q[2]) * size
            grad_at = grad[0] + (batch * grad[1] + head * grad[2]) * size
            mask_at = mask[0] + (batch * mask[1] + head * mask[2]) * mask[4]
            place = (batch * key_heads * group + head) * queries * keys
            logs_row = logs[batch, head]
            for r in range(queries):
                a, b = out_at + r * out[3] * size, grad_at + r * grad[3] * size
                means[r] = _sum_of_products(_row(a, value_width, logs), _row(b, value_width, logs))
            for first_key in range(0, keys, columns):
                count = min(columns, keys - first_key)
                _turn(k_at + first_key * k[3] * size, k[3], count, turned_k, scale)
                _turn(v_at + first_key * v[3] * size, v[3], count, turned_v, logs.dtype.type(1))
                k_rows = k_at + first_key * k[3] * size, k[3]
                to_k_rows, to_v_rows = (
                    (to_k_at + first_key * to_k[3] * size, to_k[3]),
                    (to_v_at + first_key * to_v[3] * size, to_v[3]),
                )
                start = max(0, first_key - diagonal)
                if first_key == 0:
                    for r in range(min(start, queries)):
                        _clear(_row(to_q_at + r * to_q[3] * size, width, logs))
                for i in range(start // block_rows * block_rows, queries, block_rows):
                    rows = min(block_rows, queries - i)
                    seen = min(count, i + rows + diagonal - first_key)
                    if seen <= 0:
                        continue
                    q_rows, grad_rows = (q_at + i * q[3] * size, q[3]), (grad_at + i * grad[3] * size, grad[3])
                    to_q_rows = to_q_at + i * to_q[3] * size, to_q[3]
                    _product(q_rows, False, k_columns, block, (rows, seen, width), numbers, one, zero)
                    _product(grad_rows, False, v_columns, to_block, (rows, seen, value_width), numbers, one, zero)
                    for r in range(rows):
                        until = max(0, min(seen, i + r + 1 + diagonal - first_key))
                        row = _row(block[0] + r * columns * size, until, logs)
                        to_row = _row(to_block[0] + r * columns * size, until, logs)
                        if kind != NO_MASK:
                            mask_row = mask_at + ((i + r) * mask[3] + first_key) * mask[4]
                            _masked(row, kind, mask_row, logs, flags)
                        _exponentials(row, logs_row[i + r])
                        _clear(_row(block[0] + (r * columns + until) * size, seen - until, logs))
                        if dropping:
                            here, kept = u4(place + (i + r) * keys + first_key), dropped[r, :until]
                            _factors(kept, here, first_half, second_half, threshold, drop_scale)
                            _multiply(to_row, kept)
                            _multiply(kept, row)
                            dropped[r, until:seen] = 0
                        _to_scores(row, to_row, means[i + r])
                        _clear(_row(to_block[0] + (r * columns + until) * size, seen - until, logs))
                    keep = one if first_key else zero
                    _product(values_block, True, grad_rows, to_v_rows, (seen, value_width, rows), numbers, one, one)
                    _product(to_block, True, q_rows, to_k_rows, (seen, width, rows), numbers, scaled, one)
                    _product(to_block, False, k_rows, to_q_rows, (rows, width, seen), numbers, scaled, keep)
    return weights, to_weights, dropped, turned_k, turned_v  # alive until here


# ---------------------------------------------------------------- all heads, among threads


def _strides(x):
    """(address, strides in elements of all dimensions but the last) for the kernels."""
    size = x.itemsize
    a, b, c, _ = x.strides
    return x.ctypes.data, a // size, b // size, c // size


def _mask(mask, shape):
    """(kind, (address, strides, element's size)), and the array that must live as long."""
    if mask is None:
        return NO_MASK, (0, 0, 0, 0, 0), None
    if mask.strides[-1] != mask.itemsize or mask.shape[-1] != shape[-1]:
        mask = np.ascontiguousarray(np.broadcast_to(mask, (*mask.shape[:-1], shape[-1])))
    mask = np.broadcast_to(mask, shape)
    return BOOLEAN if mask.dtype == bool else ADDED, (*_strides(mask), mask.itemsize), mask


def _drop(p, seed, dtype):
    """The two halves of the seed, what the 24 bits of a number must reach to be kept, and the factor then."""
    threshold = u4(math.ceil(float(np.float32(p)) * 2**24))
    return u4(seed & 0xFFFFFFFF), u4(seed >> 32), threshold, dtype.type(1 / (1 - p) if p < 1 else 0)


def _share(work, batch, sizes):
    """work(first, last) over batches and heads; SciPy's BLAS, which the kernels call, must be loaded to be told."""
    key_heads, group, queries, keys, width, value_width = sizes[:6]
    units = batch * key_heads
    tasks = 1
    if _threads > 1 and units * group * queries * keys * (width + value_width) >= PARALLEL_FROM:
        tasks = min(_threads, units)
        importlib.import_module("scipy.linalg.cython_blas")
    share(lambda _, first, last: work((first, last)), units, tasks, blas=True)


def _like(x, shape):
    """An empty array of `shape` (B, H, n, width) whose rows lie in the order of those of x."""
    if x.strides[1] < x.strides[2]:
        return np.empty((shape[0], shape[2], shape[1], shape[3]), x.dtype).swapaxes(1, 2)
    return np.empty(shape, x.dtype)


def _sizes(q, k, v):
    widest, rows = max(q.shape[3], v.shape[3]), ROWS if q.shape[2] > SHORT else ROWS // 2
    columns = max(ROWS, min(COLUMNS, SMALL_PRODUCT // (ROWS * widest) // ROWS * ROWS))
    heads = k.shape[1], q.shape[1] // k.shape[1]
    return *heads, q.shape[2], k.shape[2], q.shape[3], v.shape[3], rows, min(columns, k.shape[2])


def _far(diagonal, k):
    """The diagonal for the kernels: without one, every query sees every key."""
    return k.shape[2] if diagonal is None else diagonal


def attention_forward(q, k, v, mask, diagonal, scale, p, seed):
    """`reference.attention_forward`."""
    sizes, dtype = _sizes(q, k, v), q.dtype
    out, logs = _like(q, (*q.shape[:3], v.shape[3])), np.empty(q.shape[:3], dtype)
    kind, mask_view, mask = _mask(mask, (*q.shape[:3], k.shape[2]))
    views = _strides(q), _strides(k), _strides(v), mask_view, kind, _strides(out), logs, sizes
    rest = _far(diagonal, k), dtype.type(scale), _drop(p, seed, dtype)
    _share(lambda units: _forward_piece(*views, units, *rest), len(q), sizes)
    return out, logs


def attention_backward(q, k, v, out, logs, grad, mask, diagonal, scale, p, seed, into=None):
    """`reference.attention_backward`."""
    sizes, dtype = _sizes(q, k, v), q.dtype
    into = into or tuple([_like(x, x.shape) for x in (q, k, v)])
    kind, mask_view, mask = _mask(mask, (*q.shape[:3], k.shape[2]))
    views = (
        *(_strides(q), _strides(k), _strides(v), mask_view, kind, _strides(out), logs, _strides(grad)),
        *(*[_strides(x) for x in into], sizes),
    )
    rest = _far(diagonal, k), dtype.type(scale), _drop(p, seed, dtype)
    _share(lambda units: _backward_piece(*views, units, *rest), len(q), sizes)
    return into


def warm_up() -> None:
    """Compiles each kernel for both dtypes, or loads it from the cache."""
    for dtype in (np.float32, np.float64):
        x = np.zeros((1, 1, 1, 1), dtype)
        out, logs = attention_forward(x, x, x, None, None, 1.0, 0.0, 0)
        attention_backward(x, x, x, out, logs, x, None, None, 1.0, 0.0, 0)

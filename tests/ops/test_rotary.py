"""Rotary position embedding, which PyTorch does not have: against complex numbers, and by what a rotation keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.nn import functional as F
from shared.ops.rotary import angular_frequencies, position_angles
from shared.testing import gradcheck, gradgradcheck

CONVENTIONS = pytest.mark.parametrize("interleaved", [False, True])


def rotated_slowly(x, positions, interleaved, base=10000.0):
    """Each pair as a complex number, times e^(i·position·frequency): one number after the other."""
    out = np.empty_like(x)
    dim = x.shape[-1]
    for place in np.ndindex(x.shape[:-1]):
        for k in range(dim // 2):
            first, second = (2 * k, 2 * k + 1) if interleaved else (k, k + dim // 2)
            z = complex(x[(*place, first)], x[(*place, second)])
            z *= np.exp(1j * positions[place[-1]] * base ** (-2 * k / dim))
            out[(*place, first)], out[(*place, second)] = z.real, z.imag
    return out


def draw(*shape, seed=0, dtype="float64"):
    return shared.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def tables(positions, dim, **options):
    return F.rotary_tables(positions, dim, dtype=shared.float64, **options)


def test_frequencies_fall_geometrically_from_1():
    assert np.allclose(angular_frequencies(6, base=1000.0).numpy(), [1.0, 0.1, 0.01], rtol=1e-15)
    assert angular_frequencies(5).shape == (3,) and angular_frequencies(5).dtype == shared.float64


def test_angles_are_position_times_frequency():
    angles = position_angles(shared.tensor([[0, 3], [7, 100_000]]), 4)
    assert angles.shape == (2, 2, 2)
    assert np.allclose(angles.numpy()[1], [[7, 0.07], [1e5, 1e3]], rtol=1e-15)
    assert position_angles(3, 4).tolist() == position_angles(shared.arange(3), 4).tolist()


@CONVENTIONS
def test_a_quarter_turn_by_hand(interleaved):
    """(1, 0) becomes (0, 1) and (0, 1) becomes (−1, 0); the second pair stays."""
    cos, sin = shared.tensor([[0.0, 1.0]]), shared.tensor([[1.0, 0.0]])
    if interleaved:
        assert F.apply_rotary(shared.tensor([[1.0, 0, 5, 6]]), cos, sin, True).tolist() == [[0, 1, 5, 6]]
        assert F.apply_rotary(shared.tensor([[0.0, 1, 5, 6]]), cos, sin, True).tolist() == [[-1, 0, 5, 6]]
    else:
        assert F.apply_rotary(shared.tensor([[1.0, 5, 0, 6]]), cos, sin).tolist() == [[0, 5, 1, 6]]
        assert F.apply_rotary(shared.tensor([[0.0, 5, 1, 6]]), cos, sin).tolist() == [[-1, 5, 0, 6]]


@CONVENTIONS
def test_it_is_a_product_of_complex_numbers(interleaved):
    x = draw(2, 3, 5, 8)
    found = F.apply_rotary(x, *tables(5, 8), interleaved)
    assert np.allclose(found.numpy(), rotated_slowly(x.numpy(), range(5), interleaved), rtol=1e-12, atol=1e-12)


def test_the_conventions_are_one_rotation_of_reordered_dimensions():
    x, (cos, sin) = draw(4, 5, 8), tables(5, 8)
    order = np.arange(8).reshape(4, 2).T.ravel()  # 0 2 4 6 1 3 5 7
    split = F.apply_rotary(x[..., order], cos, sin)
    assert np.array_equal(split.numpy(), F.apply_rotary(x, cos, sin, interleaved=True).numpy()[..., order])


@settings(max_examples=40, deadline=None)
@given(interleaved=st.booleans(), pairs=st.integers(1, 8), length=st.integers(1, 6), seed=st.integers(0, 99))
def test_lengths_stay(interleaved, pairs, length, seed):
    x = draw(2, length, 2 * pairs, seed=seed)
    turned = F.apply_rotary(x, *tables(length, 2 * pairs), interleaved)
    assert np.allclose((turned**2).sum(-1).numpy(), (x**2).sum(-1).numpy(), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    interleaved=st.booleans(), m=st.integers(0, 500), n=st.integers(0, 500), shift=st.integers(0, 500), seed=st.integers(0, 99)
)  # fmt: skip
def test_dot_products_depend_on_the_difference_of_positions_only(interleaved, m, n, shift, seed):
    q, k = draw(1, 8, seed=seed), draw(1, 8, seed=seed + 1000)

    def score(m, n):
        at = [F.apply_rotary(x, *tables(shared.tensor([p]), 8), interleaved) for x, p in ((q, m), (k, n))]
        return float((at[0] * at[1]).sum())

    assert score(m, n) == pytest.approx(score(m + shift, n + shift), rel=1e-9, abs=1e-9)


def test_dot_products_do_depend_on_the_difference():
    q = draw(1, 8)
    scores = [float((F.apply_rotary(q, *tables(shared.tensor([p]), 8)) * q).sum()) for p in range(5)]
    assert len({round(s, 6) for s in scores}) == 5 and max(scores) == scores[0]


@CONVENTIONS
def test_the_gradient_is_the_rotation_back(interleaved):
    x, g, (cos, sin) = draw(2, 5, 8).requires_grad_(), draw(2, 5, 8, seed=1), tables(5, 8)
    F.apply_rotary(x, cos, sin, interleaved).backward(g)
    assert np.array_equal(x.grad.numpy(), F.apply_rotary(g, cos, -sin, interleaved).numpy())
    back = F.apply_rotary(F.apply_rotary(x, cos, sin, interleaved), cos, -sin, interleaved)
    assert np.allclose(back.numpy(force=True), x.numpy(force=True), rtol=1e-12, atol=1e-12)


@CONVENTIONS
@pytest.mark.parametrize("table_shape", [(3, 2), (2, 1, 3, 2), (1, 2), (2,)])
def test_gradients_are_those_of_finite_differences(interleaved, table_shape):
    """Also by the tables, which are ordinary inputs: frequencies could be learned."""
    inputs = [draw(2, 2, 3, 4), draw(*table_shape, seed=1), draw(*table_shape, seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    assert gradcheck(lambda *xs: F.apply_rotary(*xs, interleaved), inputs)
    assert gradgradcheck(lambda *xs: F.apply_rotary(*xs, interleaved), inputs)
    assert gradcheck(lambda x: F.apply_rotary(x, *[t.detach() for t in inputs[1:]], interleaved), inputs[:1])


def test_no_more_is_computed_or_kept_than_is_asked_for():
    x, cos, sin = draw(3, 4).requires_grad_(), *tables(3, 4)
    node = F.apply_rotary(x, cos, sin).grad_fn
    assert node.saved[0] is None, "x is not needed for its own gradient"
    assert node.backward(np.ones((3, 4)))[1:] == (None, None)


def test_layouts_of_heads_and_positions():
    """(B, H, T, D), (B, T, H, D), and positions of their own for each sequence."""
    x = draw(2, 3, 5, 8)
    cos, sin = tables(5, 8)
    wanted = F.apply_rotary(x, cos, sin)
    moved = F.apply_rotary(x.transpose(1, 2), cos[:, None], sin[:, None]).transpose(1, 2)
    assert np.array_equal(moved.numpy(), wanted.numpy())
    positions = shared.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    cos, sin = tables(positions, 8)
    each = F.apply_rotary(x, cos[:, None], sin[:, None])
    assert np.array_equal(each.numpy()[0], wanted.numpy()[0])
    assert np.allclose(each.numpy()[1], rotated_slowly(x.numpy()[1], positions.numpy()[1], False), rtol=1e-12)


def test_continuing_a_text_takes_later_positions():
    x, (cos, sin) = draw(2, 6, 4), tables(6, 4)
    last = F.apply_rotary(x[:, 5:], *tables(shared.tensor([5]), 4))
    assert np.array_equal(last.numpy(), F.apply_rotary(x, cos, sin).numpy()[:, 5:])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_stay_and_are_rounded_once(dtype):
    x = draw(3, 8).to(getattr(shared, dtype))
    found = F.apply_rotary(x, *F.rotary_tables(3, 8))
    assert found.dtype == x.dtype
    wanted = shared.from_numpy(rotated_slowly(x.double().numpy(), range(3), False)).to(x.dtype)
    step = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    assert np.allclose(found.double().numpy(), wanted.double().numpy(), rtol=step, atol=step)


def test_tables_are_right_at_far_positions():
    """100,000 · ω in float32 would be off by up to 0.002."""
    cos, sin = F.rotary_tables(shared.tensor([100_000]), 64)
    angles = 100_000 * 10000.0 ** (-np.arange(0, 64, 2) / 64)
    assert cos.dtype == sin.dtype == shared.float32
    assert np.allclose(cos.numpy()[0], np.cos(angles), atol=1e-7) and np.allclose(
        sin.numpy()[0], np.sin(angles), atol=1e-7
    )


def test_an_input_laid_out_otherwise_and_an_empty_one():
    x, (cos, sin) = draw(5, 8, 2), tables(5, 8)
    assert np.array_equal(
        F.apply_rotary(x.permute(2, 0, 1), cos, sin).numpy(),
        F.apply_rotary(x.permute(2, 0, 1).contiguous(), cos, sin).numpy(),
    )
    assert F.apply_rotary(shared.zeros(0, 5, 8), *F.rotary_tables(5, 8)).shape == (0, 5, 8)


def test_a_table_changed_after_the_forward_is_noticed():
    x, (cos, sin) = draw(5, 8).requires_grad_(), tables(5, 8)
    y = F.apply_rotary(x, cos, sin).sum()
    cos.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_what_is_wrong_is_named():
    x, (cos, sin) = shared.ones(2, 5, 8), F.rotary_tables(5, 8)
    with pytest.raises(ValueError, match="dim must be even, but got 7"):
        F.rotary_tables(5, 7)
    with pytest.raises(ValueError, match="at least 0, but got -1"):
        F.rotary_tables(-1, 8)
    with pytest.raises(ValueError, match=r"dim of at least 1 and base above 0, but got dim=4, base=0"):
        F.rotary_tables(2, 4, base=0)
    with pytest.raises(RuntimeError, match=r"must be even to be rotated in pairs, but x is \(2, 5, 7\)"):
        F.apply_rotary(shared.ones(2, 5, 7), cos, sin)
    with pytest.raises(RuntimeError, match=r"broadcast to \(2, 4, 4\), half the last dimension, but got \(5, 4\)"):
        F.apply_rotary(x[:, :4], cos, sin)
    with pytest.raises(RuntimeError, match=r"for x of shape \(2, 5, 8\).* but got \(5, 8\) and \(5, 8\)"):
        F.apply_rotary(x, shared.ones(5, 8), shared.ones(5, 8))
    with pytest.raises(RuntimeError, match=r"but got \(5, 4\) and \(1, 4\)"):
        F.apply_rotary(x, cos, sin[:1])
    with pytest.raises(RuntimeError, match=r"but got \(3, 2, 5, 4\)"):
        F.apply_rotary(x, cos.expand(3, 2, 5, 4), sin.expand(3, 2, 5, 4))
    with pytest.raises(TypeError, match="argument 'cos' must be Tensor, not ndarray"):
        F.apply_rotary(x, cos.numpy(), sin)
    with pytest.raises(NotImplementedError, match="int64; expected a floating-point input"):
        F.apply_rotary(x.long(), cos, sin)

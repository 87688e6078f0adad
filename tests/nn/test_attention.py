"""Attention: values, gradients and weights are PyTorch's; masks mean what they say; heads come back where they were."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import shared
import shared.nn.functional as F
from shared import nn
from shared.autograd import gradcheck, gradgradcheck
from shared.nn.masks import additive_mask, combined_mask, length_mask, look_ahead_mask, padding_mask
from tests.nn import attention_cases, golden_file
from tests.nn.attention_cases import CASES, MODULES
from tests.nn.cases import Constant

TEXTS, GOLDEN = golden_file.load(attention_cases.GOLDEN_FILE)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def test_golden_values_are_those_of_the_cases():
    source = hashlib.sha256(Path(attention_cases.__file__).read_bytes()).hexdigest()
    assert TEXTS["source_sha256"] == source, "the cases have changed: run python -m tests.nn.attention_cases"


# ---------------------------------------------------------------- scaled_dot_product_attention


def run(case, dtype="float64", layout=np.array):
    tensors = []
    for x in case.inputs():
        array = np.asarray(x.array if isinstance(x, Constant) else x)
        array = layout(array.astype(dtype) if array.dtype.kind == "f" else array)
        tensors.append(shared.Tensor(array).requires_grad_(not isinstance(x, Constant)))
    out = case.call(F, *tensors)
    out.backward(shared.tensor(case.cotangent(tuple(out.shape)), dtype=np.dtype(dtype)))
    return [out] + [t.grad for t in tensors]


def compare(found, wanted, tolerance):
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert (a is None) == (b is None), i
        if b is not None:
            assert tuple(a.shape) == b.shape, i
            np.testing.assert_allclose(a.numpy(force=True), b, rtol=tolerance, atol=tolerance, err_msg=str(i))


def expected(name):
    return [GOLDEN.get(f"{name}|{i}") for i in range(len(CASES[name].inputs()) + 1)]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name):
    compare(run(CASES[name]), expected(name), 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    found = run(CASES[name], "float32")
    assert {x.dtype.name for x in found if x is not None} == {"float32"}
    compare(found, expected(name), 1e-5)


@needs_torch
@pytest.mark.parametrize("name", CASES)
def test_float32_is_as_close_as_pytorchs(name):
    from tests.nn.make_golden import run as run_torch

    compare(run(CASES[name], "float32"), run_torch(CASES[name], "float32"), 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_layout_in_memory_does_not_matter(name):
    compare(run(CASES[name], layout=lambda a: np.array(a, order="F")), expected(name), 1e-10)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["causal", "boolean mask", "added mask", "grouped"])
def test_half_precision_is_computed_in_float32(name, dtype):
    inputs = [shared.tensor(np.asarray(x.array if isinstance(x, Constant) else x)) for x in CASES[name].inputs()]
    half = [x if x.dtype == shared.bool else x.to(getattr(shared, dtype)) for x in inputs]
    out = CASES[name].call(F, *half)
    assert out.dtype == getattr(shared, dtype)
    single = CASES[name].call(F, *[x if x.dtype == shared.bool else x.float() for x in half])
    rounding = 1e-3 if dtype == "float16" else 8e-3
    np.testing.assert_allclose(out.float().numpy(), single.numpy(), rtol=rounding, atol=rounding)


def real(*shape, seed=0):
    return shared.tensor(np.random.default_rng([seed, *shape]).normal(size=shape), requires_grad=True)


def test_first_and_second_gradients_against_finite_differences():
    q, k, v = real(1, 2, 3, 4), real(1, 2, 4, 4, seed=1), real(1, 2, 4, 3, seed=2)
    blind = shared.tensor([[True, False, True, True], [False] * 4, [True] * 4])

    def masked(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=blind)

    def dropping(q, k, v):
        shared.manual_seed(1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)

    def grouped(q, k, v):
        return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True)

    for call in (masked, dropping, grouped):
        assert gradcheck(call, [q, k, v]) and gradgradcheck(call, [q, k, v])
    bias = real(3, 4, seed=3)
    assert gradcheck(lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, b), [q, k, v, bias])


def test_dropout_drops_weights_and_scales_the_others():
    shared.manual_seed(0)
    out = F.scaled_dot_product_attention(
        shared.zeros(50, 40, 2), shared.zeros(50, 40, 2), shared.ones(50, 40, 1), dropout_p=0.75
    )
    kept = out.numpy() * 40 / 4  # every weight is 1/40, and 4/40 where it stays
    np.testing.assert_allclose(kept, kept.round(), atol=1e-4)
    assert abs(kept.mean() - 10) < 0.3 and kept.std() == pytest.approx((40 * 0.75 * 0.25) ** 0.5, rel=0.1)
    shared.manual_seed(0)
    again = F.scaled_dot_product_attention(
        shared.zeros(50, 40, 2), shared.zeros(50, 40, 2), shared.ones(50, 40, 1), dropout_p=0.75
    )
    assert (again == out).all() and (out != out[0]).any()


def test_a_mask_changed_before_backward_is_an_error():
    q, mask = real(2, 3, 4), shared.zeros(3, 3, dtype=shared.float64)
    out = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    mask.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


WRONG = {
    "at least 2 dimensions": ([(3,), (3,), (3,)], {}),
    r"\(2, 3, 8\), \(2, 3, 7\)": ([(2, 3, 8), (2, 3, 7), (2, 3, 8)], {}),
    r"\(2, 4, 8\) and \(2, 3, 8\)": ([(2, 3, 8), (2, 4, 8), (2, 3, 8)], {}),
    r"leading dimensions of query \(2, 4, 3, 8\)": ([(2, 4, 3, 8), (2, 3, 3, 8), (2, 3, 3, 8)], {}),
    "must divide the number of heads": ([(2, 4, 3, 8), (2, 3, 3, 8), (2, 3, 3, 8)], {"enable_gqa": True}),
    "between 0 and 1": ([(3, 8)] * 3, {"dropout_p": 1.5}),
    "Explicit attn_mask should not be set": ([(3, 8)] * 3, {"attn_mask": "bool (3, 3)", "is_causal": True}),
    r"\(3, 4\) does not broadcast to the scores' \(3, 3\)": ([(3, 8)] * 3, {"attn_mask": "bool (3, 4)"}),
    r"\(2, 3, 3\) does not broadcast": ([(3, 8)] * 3, {"attn_mask": "bool (2, 3, 3)"}),
    "dtype to be bool or float": ([(3, 8)] * 3, {"attn_mask": "int64 (3, 3)"}),
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.parametrize("library", ["shared", pytest.param("torch", marks=needs_torch)])
def test_what_does_not_fit_is_an_error(message, library):
    shapes, options = WRONG[message]
    t = importlib.import_module(library)
    if "attn_mask" in options:
        dtype, _, shape = options["attn_mask"].partition(" ")
        options = options | {"attn_mask": t.ones(eval(shape), dtype=getattr(t, dtype))}
    with pytest.raises(RuntimeError, match=message if library == "shared" else None):
        t.nn.functional.scaled_dot_product_attention(*[t.zeros(s) for s in shapes], **options)


# ---------------------------------------------------------------- nn.MultiheadAttention


def tensor(array):
    return shared.tensor(array)


def load(module, state):
    module.load_state_dict({key: shared.tensor(x) for key, x in state.items()})


@pytest.mark.parametrize("name", MODULES)
def test_the_module_gives_pytorchs_values_gradients_and_weights(name):
    found = attention_cases.run_module(nn, name, tensor, load)
    start = f"module {name}|"
    wanted = {key.removeprefix(start): x for key, x in GOLDEN.items() if key.startswith(start)}
    assert found.keys() == wanted.keys()
    for key, x in found.items():
        assert tuple(x.shape) == wanted[key].shape, key
        np.testing.assert_allclose(x.numpy(force=True), wanted[key], rtol=1e-9, atol=1e-10, err_msg=key)


@needs_torch
@pytest.mark.parametrize(
    "settings", [{}, {"bias": False}, {"add_bias_kv": True}, {"kdim": 5}, {"vdim": 7, "bias": False}]
)
def test_the_state_dict_is_pytorchs(settings):
    import torch

    shared.manual_seed(0)
    torch.manual_seed(0)  # bias_k has twelve numbers, whose spread differs by half in one draw of many
    ours, theirs = nn.MultiheadAttention(12, 3, **settings), torch.nn.MultiheadAttention(12, 3, **settings)
    assert [(k, tuple(x.shape)) for k, x in ours.state_dict().items()] == [
        (k, tuple(x.shape)) for k, x in theirs.state_dict().items()
    ]
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scale = b.std().item()
        assert a.std().item() == pytest.approx(scale, rel=0.5) if scale else not a.any(), f"{name} starts otherwise"


@needs_torch
def test_training_follows_pytorch():
    import torch

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 8, 12))
    ours, theirs = (
        nn.MultiheadAttention(12, 3, batch_first=True).double(),
        torch.nn.MultiheadAttention(12, 3, batch_first=True).double(),
    )
    load(ours, {k: v.numpy() for k, v in theirs.state_dict().items()})
    losses = []
    for library, module in ((shared, ours), (torch, theirs)):
        optimizer = library.optim.AdamW(module.parameters(), lr=0.01)
        inputs, target = library.tensor(x), library.tensor(y)
        hidden = ~library.ones(8, 8, dtype=library.bool).tril()
        for _ in range(10):
            optimizer.zero_grad()
            out, _ = module(inputs, inputs, inputs, attn_mask=hidden, need_weights=False)
            loss = ((out - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(losses[:10], losses[10:], rtol=1e-9)
    assert losses[9] < losses[0]


def test_a_query_that_may_see_nothing_has_weights_of_zero():
    module, x = nn.MultiheadAttention(4, 2, batch_first=True), shared.randn(1, 3, 4, requires_grad=True)
    hidden = shared.ones(3, 3, dtype=shared.bool)
    out, weights = module(x, x, x, attn_mask=hidden)
    out.sum().backward()
    assert not weights.any() and (out == module.out_proj.bias).all() and bool(x.grad.isfinite().all())


def test_the_causal_hint_needs_a_mask():
    module, x = nn.MultiheadAttention(4, 2), shared.zeros(3, 1, 4)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        module(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("shapes", "options", "error"),
    [
        ([(3, 1, 5)] * 3, {}, "expecting embedding dimensions of"),
        ([(3, 1, 4), (2, 1, 4), (3, 1, 4)], {}, "a value for each key"),
        ([(3, 1, 4), (3, 2, 4), (3, 2, 4)], {}, "batches of query"),
        ([(3, 1, 4), (3, 4), (3, 4)], {}, "with 2 or all with 3"),
        ([(3, 1, 4)] * 3, {"attn_mask": shared.zeros(3, 2)}, "2D attn_mask is"),
        ([(3, 1, 4)] * 3, {"key_padding_mask": shared.zeros(3, 3)}, "key_padding_mask of shape"),
        ([(3, 2, 4)] * 3, {"key_padding_mask": shared.zeros(3, 2)}, r"key_padding_mask of shape \(3, 2\)"),
        ([(3, 1, 4)] * 3, {"attn_mask": shared.zeros(3, 3, dtype=shared.int64)}, "only bool and floating"),
    ],
)
def test_wrong_inputs_of_the_module_are_named(shapes, options, error):
    with pytest.raises((AssertionError, RuntimeError), match=error):
        nn.MultiheadAttention(4, 2)(*[shared.zeros(*s) for s in shapes], **options)


# ---------------------------------------------------------------- the course's own


@pytest.fixture
def attend():
    shared.manual_seed(0)
    return nn.MultiHeadAttention(12, 3).double()


def test_both_modules_compute_the_same(attend):
    other = nn.MultiheadAttention(12, 3, batch_first=True).double()
    load(other, {k.replace("in_proj.", "in_proj_"): v.numpy() for k, v in attend.state_dict().items()})
    x, y = real(2, 5, 12), real(2, 7, 12, seed=1)
    hidden = ~look_ahead_mask(5)
    np.testing.assert_allclose(attend(x).detach(), other(x, x, x)[0].detach(), atol=1e-12)
    np.testing.assert_allclose(attend(x, y).detach(), other(x, y, y)[0].detach(), atol=1e-12)
    causal, weights = attend(x, is_causal=True, need_weights=True)
    out, wanted = other(x, x, x, attn_mask=hidden, average_attn_weights=False)
    np.testing.assert_allclose(causal.detach(), out.detach(), atol=1e-12)
    np.testing.assert_allclose(weights.detach(), wanted.detach(), atol=1e-12)


def test_heads_are_consecutive_pieces_and_come_back():
    attend = nn.MultiHeadAttention(6, 3)
    x = shared.arange(24.0).reshape(2, 2, 6)
    heads = attend.split_heads(x)
    assert heads[1, 2].tolist() == [[16.0, 17.0], [22.0, 23.0]]
    assert (attend.combine_heads(heads) == x).all()


@pytest.mark.parametrize("with_weights", [False, True])
def test_ways_to_say_the_same(attend, with_weights):
    """Fused or in parts, self-attention or given keys, a diagonal or a mask: one result, and one gradient."""
    x = real(2, 5, 12)
    mask = look_ahead_mask(5)
    calls = [
        lambda: attend(x, is_causal=True, need_weights=with_weights),
        lambda: attend(x, mask=mask, need_weights=with_weights),
        lambda: attend(x, x, x, mask=mask, need_weights=with_weights),
        lambda: attend(x, x, is_causal=True, need_weights=with_weights),
        lambda: attend(x, mask=additive_mask(mask), need_weights=with_weights),
        lambda: attend(x, mask=mask.expand(2, 5, 5), need_weights=with_weights),
        lambda: attend(x, is_causal=True, need_weights=with_weights, cache=nn.KVCache()),
    ]
    results = []
    for call in calls:
        x.grad, _ = None, attend.zero_grad()
        out = call()
        out = out[0] if with_weights else out
        (out * shared.arange(out.numel()).reshape(out.shape)).sum().backward()
        results.append((out.detach(), x.grad, attend.in_proj.weight.grad))
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


def test_gradients_of_the_module(attend):
    x = real(2, 3, 12)
    assert gradcheck(lambda x: attend(x, is_causal=True), [x]) and gradgradcheck(lambda x: attend(x), [x])


def test_a_cache_gives_what_all_tokens_at_once_give(attend):
    x = real(2, 9, 12).detach()
    cache, parts = nn.KVCache(), []
    with shared.no_grad():
        for first, last in [(0, 4), (4, 5), (5, 9)]:
            parts.append(attend(x[:, first:last], is_causal=True, cache=cache))
            assert len(cache) == last
        np.testing.assert_allclose(shared.cat(parts, 1), attend(x, is_causal=True), atol=1e-12)


@pytest.mark.parametrize("max_len", [None, 9, 20])
def test_a_cache_makes_room_and_moves_what_it_has_seldom(max_len):
    keys, values = real(2, 3, 9, 4).detach(), real(2, 3, 9, 5).detach()
    cache, rooms, seen = nn.KVCache(max_len), [], []
    for t in range(9):
        seen.append(cache.update(keys[:, :, t : t + 1], values[:, :, t : t + 1]))
        rooms.append(seen[-1][0].numpy().base)
    for t, (k, v) in enumerate(seen):  # what was returned earlier stays right
        np.testing.assert_array_equal(k, keys[:, :, : t + 1])
        np.testing.assert_array_equal(v, values[:, :, : t + 1])
    moved = sum(a is not b for a, b in zip(rooms, rooms[1:], strict=False))
    assert moved == (4 if max_len is None else 0)  # room for 1, 2, 4, 8 and 16 tokens


def test_a_cache_carries_gradients_where_they_are_asked_for():
    keys, values = real(1, 2, 6, 3), real(1, 2, 6, 3)
    cache = nn.KVCache()
    with shared.no_grad():
        cache.update(keys[:, :, :2], values[:, :, :2])
    cache.update(keys[:, :, 2:5], values[:, :, 2:5])
    k, v = cache.update(keys[:, :, 5:], values[:, :, 5:])
    np.testing.assert_array_equal(k.detach(), keys.detach())
    (k * 2 + v).sum().backward()
    assert keys.grad[0, 0, :, 0].tolist() == [0, 0, 2, 2, 2, 2] and values.grad[0, 1, :, 0].tolist() == [
        0,
        0,
        1,
        1,
        1,
        1,
    ]
    with shared.no_grad():
        k, v = cache.update(keys[:, :, :1], values[:, :, :1])
    assert len(cache) == 7 and not k.requires_grad
    np.testing.assert_array_equal(k, np.concatenate([keys.numpy(force=True), keys[:, :, :1].numpy(force=True)], 2))


def test_a_cache_refuses_what_does_not_fit():
    cache = nn.KVCache(max_len=3)
    cache.update(shared.ones(1, 2, 2, 4), shared.ones(1, 2, 2, 4))
    for keys, values, message in [
        (shared.ones(2, 2, 1, 4), shared.ones(2, 2, 1, 4), r"keys to be added to \(1, 2, 2, 4\).*\(2, 2, 1, 4\)"),
        (shared.ones(1, 2, 1, 4), shared.ones(1, 1, 1, 4), r"values to be added"),
        (shared.ones(2, 1, 4), shared.ones(2, 1, 4), r"\(2, 1, 4\)"),
        (shared.ones(1, 2, 1, 4), shared.ones(1, 2, 0, 4), "a value for each key, but got 1 and 0"),
        (shared.ones(1, 2, 2, 4), shared.ones(1, 2, 2, 4), "2 tokens and 2 new ones are more than max_len=3"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            cache.update(keys, values)
    assert len(cache) == 2


@pytest.mark.parametrize("kind", [nn.MultiHeadAttention, nn.MultiheadAttention])
def test_heads_must_share_the_width(kind):
    with pytest.raises(AssertionError, match=r"\(8\) must be divisible by num_heads \(3\)"):
        kind(8, 3)
    for width, heads in [(0, 2), (8, 0), (8, -2)]:
        with pytest.raises(ValueError, match=f"greater than 0, but got {width} and {heads}"):
            kind(width, heads)


def test_dropout_only_while_training():
    attend, x = nn.MultiHeadAttention(8, 2, dropout=0.5), shared.randn(1, 6, 8)
    assert (attend(x) != attend(x)).any()
    attend.eval()
    assert (attend(x) == attend(x)).all()
    assert (attend(x, need_weights=True)[1].sum(-1) - 1).abs().max() < 1e-6


# ---------------------------------------------------------------- what has to hold


def test_no_token_sees_a_later_one(attend):
    """Changing token t changes nothing before t, and something from t on, for every t."""
    x = real(1, 40, 12).detach()
    out = attend(x, is_causal=True)
    for t in range(40):
        changed = x.clone()
        changed[:, t] += 1.0
        difference = (attend(changed, is_causal=True) - out).abs().sum(-1)[0]
        assert not difference[:t].any() and bool(difference[t:].all())


def test_without_positions_the_order_of_tokens_does_not_matter(attend):
    x = real(2, 7, 12).detach()
    order = np.random.default_rng(3).permutation(7)
    np.testing.assert_allclose(attend(x)[:, order].detach(), attend(x[:, order]).detach(), atol=1e-12)
    y = real(2, 9, 12, seed=5).detach()
    shuffled = y[:, np.random.default_rng(4).permutation(9)]
    np.testing.assert_allclose(attend(x, y).detach(), attend(x, shuffled).detach(), atol=1e-12)


@pytest.mark.parametrize("junk", [0.0, 1e3, 1e30])
def test_what_padding_holds_does_not_matter(attend, junk):
    x = real(2, 6, 12).detach()
    tokens = shared.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
    mask = padding_mask(tokens)
    out = attend(x, mask=mask)
    alone = attend(x[1:, :3])
    np.testing.assert_allclose(out[1:, :3].detach(), alone.detach(), atol=1e-12)
    filled = shared.where((tokens == 0).unsqueeze(-1), junk, x)
    np.testing.assert_allclose(attend(filled, mask=mask)[1, :3].detach(), alone[0].detach(), atol=1e-12)


def test_masks_of_tokens_and_of_lengths():
    tokens = shared.tensor([[5, 7, 0], [4, 0, 0]])
    by_length = length_mask(shared.tensor([2, 1]), 3)
    assert tuple(by_length.shape) == (2, 1, 1, 3) and (padding_mask(tokens) == by_length).all()
    assert look_ahead_mask(2, past=1).tolist() == [[True, True, False], [True, True, True]]
    both = combined_mask(by_length, None, look_ahead_mask(3))
    assert both[1, 0].tolist() == [[True, False, False]] * 3
    assert combined_mask() is None and combined_mask(None, by_length) is by_length
    with pytest.raises(TypeError, match="expected boolean masks"):
        combined_mask(shared.zeros(3, 3))
    with pytest.raises(RuntimeError, match=r"tokens of shape \(B, S\)"):
        padding_mask(shared.tensor([1, 2]))
    assert additive_mask(by_length, shared.float64).dtype == shared.float64


@needs_torch
def test_the_golden_numbers_of_sprint_06_are_pytorchs():
    from tests.nn import make_sprint_06_golden as golden

    kept = json.loads(golden.FILE.read_text(encoding="utf-8"))
    assert kept["given"] == golden.inputs()
    found = golden.outcomes(kept["given"])
    for name, expected in kept["pytorch"].items():
        for what, values in expected.items():
            np.testing.assert_allclose(found[name][what], values, atol=2e-6, err_msg=f"{name}, {what}")

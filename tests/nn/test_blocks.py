"""The course's own blocks: what they compute, and what must hold of them.

Values and gradients are compared with `nn.TransformerEncoderLayer` and `nn.TransformerDecoderLayer` of the same weights;
test_transformer.py compares those with PyTorch's.
"""

import math

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import functional as F
from shared.nn import masks

CHOICES = {
    "post-norm": {},
    "pre-norm": {"norm_first": True},
    "GELU, no biases": {"activation": "gelu", "bias": False},
    "SiLU, pre-norm, large eps": {"activation": F.silu, "layer_norm_eps": 1e-2, "norm_first": True},
}
both_norms = pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])


def draw(*shape, seed=0):
    return shared.tensor(np.random.default_rng([seed, *shape]).normal(size=shape))


def jitter(module):
    """Adds noise to every parameter, so that biases of 0 and weights of 1 hide nothing."""
    with shared.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(0.2 * draw(*p.shape, seed=i))
    return module


def layers_state(block):
    """A block's parameters under the names that PyTorch's layer has for them."""
    names = {
        "self_attention.in_proj.": "self_attn.in_proj_",
        "self_attention.": "self_attn.",
        "cross_attention.in_proj.": "multihead_attn.in_proj_",
        "cross_attention.": "multihead_attn.",
        "feed_forward.": "",
    }
    found = {}
    for key, value in block.state_dict().items():
        old = next((old for old in names if key.startswith(old)), "")
        found[names.get(old, "") + key.removeprefix(old)] = value
    return found


def close(found, wanted, what=""):
    np.testing.assert_allclose(found.numpy(force=True), wanted.numpy(force=True), rtol=1e-9, atol=1e-11, err_msg=what)


def compare(block, layer, block_call, layer_call, *inputs):
    """The same outputs, gradients by the inputs and gradients by all parameters."""
    assert str(layer.load_state_dict(layers_state(block))) == "<All keys matched successfully>"
    results = []
    for module, call in ((block, block_call), (layer, layer_call)):
        tensors = [x.clone().requires_grad_() for x in inputs]
        out = call(module, *tensors)
        (out * draw(*out.shape, seed=9)).sum().backward()
        results.append((out, [x.grad for x in tensors]))
    close(results[0][0], results[1][0], "output")
    for mine, other in zip(results[0][1], results[1][1], strict=True):
        close(mine, other, "gradient by an input")
    named = layers_state(block)
    assert set(named) == {name for name, _ in layer.named_parameters()}
    mine = dict(zip(named, block.parameters(), strict=True))
    for name, parameter in layer.named_parameters():
        close(mine[name].grad, parameter.grad, name)


# ---------------------------------------------------------------- feed-forward


def test_the_feed_forward_network_by_hand():
    layer = nn.PositionwiseFeedForward(2, 3, dropout=0.0)
    state = {
        "linear1.weight": [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
        "linear1.bias": [0.0, -1.0, 0.5],
        "linear2.weight": [[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]],
        "linear2.bias": [0.25, -0.25],
    }
    layer.load_state_dict({name: shared.tensor(value) for name, value in state.items()})
    # (1, 3): hidden 1, 2, −3.5 → 1, 2, 0; (−1, 0): hidden −1, −1, 1.5 → 0, 0, 1.5
    found = layer(shared.tensor([[1.0, 3.0], [-1.0, 0.0]]))
    assert found.tolist() == [[5.25, -2.25], [4.75, 1.25]]


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("gelu", lambda x: x * np.vectorize(lambda v: (1 + math.erf(v / 2**0.5)) / 2)(x)),
        (nn.Tanh(), np.tanh),
        (lambda x: x * x, np.square),
    ],
    ids=["relu", "gelu", "module", "function"],
)
def test_the_feed_forward_network_is_its_formula(activation, function):
    layer, x = jitter(nn.PositionwiseFeedForward(4, 6, 0.0, activation).double()), draw(2, 3, 4)
    w1, b1, w2, b2 = (p.numpy(force=True) for p in layer.parameters())
    np.testing.assert_allclose(layer(x).numpy(force=True), function(x.numpy() @ w1.T + b1) @ w2.T + b2, rtol=1e-12)


def test_each_position_is_computed_for_itself():
    layer, x = nn.PositionwiseFeedForward(4, 6, 0.0).double(), draw(2, 5, 4)
    whole = layer(x)
    assert whole.shape == (2, 5, 4)
    for row in range(2):
        for place in range(5):
            close(whole[row, place], layer(x[row, place]))


def test_dropout_comes_after_the_activation():
    layer, x = nn.PositionwiseFeedForward(4, 6, dropout=1.0).double(), draw(3, 4)
    assert np.array_equal(layer(x).numpy(force=True), layer.linear2.bias.expand(3, 4).numpy(force=True))
    assert not shared.equal(layer.eval()(x), layer.linear2.bias.expand(3, 4))
    shared.manual_seed(0)
    layer = nn.PositionwiseFeedForward(4, 4, dropout=0.5, activation=lambda x: x * 0 + 1, bias=False)
    layer.linear2.weight.data = shared.eye(4)
    assert set(layer(shared.ones(50, 4)).unique().tolist()) == {0.0, 2.0}, (
        "dropped before the activation, all would be 1"
    )


def test_feed_forward_without_biases_and_wrong_arguments():
    layer = nn.PositionwiseFeedForward(4, 6, bias=False)
    assert [name for name, _ in layer.named_parameters()] == ["linear1.weight", "linear2.weight"]
    with pytest.raises(RuntimeError, match="activation should be relu/gelu, not swish"):
        nn.PositionwiseFeedForward(4, 6, activation="swish")
    with pytest.raises(TypeError, match="or a function of a Tensor, but got int"):
        nn.PositionwiseFeedForward(4, 6, activation=1)
    with pytest.raises(RuntimeError, match=r"linear.*\(2, 5\).*\(6, 4\)"):
        layer(shared.ones(2, 5))


# ---------------------------------------------------------------- against the layers


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_an_encoder_block_is_the_encoder_layer_with_masks_turned_round(options, padded, causal):
    block = jitter(nn.EncoderBlock(8, 2, 16, 0.0, **options).double())
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, **options).double()
    see = masks.length_mask(shared.tensor([5, 2, 3]), 5) if padded else None
    hide = {"src_key_padding_mask": ~see[:, 0, 0]} if padded else {}
    if causal:
        hide["src_mask"] = ~masks.look_ahead_mask(5)
    compare(block, layer, lambda m, x: m(x, see, causal), lambda m, x: m(x, **hide), draw(3, 5, 8))


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_decoder_block_is_the_decoder_layer_with_masks_turned_round(options, padded, causal):
    block = jitter(nn.DecoderBlock(8, 2, 16, 0.0, **options).double())
    layer = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True, **options).double()
    see, memory_see = (masks.length_mask(shared.tensor([n, 2, 3]), n) if padded else None for n in (5, 4))
    hide = {}
    if padded:
        hide = {"tgt_key_padding_mask": ~see[:, 0, 0], "memory_key_padding_mask": ~memory_see[:, 0, 0]}
    if causal:
        hide["tgt_mask"] = ~masks.look_ahead_mask(5)
    compare(
        block,
        layer,
        lambda m, x, memory: m(x, memory, see, memory_see, is_causal=causal),
        lambda m, x, memory: m(x, memory, **hide),
        draw(3, 5, 8),
        draw(3, 4, 8),
    )


@both_norms
def test_a_mask_says_where_a_query_may_attend(norm_first):
    """With a mask that is True on the diagonal alone, a block is computed for each position by itself."""
    block, x = jitter(nn.EncoderBlock(8, 2, 16, 0.0, norm_first=norm_first).double()), draw(2, 4, 8)
    close(block(x, shared.eye(4).bool()), block(x.reshape(8, 1, 8)).reshape(2, 4, 8))
    close(block(x, shared.ones(4, 4).bool()), block(x))
    close(block(x, masks.look_ahead_mask(4)), block(x, is_causal=True))
    assert not np.allclose(block(x).numpy(force=True), block(x, is_causal=True).numpy(force=True))


# ---------------------------------------------------------------- the residual connection


@both_norms
def test_add_and_norm_is_its_formula(norm_first):
    block, x = nn.EncoderBlock(4, 1, 8, 0.0, norm_first=norm_first).double(), draw(2, 3, 4)
    norm = jitter(nn.LayerNorm(4).double())
    found = block.add_and_norm(x, lambda y: 3 * y, norm)
    close(found, x + 3 * norm(x) if norm_first else norm(x + 3 * x))


@both_norms
def test_dropping_everything_leaves_the_residual(norm_first):
    x, memory = draw(3, 5, 8), draw(3, 4, 8)
    encoder = jitter(nn.EncoderBlock(8, 2, 16, dropout=1.0, norm_first=norm_first).double())
    decoder = jitter(nn.DecoderBlock(8, 2, 16, dropout=1.0, norm_first=norm_first).double())
    ways = [(encoder(x), [encoder.norm1, encoder.norm2])]
    ways.append((decoder(x, memory), [decoder.norm1, decoder.norm2, decoder.norm3]))
    for found, norms in ways:
        wanted = x
        for norm in [] if norm_first else norms:
            wanted = norm(wanted)
        close(found, wanted)


def test_post_norm_gives_rows_of_mean_0_and_variance_1_and_pre_norm_does_not():
    x = 5 * draw(2, 6, 16) + 3
    for norm_first in (False, True):
        out = nn.EncoderBlock(16, 4, 32, 0.0, norm_first=norm_first).double()(x).numpy(force=True)
        normal = np.allclose(out.mean(-1), 0, atol=1e-9) and np.allclose(out.var(-1), 1, atol=1e-3)
        assert normal is not norm_first


def test_in_a_deep_stack_the_gradient_reaches_the_input_through_pre_norm_unhindered():
    """Of 24 blocks whose parts give 0 the gradient by x is that of the output: nothing stands in the way."""
    x = draw(1, 3, 8).requires_grad_()
    blocks = [nn.EncoderBlock(8, 2, 16, dropout=1.0, norm_first=True).double() for _ in range(24)]
    y = x
    for block in blocks:
        y = block(y)
    y.backward(draw(1, 3, 8, seed=1))
    close(x.grad, draw(1, 3, 8, seed=1))


@pytest.mark.parametrize("kind", [nn.EncoderBlock, nn.DecoderBlock])
def test_dropout_draws_in_training_and_not_in_evaluation(kind):
    shared.manual_seed(0)
    block, x = kind(8, 2, 16, dropout=0.5), draw(2, 5, 8).float()
    inputs = (x,) if kind is nn.EncoderBlock else (x, x)
    assert not shared.equal(block(*inputs), block(*inputs))
    block.eval()
    assert shared.equal(block(*inputs), block(*inputs))
    block.dropout.train()
    assert not shared.equal(block(*inputs), block(*inputs)), "the parts' outputs are dropped too"


# ---------------------------------------------------------------- caches, second gradients, printed form


@both_norms
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_cache_gives_what_the_whole_text_gives(norm_first, step):
    """Six tokens fed in pieces; each piece sees those before through the cache."""
    x, memory = draw(2, 6, 8), draw(2, 4, 8)
    encoder = jitter(nn.EncoderBlock(8, 2, 16, norm_first=norm_first).double().eval())
    decoder = jitter(nn.DecoderBlock(8, 2, 16, norm_first=norm_first).double().eval())
    caches = nn.KVCache(), nn.KVCache()
    starts = range(0, 6, step)
    found = [encoder(x[:, i : i + step], is_causal=True, cache=caches[0]) for i in starts]
    close(shared.cat(found, 1), encoder(x, is_causal=True))
    found = [decoder(x[:, i : i + step], memory, cache=caches[1]) for i in starts]
    close(shared.cat(found, 1), decoder(x, memory))
    assert [len(cache) for cache in caches] == [6, 6]


@both_norms
def test_gradients_of_gradients(norm_first):
    block = nn.DecoderBlock(4, 2, 6, 0.0, "gelu", norm_first=norm_first).double()
    inputs = draw(1, 3, 4).requires_grad_(), draw(1, 2, 4).requires_grad_()
    assert shared.testing.gradcheck(block, inputs)
    assert shared.testing.gradgradcheck(block, inputs)


def test_every_parameter_gets_a_gradient_and_a_dtype():
    block = nn.DecoderBlock(8, 2, 16, dtype=shared.float64)
    block(draw(2, 3, 8), draw(2, 4, 8)).square().sum().backward()
    assert {p.dtype for p in block.parameters()} == {shared.float64}
    assert all(p.grad is not None for p in block.parameters())
    assert [name for name, _ in nn.EncoderBlock(8, 2, 16, bias=False).named_parameters()] == [
        "self_attention.in_proj.weight",
        "self_attention.out_proj.weight",
        "feed_forward.linear1.weight",
        "feed_forward.linear2.weight",
        "norm1.weight",
        "norm2.weight",
    ]


def test_printed_form_says_where_the_norm_is():
    text = repr(nn.EncoderBlock(8, 2, 16, norm_first=True))
    assert text.startswith("EncoderBlock(\n  norm_first=True\n  (self_attention): MultiHeadAttention(")


# ---------------------------------------------------------------- properties

pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

drawn_shapes = st.tuples(st.integers(1, 3), st.integers(2, 8), st.sampled_from([1, 2, 4]), st.integers(0, 99))
few = settings(max_examples=25)


@few
@given(drawn_shapes, st.booleans(), st.data())
def test_a_later_token_does_not_change_an_earlier_output(drawn, norm_first, data):
    batch, length, heads, seed = drawn
    shared.manual_seed(seed)
    encoder = nn.EncoderBlock(8, heads, 16, norm_first=norm_first).double().eval()
    decoder = nn.DecoderBlock(8, heads, 16, norm_first=norm_first).double().eval()
    x, memory = draw(batch, length, 8, seed=seed), draw(batch, 3, 8, seed=seed)
    place = data.draw(st.integers(1, length - 1), "the first token that changes")
    changed = shared.cat([x[:, :place], x[:, place:] + draw(batch, length - place, 8, seed=seed + 1)], 1)
    for call in (lambda x: encoder(x, is_causal=True), lambda x: decoder(x, memory)):
        before, after = (call(a).numpy(force=True) for a in (x, changed))
        np.testing.assert_allclose(after[:, :place], before[:, :place], rtol=1e-12, atol=1e-13)
        assert (abs(after - before)[:, place:].max(axis=(0, 2)) > 1e-9).all(), "but it changes its own and later ones"


@few
@given(drawn_shapes, st.data())
def test_padding_changes_nothing(drawn, data):
    """A batch of sequences of different lengths gives what each gives by itself, in the memory too."""
    batch, length, heads, seed = drawn
    shared.manual_seed(seed)
    encoder = nn.EncoderBlock(8, heads, 16).double().eval()
    decoder = nn.DecoderBlock(8, heads, 16).double().eval()
    x, target = draw(batch, length, 8, seed=seed), draw(batch, 3, 8, seed=seed)
    lengths = data.draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch), "lengths")
    mask = masks.length_mask(shared.tensor(lengths), length)
    read, written = encoder(x, mask), decoder(target, x, memory_mask=mask)
    for row, n in enumerate(lengths):
        close(read[row, :n], encoder(x[row : row + 1, :n])[0])
        close(written[row], decoder(target[row : row + 1], x[row : row + 1, :n])[0])


@few
@given(drawn_shapes, st.data())
def test_without_positions_order_is_not_seen(drawn, data):
    """Permuted tokens give the permuted output; a permuted memory changes nothing."""
    batch, length, heads, seed = drawn
    shared.manual_seed(seed)
    encoder = nn.EncoderBlock(8, heads, 16).double().eval()
    decoder = nn.DecoderBlock(8, heads, 16).double().eval()
    x, target = draw(batch, length, 8, seed=seed), draw(batch, 3, 8, seed=seed)
    order = data.draw(st.permutations(range(length)), "order")
    close(encoder(x[:, order]), encoder(x)[:, order])
    close(decoder(target, x[:, order]), decoder(target, x))

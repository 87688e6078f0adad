"""The GPT: its config, its weights at the start, what it may see, its caches, dropout, the tied weight."""

import io
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import shared
from shared import nn
from shared.models import GPT, PRESETS, GPTConfig, GPTDecoderBlock, next_token_loss
from shared.testing import assert_close
from tests.models.samples import SMALL, gradients, ids_of, model_of, over_grid

# ---------------------------------------------------------------- the config


@pytest.mark.parametrize("field", ["vocab_size", "block_size", "n_layer", "n_head", "n_embd"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "8", None])
def test_sizes_are_ints_of_at_least_one(field, value):
    with pytest.raises(ValueError, match=rf"GPTConfig: {field} should be an int of at least 1, but got {value!r}"):
        GPTConfig(**{field: value})


@pytest.mark.parametrize(
    "field, value",
    [("dropout", 1.0), ("dropout", -0.1), ("dropout", True), ("dropout", "0"), ("dropout", math.nan)]
    + [("bias", 1), ("tie_weights", None), ("positions", "rotary"), ("positions", None)],
)
def test_other_fields_are_named_with_their_value(field, value):
    with pytest.raises(ValueError, match=rf"GPTConfig: {field} should be .*{value!r}"):
        GPTConfig(**{field: value})


def test_heads_share_the_width_equally():
    with pytest.raises(ValueError, match="n_embd should be divisible by n_head, but got n_embd=10 and n_head=4"):
        GPTConfig(n_embd=10, n_head=4)


def test_a_config_is_a_value():
    assert replace(SMALL) == SMALL and hash(replace(SMALL)) == hash(SMALL)
    with pytest.raises(FrozenInstanceError):
        SMALL.n_layer = 3
    with pytest.raises(ValueError, match="n_layer"):
        replace(SMALL, n_layer=0)


def test_presets_can_be_changed_and_unknown_ones_are_named():
    assert GPTConfig.preset("gpt2") == GPTConfig()
    assert GPTConfig.preset("gpt2-xl", dropout=0.0) == replace(PRESETS["gpt2-xl"], dropout=0.0)
    with pytest.raises(ValueError, match="no preset 'gpt3'.*gpt2-medium"):
        GPTConfig.preset("gpt3")
    with pytest.raises(TypeError, match="GPTConfig, but got dict"):
        GPT({"n_layer": 1})


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "name, number",
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_the_published_sizes_follow_from_the_formula(name, number):
    assert GPTConfig.preset(name).num_parameters() == number


@over_grid
def test_the_formula_counts_what_the_model_has(config):
    model = GPT(config)
    own = {id(p): p.array.size for p in model.state_dict(keep_vars=True).values() if isinstance(p, nn.Parameter)}
    assert config.num_parameters() == model.num_parameters() == sum(own.values())
    tables = config.vocab_size * config.n_embd
    tables += config.block_size * config.n_embd if config.positions == "learned" else 0
    assert model.num_parameters(embeddings=False) == model.num_parameters() - tables
    assert f"{model.num_parameters():,} parameters" in repr(model)


def test_no_biases_means_none_anywhere():
    names = [name for name, _ in GPT(replace(SMALL, bias=False)).named_parameters()]
    assert not [name for name in names if "bias" in name]
    assert sum("bias" in name for name, _ in GPT(SMALL).named_parameters()) == 2 * 6 + 1


def test_the_weights_start_as_gpt2_did():
    config = GPTConfig(vocab_size=200, block_size=200, n_layer=8, n_head=2, n_embd=64)
    for name, p in GPT(config).named_parameters():
        values = p.detach().numpy()
        if p.ndim == 1:
            assert (values == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        scaled = name.endswith(("self_attention.out_proj.weight", "feed_forward.linear2.weight"))
        std = 0.02 / math.sqrt(2 * 8) if scaled else 0.02
        # the standard error of a standard deviation of n numbers is 1/√(2n) of it, that of their mean std/√n
        assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size), name
        assert abs(values.mean()) < 5 * std / math.sqrt(values.size), name


def test_the_seed_decides_the_weights():
    made = []
    for seed in (1, 1, 2):
        shared.manual_seed(seed)
        made.append({name: p.detach().numpy() for name, p in GPT(SMALL).named_parameters()})
    assert all((made[0][name] == made[1][name]).all() for name in made[0])
    assert not [name for name in made[0] if made[0][name].ndim > 1 and (made[0][name] == made[2][name]).any()]


@pytest.mark.parametrize("vocab", [65, 1000])
def test_an_untrained_model_expects_every_token_alike(vocab):
    shared.manual_seed(0)
    model = GPT(replace(PRESETS["toy"], vocab_size=vocab)).eval()
    loss = next_token_loss(model(ids_of(16, 32, vocab=vocab)), ids_of(16, 32, vocab=vocab, seed=1)).item()
    # logits of variance 0.02² · 64 raise it by half of that, 0.013; measured with 20 seeds: −0.008 … 0.030
    assert abs(loss - math.log(vocab)) < 0.04


# ---------------------------------------------------------------- the forward pass


@over_grid
def test_logits_have_a_score_for_each_token(config):
    logits = GPT(config).eval()(ids_of(3, 4, vocab=config.vocab_size))
    assert tuple(logits.shape) == (3, 4, config.vocab_size) and logits.dtype == shared.float32


@over_grid
def test_the_model_is_the_sum_of_its_named_parts(config):
    """Written out once more with NumPy, in float64."""
    model, ids = model_of(config).double().eval(), ids_of(2, 4, vocab=config.vocab_size)
    state = {name: x.numpy() for name, x in model.state_dict().items()}
    state |= {
        name.replace("weight", "bias"): 0.0 for name in list(state) if name.replace("weight", "bias") not in state
    }

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attention(x, name):
        parts = np.split(linear(x, f"{name}.in_proj"), 3, axis=-1)
        q, k, v = (part.reshape(2, 4, config.n_head, -1).swapaxes(1, 2) for part in parts)
        scores = np.where(np.tri(4) > 0, q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]), -np.inf)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        return linear((weights @ v).swapaxes(1, 2).reshape(x.shape), f"{name}.out_proj")

    positions = state["positions.weight"] if config.positions == "learned" else state["positions.pe"][:, 0]
    x = state["token_embedding.weight"][ids.numpy()] + positions[:4]
    for i in range(config.n_layer):
        x = x + attention(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.self_attention")
        h = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.feed_forward.linear1")
        h = h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2
        x = x + linear(h, f"blocks.{i}.feed_forward.linear2")
    head = state["token_embedding.weight" if config.tie_weights else "lm_head.weight"]
    np.testing.assert_allclose(model(ids).detach().numpy(), norm(x, "norm") @ head.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3)])
def test_ids_have_two_dimensions(shape):
    with pytest.raises(RuntimeError, match=r"GPT: expected ids \(B, T\), but got shape \(" + str(shape[0])):
        GPT(SMALL)(ids_of(*shape))


def test_more_tokens_than_positions_are_an_error():
    GPT(SMALL)(ids_of(1, 10))
    with pytest.raises(RuntimeError, match="0 … 9 only"):
        GPT(SMALL)(ids_of(1, 11))


def test_sinusoidal_positions_are_a_table_that_is_not_learned():
    model = GPT(replace(SMALL, positions="sinusoidal"))
    assert "positions.pe" in dict(model.named_buffers()) and not list(model.positions.parameters())
    assert_close(model.positions.table(), nn.PositionalEncoding(8, max_len=10).table())
    same = shared.tensor([[3, 3, 3]])
    logits = model.eval()(same)[0]
    assert np.abs((logits[1] - logits[2]).detach().numpy()).max() > 1e-3, "the position of a token should matter"


pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


@st.composite
def model_and_length(draw):
    heads = draw(st.integers(1, 3))
    config = GPTConfig(
        vocab_size=draw(st.integers(2, 9)),
        block_size=draw(st.integers(2, 9)),
        n_layer=draw(st.integers(1, 3)),
        n_head=heads,
        n_embd=heads * draw(st.integers(1, 4)),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        bias=draw(st.booleans()),
        positions=draw(st.sampled_from(["learned", "sinusoidal"])),
        tie_weights=draw(st.booleans()),
    )
    return model_of(config, draw(st.integers(0, 9))).eval(), draw(st.integers(2, config.block_size))


@settings(max_examples=30)
@given(model_and_length(), st.data())
def test_no_logits_depend_on_later_tokens(drawn, data):
    model, length = drawn
    ids = ids_of(2, length, vocab=model.config.vocab_size).numpy()
    place = data.draw(st.integers(1, length - 1))
    changed = ids.copy()
    changed[:, place:] = (ids[:, place:] + 1) % model.config.vocab_size
    before, after = (model(shared.tensor(x)).detach().numpy() for x in (ids, changed))
    np.testing.assert_allclose(after[:, :place], before[:, :place], rtol=1e-5, atol=1e-5)
    # neither do gradients: those of the logits before `place` do not reach the positions from there on
    if model.config.positions == "learned":
        model(shared.tensor(ids))[:, :place].sum().backward()
        assert not model.positions.weight.grad.numpy()[place:].any()


@settings(max_examples=30)
@given(model_and_length(), st.data())
def test_a_text_in_pieces_gives_the_same_logits_with_caches(drawn, data):
    model, length = drawn
    ids = ids_of(2, length, vocab=model.config.vocab_size)
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4)))
    with shared.no_grad():
        whole, caches = model(ids), [nn.KVCache() for _ in model.blocks]
        pieces = [model(ids[:, a:b], caches) for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    assert_close(shared.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
    assert [len(cache) for cache in caches] == [length] * len(model.blocks)


def test_earlier_tokens_matter():
    model, ids = model_of(SMALL).eval(), ids_of(1, 6)
    other = shared.tensor((ids.numpy() + np.eye(1, 6, dtype=int)) % 13)
    assert np.abs((model(ids) - model(other)).detach().numpy()[0, -1]).max() > 1e-2


def test_cached_and_new_tokens_must_fit_together():
    model, caches = GPT(SMALL).eval(), [nn.KVCache(), nn.KVCache()]
    with shared.no_grad():
        model(ids_of(1, 8), caches)
        with pytest.raises(RuntimeError, match="positions 8 … 10"):
            model(ids_of(1, 3), caches)


def test_a_block_is_causal_unless_told_otherwise():
    block = GPTDecoderBlock(replace(SMALL, dropout=0.5)).eval()
    x = shared.randn(1, 4, 8)
    assert_close(block(x)[:, :2], block(x[:, :2]), rtol=1e-5, atol=1e-6)
    assert np.abs((block(x) - block(x, is_causal=False)).detach().numpy()[0, 0]).max() > 1e-4
    mask = shared.tensor(np.eye(4, dtype=bool))  # each token by itself
    assert_close(block(x, mask)[:, 3:], block(x[:, 3:]), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- dropout


def test_dropout_is_for_training_only():
    model, ids = model_of(replace(SMALL, dropout=0.5)), ids_of(2, 6)
    without = model_of(SMALL)
    model.eval()
    assert_close(model(ids), without(ids), rtol=1e-5, atol=1e-6)
    model.train()
    shared.manual_seed(0)
    first = model(ids).detach().numpy()
    assert np.abs(first - model(ids).detach().numpy()).max() > 1e-2
    shared.manual_seed(0)
    np.testing.assert_array_equal(model(ids).detach().numpy(), first)


def test_dropout_is_where_gpt2_has_it():
    """On the embeddings, on attention weights, on what attention and network add; not inside the network."""
    block = GPT(replace(SMALL, dropout=0.25)).blocks[0]
    assert (block.dropout.p, block.self_attention.dropout, block.feed_forward.dropout.p) == (0.25, 0.25, 0.0)
    model = GPT(GPTConfig(vocab_size=13, block_size=50, n_layer=1, n_head=2, n_embd=40, dropout=0.25))
    shared.manual_seed(0)
    kept = (model.positions(model.token_embedding(ids_of(20, 50))).detach().numpy() != 0).mean()
    assert abs(kept - 0.75) < 5 * math.sqrt(0.25 * 0.75 / 40_000)


# ---------------------------------------------------------------- the tied weight


def test_tied_weights_are_one_parameter():
    model = GPT(SMALL)
    assert model.lm_head.weight is model.token_embedding.weight
    names = [name for name, _ in model.named_parameters()]
    assert "token_embedding.weight" in names and "lm_head.weight" not in names
    untied = GPT(replace(SMALL, tie_weights=False))
    assert untied.lm_head.weight is not untied.token_embedding.weight
    assert untied.num_parameters() == model.num_parameters() + 13 * 8


def test_the_tied_weight_gets_the_gradients_of_both_uses():
    tied, untied = model_of(SMALL).double(), GPT(replace(SMALL, tie_weights=False)).double()
    untied.load_state_dict(tied.state_dict())
    inputs, targets = ids_of(3, 7), ids_of(3, 7, seed=1)
    for model in (tied, untied):
        next_token_loss(model(inputs), targets).backward()
    found, parts = gradients(tied), gradients(untied)
    below, above = parts["token_embedding.weight"], parts.pop("lm_head.weight")
    assert np.abs(below).max() > 1e-3 and np.abs(above).max() > 1e-3
    parts["token_embedding.weight"] = below + above
    assert list(found) == list(parts)
    for name in found:
        np.testing.assert_allclose(found[name], parts[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_tied_weights_stay_tied():
    model = model_of(SMALL)
    file = io.BytesIO()
    shared.save(model.state_dict(), file)
    assert file.getbuffer().nbytes < 4 * (model.num_parameters() + 13 * 8) + 8 * len(model.state_dict()) * 40
    again = GPT(SMALL)
    again.load_state_dict(shared.load(file))
    assert_close(again(ids_of(1, 5)), model(ids_of(1, 5)))
    for moved in (again, again.to("cpu"), again.double(), again.float(), again.train()):
        assert moved.lm_head.weight is moved.token_embedding.weight
    optimizer = again.configure_optimizers(lr=0.1)
    next_token_loss(again(ids_of(2, 5)), ids_of(2, 5, seed=1)).backward()
    optimizer.step()
    assert again.lm_head.weight is again.token_embedding.weight

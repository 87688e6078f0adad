"""What a GPT's methods promise: training, its cost, fewer positions, generation."""

from dataclasses import replace

import numpy as np
import pytest

import shared
from shared import nn
from shared.autograd import is_grad_enabled
from shared.models import GPT, GPTDecoderBlock, next_token_loss
from shared.testing import assert_close
from tests.models.samples import SMALL, gradients, ids_of, model_of, over_grid

# ---------------------------------------------------------------- training


def test_matrices_decay_and_vectors_do_not():
    model = GPT(SMALL)
    model.blocks[0].requires_grad_(False)
    decayed, kept = model.decay_groups(0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    found = [names[id(p)] for group in (decayed, kept) for p in group["params"]]
    assert sorted(found) == sorted(trained), "every trained parameter is in one group, once"
    vectors = {name for name in trained if name.endswith("bias") or ".norm" in name or name.startswith("norm")}
    assert {names[id(p)] for p in kept["params"]} == vectors
    assert {"token_embedding.weight", "positions.weight"} <= {names[id(p)] for p in decayed["params"]}


def test_the_optimizer_shrinks_only_what_decays():
    model = model_of(SMALL)
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    optimizer = model.configure_optimizers(lr=0.1, weight_decay=0.5, betas=(0.8, 0.9), eps=1e-6)
    assert type(optimizer) is shared.optim.AdamW
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.8, 0.9), 1e-6)
    for p in model.parameters():
        p.grad = shared.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if p.ndim >= 2 else 1.0
        np.testing.assert_allclose(p.detach().numpy(), before[name] * factor, rtol=1e-6, err_msg=name)


def test_a_model_without_vectors_to_train_has_one_group():
    model = GPT(SMALL)
    for p in model.parameters():
        p.requires_grad_(p.ndim >= 2)
    assert [group["weight_decay"] for group in model.configure_optimizers(lr=1.0).param_groups] == [0.1]


def test_the_loss_is_the_mean_over_all_targets_but_those_left_out():
    logits, targets = shared.randn(2, 3, 5, dtype=shared.float64), np.array([[0, 4, -100], [2, -100, 1]])
    values = logits.numpy()
    logp = values - np.log(np.exp(values).sum(-1, keepdims=True))
    wanted = -np.mean([logp[b, t, targets[b, t]] for b, t in [(0, 0), (0, 1), (1, 0), (1, 2)]])
    np.testing.assert_allclose(next_token_loss(logits, shared.tensor(targets)).item(), wanted, rtol=1e-12)


def test_a_small_model_learns_what_follows_what():
    shared.manual_seed(0)
    model = GPT(SMALL)
    optimizer = model.configure_optimizers(lr=1e-2)
    text = shared.tensor(np.arange(22)[None] % 11)
    for _ in range(60):
        start = 0 if _ % 2 else 11
        loss = next_token_loss(model(text[:, start : start + 10]), text[:, start + 1 : start + 11])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    assert model.generate(text[:, :1], 9, temperature=0).tolist() == [list(range(10))]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_blocks_give_the_same_loss_and_gradients(dropout):
    results = []
    for recompute in (False, True):
        model = model_of(replace(SMALL, dropout=dropout))
        model.gradient_checkpointing = recompute
        shared.manual_seed(3)
        loss = next_token_loss(model(ids_of(3, 7)), ids_of(3, 7, seed=1))
        loss.backward()
        results.append({"loss": loss.detach().numpy(), "next draw": shared.rand(3).numpy()} | gradients(model))
    assert list(results[0]) == list(results[1])
    for name, wanted in results[0].items():
        np.testing.assert_allclose(results[1][name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_recomputing_keeps_less_and_is_for_training_only(monkeypatch):
    calls = []
    forward = GPTDecoderBlock.forward
    monkeypatch.setattr(GPTDecoderBlock, "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    model = GPT(SMALL)
    model.gradient_checkpointing = True
    for training, expected in ((True, 4), (False, 2)):
        calls.clear()
        model.train(training)
        model(ids_of(1, 4)).sum().backward()
        assert len(calls) == expected


def test_with_caches_nothing_is_recomputed():
    """In training too: a recomputed block would get no cache, and the next piece would begin at position 0."""
    results = []
    for recompute in (False, True):
        model = model_of(SMALL).train()
        model.gradient_checkpointing = recompute
        caches = [nn.KVCache() for _ in model.blocks]
        pieces = [model(part, caches) for part in (ids_of(2, 6)[:, :4], ids_of(2, 6)[:, 4:])]
        assert [len(cache) for cache in caches] == [6] * SMALL.n_layer
        pieces[0].sum().backward()
        results.append((*(piece.detach().numpy() for piece in pieces), model.positions.weight.grad.numpy()))
        np.testing.assert_allclose(
            np.concatenate(results[-1][:2], 1), model(ids_of(2, 6)).detach().numpy(), rtol=1e-5, atol=1e-6
        )
    for plain, recomputed in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, recomputed)


# ---------------------------------------------------------------- cost


@over_grid
@pytest.mark.parametrize("length", [None, 3])
def test_flops_are_those_of_the_matrix_products(config, length):
    """Counted from the shapes of the weights: 2 for each number of a matrix, and two products of (T, d) for each block."""
    model, d = GPT(config), config.n_embd
    linear = sum(m.weight.array.size for m in model.modules() if isinstance(m, nn.Linear))
    tokens = config.block_size if length is None else length
    forward = 2 * linear + config.n_layer * 2 * (2 * tokens * d)
    assert model.flops_per_token(length, training=False) == forward
    assert model.flops_per_token(length) == 3 * forward


# ---------------------------------------------------------------- fewer positions


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_cropped_model_computes_the_same_on_short_texts(positions):
    model = model_of(replace(SMALL, positions=positions)).eval()
    before = model(ids_of(2, 6)).detach()
    model.crop_block_size(6)
    assert_close(model(ids_of(2, 6)), before)
    with pytest.raises(RuntimeError, match="0 … 5 only"):
        model(ids_of(2, 7))
    assert model.config == replace(SMALL, positions=positions, block_size=6)
    assert model.num_parameters() == model.config.num_parameters()
    fresh = GPT(model.config)
    fresh.load_state_dict(model.state_dict())
    assert_close(fresh.eval()(ids_of(2, 6)), before)
    for size in (0, 7):
        with pytest.raises(ValueError, match=f"1 … 6, but got {size}"):
            model.crop_block_size(size)


def test_cropped_positions_are_learned_as_before():
    model = GPT(SMALL)
    model.crop_block_size(4)
    model(ids_of(1, 4)).sum().backward()
    assert isinstance(model.positions.weight, nn.Parameter) and model.positions.weight.grad.shape == (4, 8)
    model.positions.weight.requires_grad_(False)
    model.crop_block_size(2)
    assert not model.positions.weight.requires_grad


# ---------------------------------------------------------------- generation


def test_temperature_zero_takes_the_likeliest_token():
    model, start = model_of(SMALL).eval(), ids_of(2, 3)
    ids = start
    with shared.no_grad():
        for _ in range(5):
            ids = shared.cat([ids, model(ids)[:, -1].argmax(dim=-1, keepdim=True)], 1)
    found = model.generate(start, 5, temperature=0)
    assert found.tolist() == ids.tolist() and found.dtype == shared.int64
    assert model.generate(start, 5, top_k=1).tolist() == ids.tolist()
    assert model.generate(start, 0).tolist() == start.tolist()


def test_seeds_decide_what_is_drawn():
    model, start = model_of(SMALL).eval(), ids_of(4, 2)

    def drawn(seed):
        return model.generate(start, 6, generator=shared.Generator().manual_seed(seed)).tolist()

    assert drawn(1) == drawn(1) != drawn(2)
    shared.manual_seed(5)
    first = model.generate(start, 6).tolist()
    shared.manual_seed(5)
    assert model.generate(start, 6).tolist() == first


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature():
    model, shots = model_of(SMALL).eval(), 4000
    start = shared.tensor(np.tile([[1, 2, 3]], (shots, 1)))
    with shared.no_grad():
        logits = model(start[:1])[0, -1].numpy().astype(float)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 4), (1.0, 99)):
        p = np.exp(logits / temperature)
        if top_k is not None and top_k < 13:
            p[np.argsort(-p)[top_k:]] = 0
        p /= p.sum()
        ids = model.generate(start, 1, temperature, top_k, shared.Generator().manual_seed(0)).numpy()[:, -1]
        shares = np.bincount(ids, minlength=13) / shots
        assert (shares[p == 0] == 0).all()
        assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / shots)).all(), (temperature, top_k)


def test_long_texts_are_seen_from_their_end_and_without_a_graph(monkeypatch):
    seen, forward = [], GPT.forward

    def watched(self, ids):
        seen.append((ids.tolist(), is_grad_enabled()))
        return forward(self, ids)

    monkeypatch.setattr(GPT, "forward", watched)
    start = ids_of(1, 8)
    found = model_of(SMALL).generate(start, 5).tolist()[0]
    assert found[:8] == start.tolist()[0]
    assert seen == [([found[max(0, n - 10) : n]], False) for n in range(8, 13)]


@pytest.mark.parametrize("training", [True, False])
def test_generation_is_in_eval_mode_and_leaves_no_trace(training):
    model = model_of(replace(SMALL, dropout=0.5)).train(training)
    ids = ids_of(2, 4)
    assert model.generate(ids, 4, temperature=0).tolist() == model_of(SMALL).generate(ids, 4, temperature=0).tolist()
    assert model.training is training and all(m.training is training for m in model.modules())
    assert tuple(ids.shape) == (2, 4) and not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}])
def test_impossible_ways_to_draw_are_errors(options):
    with pytest.raises(ValueError, match="GPT: expected temperature ≥ 0 and top_k ≥ 1"):
        GPT(SMALL).generate(ids_of(1, 1), 1, **options)

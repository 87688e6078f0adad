"""GPT-2 of Hugging Face: names, shapes and settings both ways, and the same logits and gradients."""

import importlib.util
import json
import os
from dataclasses import replace

import numpy as np
import pytest

import shared
from shared.models import (
    GPT,
    PRESETS,
    GPTConfig,
    config_from_hugging_face,
    config_to_hugging_face,
    from_hugging_face,
    next_token_loss,
    to_hugging_face,
)
from shared.models.hugging_face import weights_of
from tests.models import make_hugging_face_golden as golden

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is to be downloaded
needs_transformers = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="compares with transformers on PyTorch, which are not both installed",
)
CONFIG = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8, dropout=0.0)
PUBLISHED = {  # config.json of openai-community/gpt2, in full
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}


def state_of(config=CONFIG):
    """A state dict as Hugging Face has it, every number of it another one."""
    shapes = {w.theirs: w.shape[::-1] if w.transposed else w.shape for w in weights_of(config)}
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    state = {}
    for (name, shape), end in zip(shapes.items(), ends, strict=True):
        numbers = np.arange(end - np.prod(shape), end, dtype="float32").reshape(shape)
        state[name if name == "lm_head.weight" else f"transformer.{name}"] = shared.from_numpy(numbers)
    if config.tie_weights:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def same_bits(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and tuple(a[name].shape) == tuple(b[name].shape), name
        np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), err_msg=name)


# ---------------------------------------------------------------- names and shapes


@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back_is_the_same_memory(tied):
    config = replace(CONFIG, tie_weights=tied)
    state = state_of(config)
    ours = from_hugging_face(state, config)
    back = to_hugging_face(ours, config)
    same_bits(back, state)
    for name in state:
        assert np.shares_memory(back[name].numpy(), state[name].numpy()), name
    model = GPT(config)
    assert set(ours) == set(model.state_dict())
    model.load_state_dict(ours)
    same_bits(to_hugging_face(model.state_dict(), config), state)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, n_layer=11, n_embd=4), PRESETS["toy"]])
def test_the_table_names_every_tensor_of_a_model_with_its_shape(config):
    found = {w.ours: w.shape for w in weights_of(config)}
    assert found == {name: tuple(x.shape) for name, x in GPT(config).state_dict().items()}


def test_four_matrices_of_each_block_are_transposed():
    state = state_of()
    ours = from_hugging_face(state, CONFIG)
    for name, weight in (
        ("attn.c_attn", "self_attention.in_proj"),
        ("attn.c_proj", "self_attention.out_proj"),
        ("mlp.c_fc", "feed_forward.linear1"),
        ("mlp.c_proj", "feed_forward.linear2"),
    ):
        theirs = state[f"transformer.h.1.{name}.weight"].numpy()
        np.testing.assert_array_equal(ours[f"blocks.1.{weight}.weight"].numpy(), theirs.T)
    assert sum(w.transposed for w in weights_of(CONFIG)) == 4 * CONFIG.n_layer
    assert ours["positions.weight"] is state["transformer.wpe.weight"]


def test_files_without_prefix_or_head_and_with_masks_are_read():
    state = state_of()
    old = {name.removeprefix("transformer."): x for name, x in state.items() if name != "lm_head.weight"}
    for i in range(CONFIG.n_layer):
        old[f"h.{i}.attn.bias"] = shared.ones(1, 1, 6, 6)
        old[f"h.{i}.attn.masked_bias"] = shared.tensor(-1e4)
    same_bits(from_hugging_face(old, CONFIG), from_hugging_face(state, CONFIG))
    prefixed = {f"transformer.{name}": x for name, x in old.items()}
    same_bits(from_hugging_face(prefixed, CONFIG), from_hugging_face(state, CONFIG))


def test_minGPTs_order_is_ours():
    config = replace(CONFIG, bias=False)
    model = GPT(config)
    state = to_hugging_face(model.state_dict(), config, conv1d=False)
    assert not [name for name in state if name.endswith("bias")]
    assert tuple(state["transformer.h.0.mlp.c_fc.weight"].shape) == (32, 8)
    same_bits(from_hugging_face(state, config, conv1d=False), model.state_dict())


def test_everything_that_does_not_fit_is_named_at_once():
    state = state_of()
    del state["transformer.h.0.attn.c_attn.bias"], state["transformer.ln_f.weight"]
    state["transformer.h.2.ln_1.weight"] = shared.ones(8)
    state["transformer.h.1.attn.bias.weight"] = shared.ones(3)
    state["transformer.h.1.mlp.c_fc.weight"] = shared.ones(32, 8)
    with pytest.raises(RuntimeError) as error:
        from_hugging_face(state, CONFIG)
    assert str(error.value).split("\n\t")[1:] == [
        "missing: h.0.attn.c_attn.bias (24,)",
        "missing: ln_f.weight (8,)",
        "unexpected: h.2.ln_1.weight (8,)",
        "unexpected: h.1.attn.bias.weight (3,)",
        "wrong shape: h.1.mlp.c_fc.weight (32, 8), expected (8, 32)",
    ]
    ours = from_hugging_face(state_of(), CONFIG)
    ours["blocks.0.norm1.weights"] = ours.pop("blocks.0.norm1.weight")
    with pytest.raises(
        RuntimeError, match=r"missing: blocks.0.norm1.weight \(8,\)\n\tunexpected: blocks.0.norm1.weights"
    ):
        to_hugging_face(ours, CONFIG)


def test_no_name_may_come_twice():
    state = state_of()
    with pytest.raises(RuntimeError, match="wpe.weight is there twice"):
        from_hugging_face(state | {"wpe.weight": state["transformer.wpe.weight"]}, CONFIG)


def test_a_head_of_its_own_is_not_taken_for_a_tied_one():
    state, table = state_of(), state_of()["transformer.wte.weight"]
    from_hugging_face(state | {"lm_head.weight": table.clone()}, CONFIG)
    with pytest.raises(RuntimeError, match="lm_head.weight is not wte.weight.*tie_weights=False"):
        from_hugging_face(state | {"lm_head.weight": table + 1}, CONFIG)
    untied = replace(CONFIG, tie_weights=False)
    del state["lm_head.weight"]
    with pytest.raises(RuntimeError, match=r"missing: lm_head.weight \(11, 8\)"):
        from_hugging_face(state, untied)


@pytest.mark.parametrize("field, value", [("positions", "sinusoidal"), ("bias", False)])
def test_configs_without_counterpart_are_errors(field, value):
    config = replace(CONFIG, **{field: value})
    for convert in (from_hugging_face, to_hugging_face):
        with pytest.raises(ValueError, match=f"got {field}={value!r}"):
            convert({}, config)
    with pytest.raises(ValueError, match=f"got {field}={value!r}"):
        config_to_hugging_face(config)


# ---------------------------------------------------------------- config.json


def test_the_published_config_is_the_preset():
    assert config_from_hugging_face(PUBLISHED) == PRESETS["gpt2"] == config_from_hugging_face({})


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_configs_go_there_and_back(name):
    config = GPTConfig.preset(name, dropout=0.2, tie_weights=False)
    assert config_from_hugging_face(json.loads(json.dumps(config_to_hugging_face(config)))) == config


def test_the_other_names_of_sizes_count_too():
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 9}
    assert config_from_hugging_face(sizes) == GPTConfig(n_embd=64, n_layer=3, n_head=4, block_size=9)


@pytest.mark.parametrize(
    "field, value",
    [("activation_function", "gelu"), ("layer_norm_epsilon", 1e-6), ("n_inner", 1000), ("n_ctx", 512)]
    + [("scale_attn_weights", False), ("scale_attn_by_inverse_layer_idx", True), ("add_cross_attention", True)]
    + [("model_type", "gptj"), ("attn_pdrop", 0.0), ("embd_pdrop", 0.2)],
)
def test_settings_that_make_another_model_are_named_with_their_value(field, value):
    with pytest.raises(ValueError, match=f"not a config that GPT can have: .*{field}={value!r}"):
        config_from_hugging_face(PUBLISHED | {field: value})


def test_all_of_them_are_named():
    with pytest.raises(ValueError, match="activation_function='relu', layer_norm_epsilon=0.1"):
        config_from_hugging_face({"layer_norm_epsilon": 0.1, "activation_function": "relu"})
    with pytest.raises(ValueError, match="n_embd should be divisible by n_head"):
        config_from_hugging_face({"n_embd": 10})


@pytest.mark.parametrize(
    "field, value", [("n_inner", 4 * 768), ("n_inner", None), ("activation_function", "gelu_pytorch_tanh")]
)
def test_settings_that_say_the_same_are_taken(field, value):
    assert config_from_hugging_face(PUBLISHED | {field: value}) == PRESETS["gpt2"]


# ---------------------------------------------------------------- the same numbers


def outcome(config, state, ids, targets):
    """As `golden.outcome`: logits, loss and gradients by their names, of our model with their state dict."""
    model = GPT(config)
    if next(iter(state.values())).dtype == shared.float64:
        model.double()
    model.load_state_dict(from_hugging_face(state, config))
    logits = model(shared.tensor(ids))
    loss = next_token_loss(logits, shared.tensor(targets))
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    found = {"logits": logits, "loss": loss} | to_hugging_face(grads, config)
    return {name: x.detach().numpy() for name, x in found.items()}


def compare(found, wanted, tolerance):
    """Largest differences, of logits and of gradients: absolute, and as a share of the largest number of the tensor."""
    assert set(found) - {"lm_head.weight"} == set(wanted) - {"lm_head.weight"}
    worst = {}
    for name, values in wanted.items():
        assert found[name].shape == np.shape(values), name
        difference = float(np.abs(found[name] - values).max())
        share = difference / float(np.abs(values).max())
        assert share < tolerance, f"{name}: {difference:.3g}, {share:.3g} of the largest"
        kind = name if name in ("logits", "loss") else "gradients"
        worst[kind] = tuple(map(max, worst.get(kind, (0.0, 0.0)), (difference, share)))
    return worst


def compare_with_transformers(settings, ids, targets, tolerance, double=False):
    """Of a model with random weights; their weights and config are read from what a user finds: a state dict, a JSON."""
    theirs = golden.model_of(settings)
    theirs = theirs.double() if double else theirs
    config = config_from_hugging_face(json.loads(theirs.config.to_json_string()))
    state = {name: shared.from_numpy(x.numpy()) for name, x in theirs.state_dict().items()}
    return compare(outcome(config, state, ids, targets), golden.outcome(theirs, ids, targets), tolerance)


def test_logits_and_gradients_are_those_of_the_golden_file():
    config = config_from_hugging_face(golden.SETTINGS)
    shapes = {f"transformer.{w.theirs}": w.shape[::-1] if w.transposed else w.shape for w in weights_of(config)}
    del shapes["transformer.lm_head.weight"]
    state = {name: shared.from_numpy(golden.numbers(name, shape)) for name, shape in shapes.items()}
    wanted = {name: np.array(x) for name, x in json.loads(golden.FILE.read_text(encoding="utf-8")).items()}
    compare(outcome(config, state, golden.IDS, golden.TARGETS), wanted, 1e-6)


@needs_transformers
def test_the_golden_file_is_what_transformers_gives():
    wanted = json.loads(golden.FILE.read_text(encoding="utf-8"))
    found = golden.golden()
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-8, err_msg=name)


@needs_transformers
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("double, tolerance", [(False, 1e-5), (True, 1e-12)], ids=["float32", "float64"])
def test_logits_and_gradients_are_those_of_transformers(tied, double, tolerance):
    settings = golden.SETTINGS | {"vocab_size": 50, "n_positions": 24, "n_embd": 36, "n_layer": 3, "n_head": 3}
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, 50, (2, 3, 24))
    compare_with_transformers(settings | {"tie_word_embeddings": tied}, ids, targets, tolerance, double)


@needs_transformers
def test_transformers_takes_our_weights_and_config():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shared.manual_seed(0)
    model = GPT(replace(CONFIG, dropout=0.1)).eval()
    theirs = GPT2LMHeadModel(GPT2Config(**config_to_hugging_face(model.config), bos_token_id=0, eos_token_id=0)).eval()
    state = to_hugging_face(model.state_dict(), model.config)
    theirs.load_state_dict({name: torch.from_numpy(x.numpy()) for name, x in state.items()})
    ids = np.random.default_rng(0).integers(0, 11, (2, 6))
    wanted = theirs(torch.from_numpy(ids)).logits.detach().numpy()
    np.testing.assert_allclose(model(shared.tensor(ids)).detach().numpy(), wanted, atol=1e-6)
    same_bits(state, {name: shared.from_numpy(x.numpy()) for name, x in theirs.state_dict().items()})


@needs_transformers
def test_flops_are_those_pytorch_counts():
    """Of every matrix product, forward and backward, in transformers' model with eager attention."""
    from torch.utils.flop_counter import FlopCounterMode

    theirs, ids = golden.model_of(golden.SETTINGS), np.array(golden.IDS)
    config, tokens = config_from_hugging_face(golden.SETTINGS), ids.size
    with FlopCounterMode(display=False) as counter:
        golden.outcome(theirs, ids, np.array(golden.TARGETS))
    assert counter.get_total_flops() == tokens * GPT(config).flops_per_token(ids.shape[1])


@needs_transformers
@pytest.mark.stress  # half a minute of one core, 5 GB
def test_the_smallest_gpt2_has_the_logits_and_gradients_of_transformers():
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, 50257, (2, 1, 1024))
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    worst = compare_with_transformers(dropouts, ids, targets, 1e-4)
    for kind, (difference, share) in worst.items():
        print(f"{kind}: largest difference {difference:.3g}, as a share of the tensor's largest number {share:.3g}")
    assert worst["logits"][0] < 1e-4 and worst["gradients"][0] < 1e-4

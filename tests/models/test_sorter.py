"""The sorter: a trained model from elsewhere, with what it computed there, and what it computes here."""

import itertools

import numpy as np
import pytest

import shared
from shared.data import catalog
from shared.models import GPT, GPTConfig, load_sorter, look_inside, reference_activations, sort_letters, to_hugging_face
from shared.models.sorter import NAME, decode_tensor
from shared.testing import assert_close


@pytest.fixture(scope="module")
def sorter():
    if catalog.status(NAME) not in ("course-data", "cached"):
        pytest.skip(f"the files of {NAME} are not on this machine ($COURSE_DATA)")
    return load_sorter()


def test_the_sorter_is_a_gpt_with_a_head_of_its_own(sorter):
    assert isinstance(sorter, GPT) and not sorter.training
    assert sorter.config == GPTConfig(vocab_size=3, block_size=11, n_layer=3, n_head=3, n_embd=48, tie_weights=False)
    assert sorter.num_parameters() == 85_728


def test_every_stored_number_is_computed_again(sorter):
    wanted = reference_activations()
    ids = wanted.pop("ids")
    found = look_inside(sorter, ids)
    assert set(found) == set(wanted) and len(wanted) == 24
    for name, values in wanted.items():
        assert_close(found[name], values, rtol=0.0, atol=1e-5, msg=name)
    assert_close(sorter(ids), wanted["lm_head"], rtol=0.0, atol=1e-5)


def test_all_words_are_sorted(sorter):
    words = ["".join(letters) for letters in itertools.product("ABC", repeat=6)]
    assert len(words) == 729
    assert sort_letters(sorter, words) == ["".join(sorted(word)) for word in words]


@pytest.mark.parametrize("word", ["ABCABD", "ABC", "abcabc", ""])
def test_other_words_are_errors(word):
    with pytest.raises(ValueError, match=f"6 letters of ABC, but got {word!r}"):
        sort_letters(GPT(GPTConfig.preset("toy")), ["AAAAAA", word])
    assert sort_letters(GPT(GPTConfig.preset("toy")), []) == []


def test_transformers_reproduces_the_logits_too(sorter):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    settings = {"vocab_size": 3, "n_positions": 11, "n_embd": 48, "n_layer": 3, "n_head": 3}
    settings |= {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    state = to_hugging_face(sorter.state_dict(), sorter.config)
    theirs.load_state_dict({name: torch.from_numpy(x.numpy().copy()) for name, x in state.items()})
    wanted = reference_activations()
    logits = theirs(torch.from_numpy(wanted["ids"].numpy())).logits.detach().numpy()
    np.testing.assert_allclose(logits, wanted["lm_head"].numpy(), atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_what_is_seen_inside_is_what_the_model_computes(positions):
    """For any GPT, not only the sorter: a look inside takes no other path than the model."""
    shared.manual_seed(0)
    model = GPT(GPTConfig.preset("toy", positions=positions)).eval()
    ids = shared.tensor(np.random.default_rng(0).integers(0, 65, (2, 7)))
    found = look_inside(model, ids)
    assert_close(found["lm_head"], model(ids).detach(), rtol=1e-5, atol=1e-6)
    assert_close(found["mlpResid"], found["block0"], rtol=1e-5, atol=1e-6)
    x = found["ln1"]
    out, weights = model.blocks[0].self_attention(x, is_causal=True, need_weights=True)
    assert_close(found["attSm"], weights.detach(), rtol=1e-5, atol=1e-6)
    assert_close(found["yProj"], out.detach(), rtol=1e-5, atol=1e-6)


def test_only_whole_float32_tensors_are_decoded():
    entry = {"shape": [2], "dtype": "torch.float32", "data": "AACAPwAAAEA="}
    assert decode_tensor(entry).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="but got torch.float16"):
        decode_tensor(entry | {"dtype": "torch.float16"})
    with pytest.raises(ValueError, match="reshape"):
        decode_tensor(entry | {"shape": [3]})

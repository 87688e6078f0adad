"""A trained model in a folder: written, read, opened by transformers; and the one that the repository keeps."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.checkpoint import CheckpointError
from shared.data import sequential_windows
from shared.models import GPT, GPTConfig, load_pretrained, save_pretrained
from shared.text import load_tokenizer
from shared.training import evaluate_loss, sample_text

KEPT = Path(__file__).resolve().parents[2] / "sprints" / "09_train_gpt2" / "model"
TINY = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, dropout=0.0)


@pytest.fixture
def folder(tmp_path):
    shared.manual_seed(3)
    model = GPT(TINY).eval()
    save_pretrained(model, tmp_path / "kept")
    return tmp_path / "kept", model


def test_what_was_saved_comes_back_with_the_same_logits_and_tied(folder):
    path, model = folder
    ids, again = shared.tensor([[1, 2, 3, 4]]), load_pretrained(path)
    assert not again.training
    assert again.lm_head.weight is again.token_embedding.weight
    state, wanted = again.state_dict(), model.state_dict()
    assert list(state) == list(wanted) and all((state[name] == wanted[name]).all() for name in wanted)
    # Transposed weights are multiplied in another order of additions.
    np.testing.assert_allclose(again(ids).numpy(force=True), model(ids).numpy(force=True), atol=1e-6)


def test_the_same_weights_give_the_same_bytes_and_nothing_else_lies_there(folder, tmp_path):
    path, model = folder
    save_pretrained(model, tmp_path / "again")
    names = sorted(file.name for file in path.iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert all((path / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_an_untied_head_is_kept_as_well(tmp_path):
    shared.manual_seed(3)
    model = GPT(GPTConfig(**{**vars(TINY), "tie_weights": False})).eval()
    save_pretrained(model, tmp_path)
    assert (load_pretrained(tmp_path).lm_head.weight == model.lm_head.weight).all()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    path, _ = folder
    (path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_pretrained(path)


def test_a_truncated_weight_file_is_an_error_that_names_it(folder):
    path, _ = folder
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_pretrained(path)


def test_a_config_that_is_no_json_or_of_another_model_is_an_error(folder):
    path, _ = folder
    config = path / "config.json"
    settings = json.loads(config.read_text())
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_pretrained(path)
    config.write_text(json.dumps(settings | {"model_type": "llama"}))
    with pytest.raises(ValueError, match="not the config of a GPT-2"):
        load_pretrained(path)


def test_weights_of_another_size_are_an_error_that_names_file_and_tensor(folder):
    path, _ = folder
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_layer": 3}))
    with pytest.raises(RuntimeError, match=r"(?s)model\.safetensors.*missing: h\.2\."):
        load_pretrained(path)


# ---------------------------------------------------------------- the one that is kept


def card() -> str:
    return (KEPT / "MODEL_CARD.md").read_text(encoding="utf-8")


def on_card(name: str) -> str:
    (found,) = re.findall(rf"^\| {re.escape(name)} \| ([^|]+?) \|$", card(), re.MULTILINE)
    return found


def test_the_kept_model_is_small_and_the_card_has_its_hash_and_size():
    weights = (KEPT / "model.safetensors").read_bytes()
    assert sum(path.stat().st_size for path in KEPT.iterdir()) <= 8_000_000
    assert on_card("sha256 of model.safetensors") == hashlib.sha256(weights).hexdigest()
    model = load_pretrained(KEPT)
    assert on_card("parameters") == f"{model.num_parameters():,}"
    assert load_tokenizer(KEPT).vocab_size == model.config.vocab_size


def test_the_card_has_the_loss_of_the_files_and_what_follows_from_it():
    loss = float(on_card("validation loss").split()[0])
    assert float(on_card("perplexity")) == pytest.approx(math.exp(loss), rel=2e-4)
    assert float(on_card("bits per character")) == pytest.approx(loss / math.log(2), abs=2e-4)
    train, val = shared.data.load("tinyshakespeare", fallback=True, progress=False)
    if not train.name.startswith("TinyShakespeare"):
        pytest.skip("TinyShakespeare is not here: the loss on the card is that text's")
    model, tokenizer = load_pretrained(KEPT), load_tokenizer(KEPT)
    ids = np.array(tokenizer.encode(val.text[:20_000]), np.uint16)
    part = evaluate_loss(model, sequential_windows(ids, 16, model.config.block_size))
    assert abs(part - loss) < 0.1, f"the first 20,000 characters have {part:.4f} nats, the card says {loss:.4f}"


def test_the_card_has_a_sample_that_the_files_write():
    model, tokenizer = load_pretrained(KEPT), load_tokenizer(KEPT)
    assert sample_text(model, tokenizer, "ROMEO:\n", 24, temperature=0.8, seed=0) in card()


def test_transformers_opens_the_folder_and_has_the_same_logits():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(KEPT).eval()
    model = load_pretrained(KEPT)
    ids = load_tokenizer(KEPT).encode("ROMEO:\nBut soft, what light")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(model(shared.tensor([ids])).numpy(force=True), expected, atol=1e-4)

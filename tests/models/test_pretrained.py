"""A trained model in a folder: written, read, opened by transformers; and the one that the repository keeps."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import math
import os
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.checkpoint import CheckpointError
from shared.data import sequential_windows
from shared.models import GPT, GPTConfig, load_pretrained, load_pretrained_tokenizer, next_token_loss, save_pretrained
from shared.models.hugging_face import to_hugging_face
from shared.nn.utils import skip_init
from shared.text import ByteLevelBPE, CharVocabulary, load_tokenizer
from shared.training import evaluate_loss, load_checkpoint, sample_text, save_checkpoint
from tests.cuda.stand_in import in_place_of_cupy

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


@pytest.mark.parametrize("field, value", [("attn_pdrop", [0.1]), ("n_layer", "2"), ("tie_word_embeddings", None)])
def test_settings_of_a_wrong_type_are_named_with_the_file(folder, field, value):
    path, _ = folder
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    ours = {"tie_word_embeddings": "tie_weights"}.get(field, field)
    with pytest.raises(ValueError, match=rf"config\.json: .*{ours}"):
        load_pretrained(path)


def test_a_config_that_is_nested_without_end_is_damaged(folder):
    path, _ = folder
    (path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load_pretrained(path)


def test_weights_of_another_size_are_an_error_that_names_file_and_tensor(folder):
    path, _ = folder
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_layer": 3}))
    with pytest.raises(RuntimeError, match=r"(?s)model\.safetensors.*missing: h\.2\."):
        load_pretrained(path)


# ---------------------------------------------------------------- views of the file


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base_of(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def step(model, ids, optimizer=None):
    """One step of training; the loss before it."""
    optimizer = optimizer or model.configure_optimizers(lr=0.01)
    model.train()
    loss = next_token_loss(model(ids[:, :-1]), ids[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.eval()
    return loss.item()


def test_parameters_are_views_of_the_file_and_training_does_not_change_it(folder):
    path, wanted = folder
    before, ids = digest(path / "model.safetensors"), shared.tensor([[1, 2, 3, 4, 5, 6], [0, 1, 0, 1, 0, 1]])
    model = load_pretrained(path)
    for name, parameter in model.named_parameters():
        assert isinstance(base_of(parameter.array), memoryview), name
        assert parameter.requires_grad and type(parameter.array) is np.ndarray
    for _ in range(3):
        assert step(model, ids) == pytest.approx(step(wanted, ids), rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), wanted.parameters(), strict=True):
        # The bias of the keys has a gradient of 0 but for rounding, which Adam makes a step of: hence not 1e-6.
        np.testing.assert_allclose(ours.numpy(force=True), theirs.numpy(force=True), atol=1e-4, err_msg=name)
    assert digest(path / "model.safetensors") == before
    assert not np.array_equal(load_pretrained(path).norm.bias.numpy(force=True), model.norm.bias.numpy(force=True))


def test_files_can_be_read_at_once_instead(folder):
    path, wanted = folder
    model = GPT.from_pretrained(path, mapped=False)
    assert not any(isinstance(base_of(parameter.array), memoryview) for parameter in model.parameters())
    ids = shared.tensor([[1, 2, 3]])
    np.testing.assert_allclose(model(ids).numpy(force=True), wanted(ids).numpy(force=True), atol=1e-6)


@pytest.mark.parametrize("where", ["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_views_go_to_a_gpu_and_are_trained_there(folder, where):
    path, wanted = folder
    ids = shared.tensor([[1, 2, 3, 4, 5, 6]])
    losses = [step(wanted, ids) for _ in range(3)]
    with in_place_of_cupy() if where == "stand-in" else nullcontext():
        model = load_pretrained(path).to("cuda")
        assert all(parameter.device == "cuda" for parameter in model.parameters())
        assert model.lm_head.weight is model.token_embedding.weight
        assert [step(model, ids.to("cuda")) for _ in range(3)] == pytest.approx(losses, rel=1e-4)


def test_nothing_is_drawn(folder):
    path, _ = folder
    shared.manual_seed(1)
    wanted = shared.rand(3)
    shared.manual_seed(1)
    load_pretrained(path)
    assert (shared.rand(3) == wanted).all()


def test_copies_casts_checkpoints_and_saving_over_itself_work(folder, tmp_path):
    path, wanted = folder
    ids, model = shared.tensor([[1, 2, 3, 4, 5, 6]]), load_pretrained(path)
    logits = wanted(ids).numpy(force=True)
    twin = copy.deepcopy(model)
    assert twin.lm_head.weight is twin.token_embedding.weight
    assert not isinstance(base_of(twin.norm.weight.array), memoryview)
    step(model, ids)
    np.testing.assert_allclose(twin(ids).numpy(force=True), logits, atol=1e-6)
    np.testing.assert_allclose(load_pretrained(path).double()(ids).numpy(force=True), logits, atol=1e-6)
    optimizer = model.configure_optimizers(lr=0.01)
    save_checkpoint(tmp_path / "run", model=model, optimizer=optimizer, step=1)
    other = load_pretrained(path)
    load_checkpoint(tmp_path / "run", model=other, optimizer=other.configure_optimizers(lr=0.01))
    np.testing.assert_allclose(other(ids).numpy(force=True), model(ids).numpy(force=True), atol=1e-6)
    trained = model(ids).numpy(force=True)
    model.save_pretrained(path)  # over the file that its own parameters are views of
    np.testing.assert_array_equal(model(ids).numpy(force=True), trained)
    np.testing.assert_allclose(GPT.from_pretrained(path)(ids).numpy(force=True), trained, atol=1e-6)


def test_caches_and_generation_work_on_views(folder):
    path, wanted = folder
    ids = shared.tensor([[1, 2, 3]])
    assert (
        load_pretrained(path).generate(ids, 5, temperature=0).tolist()
        == wanted.generate(ids, 5, temperature=0).tolist()
    )


@pytest.mark.parametrize("stored", ["float16", "float64"])
def test_other_dtypes_become_float32_or_what_is_asked_for(folder, stored):
    safetensors = pytest.importorskip("safetensors.numpy")
    path, wanted = folder
    arrays = {name: array.astype(stored) for name, array in safetensors.load_file(path / "model.safetensors").items()}
    safetensors.save_file(arrays, path / "model.safetensors")
    for asked, expected in ((None, "float32"), (stored, stored), (shared.float64, "float64")):
        model = load_pretrained(path, dtype=asked)
        assert {parameter.dtype for parameter in model.parameters()} == {np.dtype(expected)}
    assert load_pretrained(path, dtype=shared.bfloat16).norm.weight.dtype == shared.bfloat16
    np.testing.assert_allclose(
        load_pretrained(path).norm.weight.numpy(force=True), wanted.norm.weight.numpy(force=True), rtol=1e-3
    )
    with pytest.raises(TypeError, match="expected a floating dtype, but got int64"):
        load_pretrained(path, dtype=shared.long)
    with pytest.raises(TypeError, match="unknown dtype 'bloat16'; expected one of float64, "):
        load_pretrained(path, dtype="bloat16")


def test_files_of_others_with_prefix_masks_and_head_are_read(folder):
    safetensors = pytest.importorskip("safetensors.numpy")
    path, wanted = folder
    arrays = {n.removeprefix("transformer."): a for n, a in safetensors.load_file(path / "model.safetensors").items()}
    arrays |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 6, 6), "float32")) for i in range(TINY.n_layer)}
    arrays["lm_head.weight"] = arrays["wte.weight"].copy()
    safetensors.save_file(arrays, path / "model.safetensors")
    model, ids = load_pretrained(path), shared.tensor([[1, 2, 3]])
    assert model.lm_head.weight is model.token_embedding.weight
    np.testing.assert_allclose(model(ids).numpy(force=True), wanted(ids).numpy(force=True), atol=1e-6)


# ---------------------------------------------------------------- saving


def test_a_tokenizer_is_saved_beside_the_model_and_replaced_with_it(folder):
    path, model = folder
    letters, pairs = CharVocabulary.from_text("abcdefg"), ByteLevelBPE.train("to be or not to be", 260)
    model.save_pretrained(path, letters)
    assert load_pretrained_tokenizer(path).vocab_size == letters.vocab_size
    model.save_pretrained(path, pairs)
    assert load_pretrained_tokenizer(path) == pairs
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ]
    model.save_pretrained(path)
    assert load_pretrained_tokenizer(path) == pairs


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_a_folder_stays_as_it_was_where_saving_fails(folder, tmp_path, monkeypatch, what):
    path, model = folder
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    other = GPT(GPTConfig(**{**vars(TINY), "n_layer": 1}))

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, what, full)
    with pytest.raises(OSError, match="cannot save: the disk is full; .*the model that was there before is unchanged"):
        other.save_pretrained(path)
    with pytest.raises(OSError, match="cannot save: the disk is full"):
        other.save_pretrained(tmp_path / "a" / "new")
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert not (tmp_path / "a").exists()


def test_a_folder_stays_as_it_was_where_the_weights_cannot_be_replaced(folder):
    """As on Windows, where a file that somebody looks at cannot be: no new config beside the old weights."""
    path, model = folder
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").mkdir()
    before = (path / "config.json").read_bytes()
    with pytest.raises(OSError, match="cannot save: "):
        GPT(GPTConfig(**{**vars(TINY), "n_layer": 1})).save_pretrained(path, CharVocabulary.from_text("abcdefg"))
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert (path / "config.json").read_bytes() == before


def test_another_tokenizers_files_of_any_kind_go_when_a_tokenizer_is_saved(tmp_path):
    """Else transformers would read the text with tokenizer.json, the old one's, which it looks for first."""
    transformers = pytest.importorskip("transformers")
    old, new = (ByteLevelBPE.train(text, 300) for text in ("to be or not to be", "the question of the questions"))
    model, text = GPT(GPTConfig(**{**vars(TINY), "vocab_size": 300})), "the question to be"
    model.save_pretrained(tmp_path, old)
    transformers.GPT2Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists(), "without a tokenizer those that are there stay"
    model.save_pretrained(tmp_path, new)
    assert old.encode(text) != new.encode(text) == load_pretrained_tokenizer(tmp_path).encode(text)
    assert transformers.GPT2Tokenizer.from_pretrained(tmp_path).encode(text) == new.encode(text)


def test_a_file_that_grows_too_large_leaves_nothing_behind(folder):
    """A limit of the operating system in place of a full disk: the write itself fails, in the middle."""
    resource = pytest.importorskip("resource")
    path, model = folder
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot save: the file is larger than .*is unchanged"):
            model.save_pretrained(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_what_a_killed_save_left_behind_is_removed_later(folder):
    path, model = folder
    old, young = path / ".model.safetensors.01234567.tmp", path / ".model.safetensors.89abcdef.tmp"
    for stage in (old, young):
        stage.mkdir()
        (stage / "model.safetensors").write_bytes(b"half")
    os.utime(old, (0, 0))
    model.save_pretrained(path)
    assert not old.exists() and young.exists()


def test_a_model_without_counterpart_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="positions='sinusoidal'"):
        GPT(GPTConfig(**{**vars(TINY), "positions": "sinusoidal"})).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_opens_what_we_save_and_we_what_it_saves(tmp_path, tied):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 300, "n_positions": 24, "n_embd": 36, "n_layer": 3, "n_head": 3}
    torch.manual_seed(0)
    settings = transformers.GPT2Config(**sizes, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(settings).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)  # biases and norms that are seen
    ids = np.random.default_rng(0).integers(0, 300, (2, 24))
    wanted = theirs(torch.from_numpy(ids)).logits.detach().numpy()
    theirs.save_pretrained(tmp_path / "theirs")
    model = GPT.from_pretrained(tmp_path / "theirs")
    assert model.config.tie_weights is tied
    np.testing.assert_allclose(model(shared.tensor(ids)).numpy(force=True), wanted, atol=1e-5)

    tokenizer = ByteLevelBPE.train("to be or not to be, that is the question", 300)
    model.save_pretrained(tmp_path / "ours", tokenizer)
    again, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    np.testing.assert_allclose(again.eval()(torch.from_numpy(ids)).logits.detach().numpy(), wanted, atol=1e-5)
    text = "to be that question"
    assert transformers.GPT2Tokenizer.from_pretrained(tmp_path / "ours").encode(text) == tokenizer.encode(text)
    state = {
        name: torch.from_numpy(x.numpy().copy())
        for name, x in to_hugging_face(model.state_dict(), model.config).items()
    }
    assert all((again.state_dict()[name] == x).all() for name, x in state.items())


def test_skip_init_draws_nothing_and_is_over_afterwards():
    shared.manual_seed(1)
    wanted = GPT(TINY).norm.weight.tolist(), shared.rand(2).tolist()
    shared.manual_seed(1)
    model = skip_init(GPT, TINY)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in GPT(TINY).named_parameters()}
    shared.manual_seed(1)
    skip_init(GPT, TINY)
    assert (GPT(TINY).norm.weight.tolist(), shared.rand(2).tolist()) == wanted
    for wrong in (lambda: None, dict):
        with pytest.raises(RuntimeError, match="expected a subclass of Module"):
            skip_init(wrong)
    with pytest.raises(TypeError):
        skip_init(GPT, "no config")
    assert GPT(TINY).norm.weight.tolist() == wanted[0]


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

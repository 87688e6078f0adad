"""Pretrained models from the hub: a server on this machine stands in for it; nothing leaves the machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.checkpoint import CheckpointError
from shared.models import GPT, hub, load_pretrained, load_pretrained_tokenizer, pretrained_folder, save_pretrained
from shared.models.hub import KNOWN, ModelUnavailable
from shared.text import ByteLevelBPE
from tests.models.hub_server import COMMIT, Hub, Repo
from tests.models.samples import SMALL, ids_of, model_of

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
file_download = pytest.importorskip("huggingface_hub.file_download")
ROOT = Path(__file__).resolve().parents[2]
NAME = "someone/tiny-gpt"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(model_of(SMALL), folder, ByteLevelBPE.train("to be or not to be", 260))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """A hub with one model, an empty cache of its own, and no offline mode that another test has switched on."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with Hub({NAME: Repo(dict(files))}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        huggingface_hub.close_session()
        yield running
    huggingface_hub.close_session()


def load(tmp_path, name=NAME, **options):
    return GPT.from_pretrained(name, cache_dir=tmp_path / "cache", progress=False, **options)


def left_behind(tmp_path):
    """Unfinished downloads, and files of weights."""
    names = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    return [name for name in names if name.endswith((".incomplete", ".safetensors")) or len(name) == 64]


# ---------------------------------------------------------------- what comes


def test_a_model_comes_with_config_weights_and_tokenizer_and_is_asked_for_once(server, tmp_path):
    model = load(tmp_path)
    ids = ids_of(2, 7)
    np.testing.assert_allclose(model(ids).numpy(force=True), model_of(SMALL)(ids).numpy(force=True), atol=1e-5)
    assert model.config == SMALL and not model.training
    assert load_pretrained_tokenizer(NAME, cache_dir=tmp_path / "cache").vocab_size == 260
    assert server.gets("model.safetensors") == [None]
    before = len(server.requests)
    load(tmp_path, revision=COMMIT)
    assert len(server.requests) == before  # a commit that is there is not even asked about


def test_the_revision_of_a_branch_is_reported_and_all_files_are_of_it(server, tmp_path, capfd):
    server.repos[NAME].refs = ("main", "v1")
    folder = pretrained_folder(NAME, cache_dir=tmp_path / "cache", revision="v1")
    assert folder.name == COMMIT and sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ]
    assert f"{NAME}: v1 is revision {COMMIT}" in capfd.readouterr().err


def test_a_tokenizer_needs_no_weights(server, tmp_path):
    load_pretrained_tokenizer(NAME, cache_dir=tmp_path / "cache", progress=False)
    assert not server.gets("model.safetensors")
    del server.repos[NAME].files["vocab.json"]
    with pytest.raises(ModelUnavailable, match=r"someone/tiny-gpt has no vocab\.json"):
        load_pretrained_tokenizer(NAME, cache_dir=tmp_path / "other", progress=False)


def test_short_names_are_pinned_and_their_checksums_are_asked_for(server, tmp_path, monkeypatch):
    assert list(KNOWN) == ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"]
    for known in KNOWN.values():
        assert re.fullmatch(r"[0-9a-f]{40}", known.revision) and re.fullmatch(r"[0-9a-f]{64}", known.sha256)
        server.repos[known.repo] = Repo(server.repos[NAME].files, commit=known.revision)
    with pytest.raises(ModelUnavailable, match=rf"wrong checksum.* instead of {KNOWN['gpt2'].sha256}"):
        load(tmp_path, "gpt2")
    right = hashlib.sha256(server.repos[NAME].files["model.safetensors"]).hexdigest()
    monkeypatch.setitem(KNOWN, "gpt2", KNOWN["gpt2"]._replace(sha256=right))
    assert load(tmp_path, "gpt2").config == SMALL
    assert load(tmp_path, "openai-community/gpt2").config == SMALL
    assert pretrained_folder("gpt2", cache_dir=tmp_path / "cache").name == KNOWN["gpt2"].revision


def test_several_files_of_weights(server, tmp_path):
    split(server.repos[NAME].files)
    model, ids = load(tmp_path), ids_of(2, 7)
    np.testing.assert_allclose(model(ids).numpy(force=True), model_of(SMALL)(ids).numpy(force=True), atol=1e-5)
    assert server.gets("model-1.safetensors") == server.gets("model-2.safetensors") == [None]
    before = len(server.requests)
    assert load(tmp_path, revision=COMMIT).config == load(tmp_path, offline=True).config == SMALL
    assert len(server.requests) == before


def split(files):
    """Puts the weights into two files and the list that tells them apart."""
    import safetensors.numpy as safetensors

    tensors = safetensors.load(files.pop("model.safetensors"))
    parts = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for i, name in enumerate(sorted(tensors)):
        parts[f"model-{1 + i % 2}.safetensors"][name] = tensors[name]
    files |= {file: safetensors.save(part) for file, part in parts.items()}
    listed = {name: file for file, part in parts.items() for name in part}
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": listed}).encode()


# ---------------------------------------------------------------- what goes wrong


def test_a_cut_connection_is_taken_up_where_it_broke_off(server, tmp_path):
    """What huggingface_hub writes it writes 10 MiB at a time, so that much is the step of taking up."""
    large = replace(SMALL, n_embd=512)
    save_pretrained(model_of(large), tmp_path / "large")
    server.repos[NAME].files |= {path.name: path.read_bytes() for path in (tmp_path / "large").iterdir()}
    step = constants.DOWNLOAD_CHUNK_SIZE
    server.cuts["model.safetensors"] = [step + 1000, step + 500]
    assert load(tmp_path).config == large
    assert server.gets("model.safetensors") == [None, f"bytes={step}-", f"bytes={2 * step}-"]


def test_a_wrong_checksum_is_refused_the_file_removed_and_the_next_call_downloads_anew(server, tmp_path):
    right = server.repos[NAME].files["model.safetensors"]
    server.wrong["model.safetensors"] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors of someone/tiny-gpt came with the wrong checksum"):
        load(tmp_path)
    assert not left_behind(tmp_path)
    server.wrong.clear()
    assert load(tmp_path).config == SMALL


def test_small_files_are_compared_with_gits_name_of_them(server, tmp_path):
    right = server.repos[NAME].files["merges.txt"]
    server.wrong["merges.txt"] = right[::-1]
    with pytest.raises(ModelUnavailable, match=r"merges\.txt of someone/tiny-gpt came with the wrong checksum"):
        load(tmp_path)
    assert not server.gets("model.safetensors")


def test_an_interrupt_during_the_check_leaves_nothing_unchecked(server, tmp_path, monkeypatch):
    def interrupted(path, git=False):
        if not git:
            raise KeyboardInterrupt
        return checksum(path, git)

    monkeypatch.setattr(hub, "CHECK_BELOW", 100)  # the weights here are few
    checksum, checked = hub.checksum, []
    monkeypatch.setattr(hub, "checksum", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
    monkeypatch.setattr(hub, "checksum", lambda path, git=False: checked.append(git) or checksum(path, git))
    load(tmp_path)
    assert checked.count(False) == 1  # made up for, and the file did not come twice
    assert server.gets("model.safetensors") == [None]
    load(tmp_path)
    assert checked.count(False) == 1  # and not once more


@pytest.mark.parametrize(
    "name, revision, expected",
    [
        ("someone/else", None, "there is no model someone/else on the hub .*spelling.*gpt2-medium"),
        (NAME, "v9", "someone/tiny-gpt has no revision 'v9'"),
        ("gpt-2", None, "there is no model 'gpt-2'. Known are gpt2, gpt2-medium"),
        ("someone/a--b", None, "there is no model 'someone/a--b'.*no name that the hub allows"),
    ],
)
def test_unknown_names_and_revisions_are_explained(server, tmp_path, name, revision, expected):
    with pytest.raises(ModelUnavailable, match=expected):
        load(tmp_path, name, revision=revision)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_what_to_do(server, tmp_path, file):
    del server.repos[NAME].files[file]
    with pytest.raises(ModelUnavailable, match=rf"someone/tiny-gpt has no {file} .*sprints/09_train_gpt2/model"):
        load(tmp_path)
    if file == "config.json":
        assert not server.gets("model.safetensors")


def test_pickles_are_refused_with_the_reason(server, tmp_path, files):
    stored = server.repos[NAME].files
    stored["pytorch_model.bin"] = stored.pop("model.safetensors")
    with pytest.raises(ValueError, match=r"only pytorch_model\.bin.* runs whatever code"):
        load(tmp_path)
    assert not server.gets("pytorch_model.bin")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"folder has no model\.safetensors, only weights\.pt.* runs whatever code"):
        load_pretrained(folder)


def test_another_architecture_is_told_before_its_weights_are_fetched(server, tmp_path):
    settings = json.loads(server.repos[NAME].files["config.json"])
    server.repos[NAME].files["config.json"] = json.dumps(settings | {"model_type": "llama"}).encode()
    with pytest.raises(ValueError, match="not the config of a GPT-2"):
        load(tmp_path)
    assert not server.gets("model.safetensors")


def test_offline_takes_what_is_there_and_explains_what_is_not(server, tmp_path, monkeypatch):
    with pytest.raises(ModelUnavailable, match=r"config\.json of someone/tiny-gpt is not in .*offline mode is on"):
        load(tmp_path, offline=True)
    assert not server.requests
    load(tmp_path)
    before = len(server.requests)
    assert load(tmp_path, offline=True).config == SMALL
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load(tmp_path).config == SMALL
    with pytest.raises(ModelUnavailable, match="offline mode is on"):
        load(tmp_path, "someone/else", offline=False)
    assert len(server.requests) == before


def test_without_a_network_what_is_there_serves_and_the_rest_is_explained(server, tmp_path, monkeypatch):
    load(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert load(tmp_path).config == SMALL
    with pytest.raises(ModelUnavailable, match=r"the hub cannot be reached: connect to a network.*09_train_gpt2"):
        load(tmp_path, "someone/else")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors of someone/tiny-gpt is not in .*cannot be reached"):
        load(tmp_path, revision=COMMIT)


def test_a_full_disk_is_told_as_such_and_nothing_is_left(server, tmp_path, monkeypatch):
    def http_get(url, file, **options):
        if "safetensors" not in url:
            return original(url, file, **options)
        file.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    original = file_download.http_get
    monkeypatch.setattr(file_download, "http_get", http_get)
    with pytest.raises(ModelUnavailable, match=r"the disk of .*cache is full, model\.safetensors of .* does not fit"):
        load(tmp_path)
    assert not left_behind(tmp_path)
    assert "model.safetensors.index.json" not in [file for _, file, _ in server.requests]


def test_folders_that_do_not_exist_are_not_looked_for_on_the_hub(server, tmp_path):
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c", "~/no such folder"):
        with pytest.raises(FileNotFoundError, match="there is no folder with a model"):
            load(tmp_path, name)
    assert not server.requests


@pytest.mark.parametrize("listed", [{}, {"weight_map": {}}, {"weight_map": {"wte.weight": "../x.safetensors"}}])
def test_a_damaged_list_of_files_is_an_error(tmp_path, files, listed):
    (tmp_path / "config.json").write_bytes(files["config.json"])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match=r"index\.json is damaged"):
        load_pretrained(tmp_path)


def test_tensors_that_the_list_has_elsewhere_are_named(tmp_path, files):
    stored = dict(files)
    split(stored)
    listed = json.loads(stored["model.safetensors.index.json"])
    listed["weight_map"]["transformer.ln_f.bias"] = "model-1.safetensors"
    listed["weight_map"]["transformer.ln_f.weight"] = "model-1.safetensors"
    stored["model.safetensors.index.json"] = json.dumps(listed).encode()
    for name, content in stored.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RuntimeError, match=r"model-2\.safetensors has transformer\.ln_f\.\w+, which"):
        load_pretrained(tmp_path)


def test_the_whole_way_in_a_process_of_its_own(server, tmp_path):
    """As a user has it: HF_ENDPOINT and HF_HOME in the environment, then once more with HF_HUB_OFFLINE."""
    script = f"import shared.models as m; print(m.GPT.from_pretrained({NAME!r}).num_parameters())"
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    run = {"capture_output": True, "text": True, "cwd": tmp_path}
    for offline in ("0", "1"):
        done = subprocess.run([sys.executable, "-c", script], env=env | {"HF_HUB_OFFLINE": offline}, **run)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) == model_of(SMALL).num_parameters()
    assert server.gets("model.safetensors") == [None]
    assert (tmp_path / "home" / "hub").is_dir()


def test_a_subclass_loads_as_itself(tmp_path):
    class Mine(GPT):
        pass

    model_of(replace(SMALL, tie_weights=False)).save_pretrained(tmp_path)
    assert type(Mine.from_pretrained(tmp_path)) is Mine
    assert shared.models.GPT.from_pretrained(str(tmp_path)).config.tie_weights is False

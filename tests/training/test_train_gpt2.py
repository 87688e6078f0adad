"""Sprint 09's train_gpt2.py: whose training a folder has, and errors that are one sentence."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "sprints" / "09_train_gpt2" / "results" / "train_gpt2.py"
SETTINGS = {"text": "mine.txt", "tokenizer": "char", "model": {"block_size": 8}}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("sprint_09_train_gpt2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run_of(script, folder: Path, text: str):
    """A run on a file with this text, in a folder of its own."""
    source = folder / "mine.txt"
    source.write_text(text, encoding="utf-8")
    return script.Run("cpu-tiny", SETTINGS | {"text": str(source)}, True, folder / "run")


def test_a_training_on_another_text_is_refused_and_tokens_without_a_training_are_made_anew(script, tmp_path):
    first, second = "a rose is a rose. " * 20, "a rose was a rose. " * 30
    train, val, _ = script.tokens(run_of(script, tmp_path, first), 1000)
    assert len(train) + len(val) == len(first)
    (tmp_path / "run" / "history.jsonl").touch()  # a training was begun
    assert len(script.tokens(run_of(script, tmp_path, first), 1000)[0]) == len(train)
    with pytest.raises(ValueError, match="take another --folder"):
        script.tokens(run_of(script, tmp_path, second), 1000)
    (tmp_path / "run" / "history.jsonl").unlink()
    (tmp_path / "run" / "step-00000001").mkdir()  # a checkpoint, though its log is gone
    with pytest.raises(ValueError, match="take another --folder"):
        script.tokens(run_of(script, tmp_path, second), 1000)
    (tmp_path / "run" / "step-00000001").rmdir()
    train, val, _ = script.tokens(run_of(script, tmp_path, second), 1000)
    assert len(train) + len(val) == len(second)


@pytest.mark.parametrize("text", ["", "too short"])
def test_a_text_without_a_window_is_refused_and_leaves_nothing(script, tmp_path, text):
    with pytest.raises(ValueError, match=r"empty|longer text"):
        script.tokens(run_of(script, tmp_path, text), 1000)
    assert not (tmp_path / "run").exists()


def test_notes_of_a_folder_that_were_cut_off(script, tmp_path):
    text = "a rose is a rose. " * 20
    script.tokens(run_of(script, tmp_path, text), 1000)
    note = tmp_path / "run" / "text.json"
    whole = note.read_text()
    note.write_text(whole[:20])
    script.tokens(run_of(script, tmp_path, text), 1000)
    assert note.read_text() == whole
    note.write_text(whole[:20])
    (tmp_path / "run" / "history.jsonl").touch()
    with pytest.raises(ValueError, match="a text that it does not name"):
        script.tokens(run_of(script, tmp_path, text), 1000)


def test_a_text_without_lines_has_samples_that_go_on_from_its_first_character(script, tmp_path):
    for text, expected in (("a rose is a rose. " * 20, "a"), ("a rose\nis a rose.\n" * 20, "\n")):
        folder = tmp_path / f"begins with {expected!r}"
        folder.mkdir()
        tokens, _, tokenizer = script.tokens(run_of(script, folder, text), 1000)
        assert script.prompt_for(tokenizer, None, tokens) == expected
        assert script.prompt_for(tokenizer, "is", tokens) == "is"
        with pytest.raises(ValueError, match="--prompt: .*'Z'"):
            script.prompt_for(tokenizer, "Zoo", tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "mnist"], "the data set mnist has no text to train on, it is of the kind 'images'"),
        (["--text", "babi"], "the data set babi has no text to train on"),
        (["--text", "nowhere.txt"], "there is no file 'nowhere.txt'; and as a data set: no dataset is called"),
        (["--text", str(SCRIPT.parent)], "there is no file '"),
        (["--device", "tpu"], "--device: Expected a device like 'cpu'"),
        (["--steps", "0"], "steps should be an int of at least 1, but got 0"),
        (["--prompt", ""], "prompt should be a string with something in it"),
        (["--folder", str(SCRIPT)], "is a file, but a checkpoint is a folder"),
    ],
    ids=lambda value: " ".join(value).rpartition("/")[2] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_sentence(script, tmp_path, monkeypatch, options, message):
    folder = [] if "--folder" in options else ["--folder", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train_gpt2.py", *folder, *options])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert str(ended.value).startswith("train_gpt2.py: ") and message in str(ended.value)
    assert not (tmp_path / "run").exists()


def test_a_training_whose_log_is_gone_or_whose_checkpoint_is_damaged(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("a rose is a rose.\n" * 60, encoding="utf-8")
    options = ["--text", str(tmp_path / "mine.txt"), "--folder", str(tmp_path / "run"), "--sample", "3"]

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["train_gpt2.py", "--device", "cpu", *options, *more])
        script.main()
        return capsys.readouterr().out

    assert "nats per token" in run("--steps", "1")
    (tmp_path / "run" / "history.jsonl").unlink()
    with pytest.raises(SystemExit, match="there is a training in"):
        run("--steps", "1")
    assert "training loss           not in the log" in run("--steps", "1", "--resume")
    weights = tmp_path / "run" / "step-00000001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=r"train_gpt2.py: .*model.safetensors is truncated"):
        run("--steps", "1", "--resume")

"""Sprint 09's train_gpt2.py goes on with a folder's training on the same text and tokenizer only."""

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
    (tmp_path / "run" / "vocabulary.json").unlink()
    train, val, _ = script.tokens(run_of(script, tmp_path, second), 1000)
    assert len(train) + len(val) == len(second)


@pytest.mark.parametrize("text", ["", "too short"])
def test_a_text_without_a_window_is_refused_and_leaves_nothing(script, tmp_path, text):
    with pytest.raises(ValueError, match=r"empty|longer text"):
        script.tokens(run_of(script, tmp_path, text), 1000)
    assert not (tmp_path / "run").exists()

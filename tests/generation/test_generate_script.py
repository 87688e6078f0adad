"""Sprint 10's generate.py: what its options mean, what it refuses; and the drafts that it can use."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.models import GPT, GPTConfig, save_pretrained
from shared.text import CharVocabulary

RESULTS = Path(__file__).resolve().parents[2] / "sprints" / "10_pretrained_and_generation" / "results"


@pytest.fixture(scope="module")
def scripts():
    """The modules generate and drafts, which import their neighbours by bare names."""
    before = set(sys.modules)
    sys.path.insert(0, str(RESULTS))
    try:
        loaded = {}
        for name in ("drafts", "generate"):
            spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded
    finally:
        sys.path.remove(str(RESULTS))
        for name in ("drafts", "generate", "kept"):
            if name not in before:
                sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model of four characters with its tokenizer."""
    shared.manual_seed(0)
    place = tmp_path_factory.mktemp("model")
    model = GPT(GPTConfig(vocab_size=4, block_size=16, n_layer=1, n_head=2, n_embd=16, dropout=0.0))
    with shared.no_grad():
        model.token_embedding.weight.mul_(10.0)  # so that it prefers some characters
    save_pretrained(model, place, CharVocabulary.from_text("abc\n"))
    return str(place)


def written(scripts, capsys, *options: str) -> str:
    scripts["generate"].write(scripts["generate"].arguments(list(options)))
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--strategy", "greedy", "--top-k", "3"], "--top-k has no effect with --strategy greedy"),
        (["--strategy", "top-k", "--top-p", "0.5"], "it belongs to nucleus"),
        (["--temperature", "0"], "--strategy greedy is its limit"),
        (["--number", "0"], "--number: expected at least 1"),
        (["--strategy", "beam", "--number", "9"], "raise --beams"),
        (["--strategy", "beam", "--stream"], "--stream does not go with --strategy beam"),
        (["--strategy", "greedy", "--number", "2"], "greedy writes the same text"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_in_a_sentence(scripts, capsys, options, message):
    with pytest.raises(SystemExit):
        scripts["generate"].arguments(options)
    assert message in capsys.readouterr().err


def test_the_same_seed_writes_the_same_texts_and_a_stream_is_no_other_text(scripts, folder, capsys):
    options = ["--model", folder, "--prompt", "ab", "--max-new-tokens", "30", "--seed", "5"]
    once = written(scripts, capsys, *options)
    assert once == written(scripts, capsys, *options) == written(scripts, capsys, *options, "--stream")
    assert len(once) == len("ab") + 30 + 1
    assert once != written(scripts, capsys, *options[:-1], "6")


def test_beams_are_listed_with_their_scores_best_first(scripts, folder, capsys):
    options = ["--model", folder, "--prompt", "a", "--strategy", "beam", "--number", "3", "--max-new-tokens", "6"]
    out = written(scripts, capsys, *options)
    scores = [float(line.split("score ")[1].split(",")[0]) for line in out.splitlines() if line.startswith("---")]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_a_draft_changes_no_greedy_text_and_tells_how_it_went(scripts, folder, capsys):
    options = ["--model", folder, "--prompt", "ab", "--strategy", "greedy", "--max-new-tokens", "25"]
    alone = written(scripts, capsys, *options)
    scripts["generate"].write(scripts["generate"].arguments([*options, "--draft", folder]))
    captured = capsys.readouterr()
    assert captured.out == alone
    assert "100% of the proposals accepted" in captured.err  # the draft is the model itself


def test_a_draft_of_shakespeare_is_refused_for_another_model(scripts, folder):
    arguments = scripts["generate"].arguments(["--model", folder, "--prompt", "ab", "--draft", "ngrams"])
    with pytest.raises(ValueError, match="give a draft with the model's vocabulary"):
        scripts["generate"].write(arguments)


def test_a_model_that_is_not_there_is_an_error_without_a_traceback():
    command = [sys.executable, str(RESULTS / "generate.py"), "--model", "no/such/folder"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parents[2], timeout=300)
    assert run.returncode == 1
    assert "generate.py:" in run.stderr and "Traceback" not in run.stderr


def test_counted_ngrams_are_distributions_and_know_what_came_next(scripts):
    ids = np.array([0, 1, 2] * 20)
    table = scripts["drafts"].NGrams(ids, vocab_size=4, order=3, strength=1.0)
    for text in ([], [0], [3, 3], [0, 1], [3, 0, 1, 2, 0]):
        p = table.probabilities(text)
        assert p.shape == (4,) and p.min() > 0 and abs(p.sum() - 1) < 1e-12
    assert table.probabilities([0, 1]).argmax() == 2
    assert table.bits([0, 1], [2, 0]).max() < 0.2 < 2 < table.bits([0, 1], [3]).min()


def test_an_enlarged_model_has_the_same_logits(scripts):
    shared.manual_seed(0)
    model = GPT(GPTConfig.preset("toy")).eval()
    large = scripts["drafts"].enlarged(model, wider=3, blocks=5)
    ids = shared.randint(0, 65, (2, 20))
    with shared.no_grad():
        assert (large(ids) - model(ids)).abs().max().item() < 1e-4
    assert large.num_parameters() > 15 * model.num_parameters()

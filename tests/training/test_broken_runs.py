"""Sprint 09's broken runs: a right diagnosis is confirmed by experiment, a wrong one is not, and nothing gives it away."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

RESULTS = Path(__file__).resolve().parents[2] / "sprints" / "09_train_gpt2" / "results"


@pytest.fixture(scope="module")
def broken_runs():
    spec = importlib.util.spec_from_file_location("sprint_09_broken_runs", RESULTS / "broken_runs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("letter", "AE")
def test_the_right_suspect_gives_the_stored_curve(broken_runs, letter):
    verdict = broken_runs.check(letter, broken_runs.culprits()[letter])
    assert verdict.same, f"run {letter} and its own suspect are {verdict.distance:.3f} nats apart"


def test_a_wrong_suspect_does_not(broken_runs):
    wrong = broken_runs.culprits()["A"]
    verdict = broken_runs.check("E", wrong)
    assert not verdict.same
    assert "something else" in str(verdict)


def test_the_five_are_further_apart_from_each_other_than_two_runs_that_count_as_one(broken_runs):
    runs = list(broken_runs.stored().values())
    gaps = [broken_runs.distance(a, b) for i, a in enumerate(runs) for b in runs[:i]]
    assert len(gaps) == 10
    assert min(gaps) > 3 * broken_runs.TOLERANCE
    metrics = json.loads((RESULTS / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["broken_nearest_pair"]["value"] > 2 * broken_runs.TOLERANCE  # of all suspects


def test_what_is_stored_has_curves_under_letters_and_names_no_suspect(broken_runs):
    text = broken_runs.STORED.read_text(encoding="utf-8")
    assert not any(suspect in text for suspect in broken_runs.SUSPECTS)
    assert list(json.loads(text)["runs"]) == list("ABCDE")
    for run in broken_runs.stored().values():
        assert run.train.shape == run.norm.shape == (broken_runs.STEPS,)
        assert np.isfinite(run.val).all()


def test_a_suspect_that_is_not_on_the_list_is_an_error_that_names_the_others(broken_runs):
    with pytest.raises(ValueError, match="there is no suspect 'gremlins'; there are targets_not_shifted"):
        broken_runs.check("A", "gremlins")

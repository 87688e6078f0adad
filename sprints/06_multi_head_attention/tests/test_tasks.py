"""Sprint 06's milestones on tasks that need attention: trained in a second, judged by bounds measured over seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from course.oracles import doing, require

# What is asked for, and what the reference did over the seeds 0 to 9, after 80 and 120 batches:
REVERSES = 0.95  # the part of symbols that attention has at the right place: at least 0.9997
GUESSES = 0.5  # and the other three models, whose chance is 0.1: at most 0.104, 0.272 and 0.251
ANSWERS = 0.9  # the part of bAbI's questions of task 1 that attention answers: at least 0.975
MISSES = 0.7  # and the other three models, whose chance is 1/6: at most 0.476, 0.408 and 0.471
OTHERS = ("feed-forward", "mean", "convolution")


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    """results/tasks.py: the models, the tasks and their training."""
    path = Path(__file__).parents[1] / "results" / "tasks.py"
    spec = importlib.util.spec_from_file_location("sprint_06_tasks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_attention_learns_to_reverse_what_a_model_without_it_cannot(tasks, record_property):
    with doing("training a model with attention to write sequences backwards"):
        found = tasks.train_reversal("attention", steps=80).accuracy
    record_property("attention_accuracy", found)
    require(
        found > REVERSES,
        f"after 80 batches attention puts {found:.1%} of the symbols in their places, and more than {REVERSES:.0%} is "
        "asked for: the token at place i has to look at place 11 − i, whatever stands there",
    )
    for kind in OTHERS:
        without = tasks.train_reversal(kind, steps=80).accuracy
        record_property(f"{kind}_accuracy", without)
        require(
            without < GUESSES,
            f"the model without attention ({kind}) puts {without:.1%} of the symbols in their places, and less than "
            f"{GUESSES:.0%} is expected: it cannot know what stands at the other end",
        )


def test_attention_answers_where_somebody_is(tasks, record_property):
    data = tasks.stories(1)
    with doing("training a model with attention on bAbI's task 1"):
        found = tasks.train_babi(data, "attention", steps=120).accuracy
    record_property("attention_accuracy", found)
    require(
        found > ANSWERS,
        f"after 120 batches attention answers {found:.1%} of the questions where somebody is, and more than "
        f"{ANSWERS:.0%} is asked for: it has to find the last sentence about the person asked for",
    )
    for kind in OTHERS:
        without = tasks.train_babi(data, kind, steps=120).accuracy
        record_property(f"{kind}_accuracy", without)
        require(
            without < MISSES,
            f"the model without attention ({kind}) answers {without:.1%}, and less than {MISSES:.0%} is expected",
        )

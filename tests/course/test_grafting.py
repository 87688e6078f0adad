"""Classic bugs grafted into an imported framework die as those do that are imported with it."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from course import mutants, stage, warm
from course.grafting import Graft, imported_function
from course.sprints import load_sprints

SOURCE = '''\
import contextlib
import functools

calls = []


def wrapped(function):
    @functools.wraps(function)
    def outer(*args):
        calls.append(function.__name__)
        return function(*args)

    return outer


def replaced(function):
    return len


class Box:
    def __init__(self, x):
        self.x = x

    def plain(self):
        """Doc."""
        return self.x + 1

    @staticmethod
    def fixed(x):
        return x + 1

    @classmethod
    def made(cls, x):
        return cls(x + 1)

    @property
    def seen(self):
        return self.x + 1

    def parent(self):
        return super().__repr__() + " + 1"


@wrapped
def decorated(x, more=1):
    return x + 1


@replaced
def gone(x):
    return x + 1


@contextlib.contextmanager
def opened(x):
    yield x + 1


def free(x, more=1):
    return x + 1
'''


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that prepares the graft of one function of SOURCE out of a changed text."""
    (tmp_path / "here.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("grafted_here", tmp_path / "here.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "grafted_here", module)
    spec.loader.exec_module(module)

    def prepare(name: str, text: str):
        (tmp_path / "there.py").write_text(text)
        return module, Graft("grafted_here", name, str(tmp_path / "there.py")).prepared()

    return prepare


def changed(definition: str, old: str = "+ 1", new: str = "+ 2") -> str:
    head, found, tail = SOURCE.partition(f"def {definition}(")
    assert found and old in tail
    return head + found + tail.replace(old, new, 1)


@pytest.mark.parametrize(
    "name, use, expected",
    [
        ("free", lambda m: m.free(1), 3),
        ("decorated", lambda m: m.decorated(1), 3),
        ("opened", lambda m: m.opened(1).__enter__(), 3),
        ("Box.plain", lambda m: m.Box(1).plain(), 3),
        ("Box.fixed", lambda m: m.Box.fixed(1), 3),
        ("Box.made", lambda m: m.Box.made(1).x, 3),
        ("Box.seen", lambda m: m.Box(1).seen, 3),
        ("Box.parent", lambda m: m.Box(1).parent()[-1], "2"),
    ],
)
def test_the_changed_code_runs_wherever_the_function_is_reached_from(graft, name, use, expected):
    module, prepared = graft(name, changed(name.rpartition(".")[2]))
    assert prepared is not None
    function, code = prepared
    assert function is imported_function("grafted_here", name)
    assert use(module) != expected, "the process that forks keeps the right code"
    function.__code__ = code
    assert use(module) == expected
    assert code.co_filename.endswith("there.py"), "a traceback shows the changed line"


@pytest.mark.parametrize(
    "name, text",
    [
        ("free", changed("free", "more=1", "more=2")),
        ("free", changed("free", "x, more=1", "x, other=1")),
        ("Box.plain", changed("plain", "Doc.", "Other.")),
        ("decorated", changed("decorated").replace("@wrapped\ndef decorated", "@functools.cache\ndef decorated")),
        ("free", changed("free") + "\ncalls.append(1)\n"),
        ("free", changed("free").replace("calls = []", "calls = [1]")),
        ("free", SOURCE.replace("+ 1", "+ 2")),
        ("gone", changed("gone")),
        ("Box.plain", changed("plain", "return self.x + 1", "return super().__repr__()")),
        ("nowhere", SOURCE),
    ],
    ids=["default", "argument", "docstring", "decorator", "more code", "a constant", "other functions", "replaced",
         "needs its class", "missing"],
)  # fmt: skip
def test_what_changes_more_than_one_functions_statements_is_not_grafted(graft, name, text):
    _, prepared = graft(name, text)
    assert prepared is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="grafting needs processes that fork")
def test_grafted_bugs_die_of_the_same_tests_with_the_same_messages_as_imported_ones():
    chosen = [mutant for sprint in load_sprints()[:4:3] for mutant in mutants.load(sprint)[::15]]
    assert len(chosen) > 5

    def fates(grafted: bool):
        found = mutants.run(chosen, min(2, os.cpu_count() or 1), grafted=grafted)
        assert all(fate.grafted is grafted for fate in found)
        text = [[re.sub(r"course-mutants-\w+|0x[0-9a-f]+", "", message) for message in fate.messages] for fate in found]
        return [(f.mutant.name, f.failed, f.killers, t) for f, t in zip(found, text, strict=True)]

    expected = fates(grafted=False)
    assert all(killers for _, _, killers, _ in expected)
    assert fates(grafted=True) == expected


# ---------------------------------------------------------------- one process for many bugs


def one(x):
    return 1


def other(x):
    return 1


class Changed:
    """A graft that is ready: `function` returns `number` in its place."""

    def __init__(self, function, number):
        self.function, self.code = function, eval(f"lambda x: {number}").__code__

    def prepared(self):
        return self.function, self.code


@pytest.fixture
def staged(tmp_path, monkeypatch):
    """A function that runs a stage on jobs, {key: graft}; a test writes down what both functions return."""
    monkeypatch.delenv("SHARED_WORKSPACE", raising=False)  # and puts it back behind the test
    told = tmp_path / "told"

    def run(jobs, processes=1, tell=lambda job: None, tests=("a::test", "b::test")):
        def protocol(item, nextitem):
            with told.open("a") as file:
                print(item.nodeid, one(0), other(0), config.option.until, file=file)
            config.stash[stage.SETTING].told = item.nodeid == "a::test" and config.option.until == "a"

        hook = SimpleNamespace(pytest_runtest_protocol=protocol)
        config = SimpleNamespace(stash={}, option=SimpleNamespace(), getoption=lambda name: 10.0, hook=hook)
        items = [SimpleNamespace(nodeid=node) for node in tests]
        session = SimpleNamespace(testsfailed=0, items=items, config=config)
        made = []
        for key, graft in jobs.items():
            variables = {"SHARED_WORKSPACE": str(tmp_path / key)}
            made.append(SimpleNamespace(key=key, tests=tests, graft=graft, variables=variables, limit=20, until=key))
        plugin = stage.Stage(made, tmp_path / "taken", processes, lambda job, found, seconds: tell(job))
        try:
            plugin.pytest_runtestloop(session)
        finally:
            gc.unfreeze()
        return told.read_text().splitlines(), json.loads((tmp_path / "taken").read_text())

    return run


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a stage needs processes that fork")


@needs_fork
def test_bugs_that_share_a_process_meet_the_right_code_of_all_functions_but_their_own(staged):
    lines, taken = staged({"a": Changed(one, 2), "b": Changed(other, 3), "c": Changed(one, 4)})
    assert lines == ["a::test 2 1 a", *("a::test 1 3 b", "b::test 1 3 b"), *("a::test 4 1 c", "b::test 4 1 c")]
    assert taken == ["a", "b", "c"] and (one(0), other(0)) == (1, 1)


@needs_fork
def test_what_cannot_be_grafted_is_left_to_others(staged):
    lines, taken = staged({"a": Changed(one, 2), "b": SimpleNamespace(prepared=lambda: None)})
    assert lines == ["a::test 2 1 a"] and taken == ["a"]


@needs_fork
def test_a_process_of_a_stage_that_ends_before_its_jobs_are_done_is_an_error(staged):
    with pytest.raises(RuntimeError, match="a process that ran tests ended with status"):
        staged({"b": Changed(one, 2), "c": Changed(other, 2)}, 2, lambda job: os._exit(7) if job.key == "c" else None)


def test_the_test_that_killed_a_bug_before_comes_first(monkeypatch):
    sprint = load_sprints()[0]
    chosen = [m for m in mutants.load(sprint) if len(mutants.tests_of(sprint, m.exercise)) > 1][:2]
    tests = [mutants.tests_of(sprint, m.exercise) for m in chosen]
    last = {m.name: {"killed_by": [of[-1].rpartition("::")[2] + "[case]"]} for m, of in zip(chosen, tests, strict=True)}
    monkeypatch.setattr(mutants, "board", lambda sprint: last)
    seen = []

    def run(jobs, processes):
        seen.append([job.tests for job in jobs])
        for job in jobs:
            yield warm.Result(job.key, {job.tests[0]: {"outcome": "passed", "message": ""}}, 0, 0.0, "")

    monkeypatch.setattr(warm, "run", run)
    mutants.run(chosen)
    mutants.run(chosen, anew=True)
    assert seen == [[(of[-1], *of[:-1]) for of in tests], tests]

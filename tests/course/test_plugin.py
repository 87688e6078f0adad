"""The pytest plugin: whose code is tested, and how a learner's broken code is told without hiding other results."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from course import isolation, preflight, testing
from course.sprints import ROOT
from course.workspace import Workspace

NOT_REACHED = {
    "wrong": "return x + 2",
    "stub": "stub",
    "loop": "while True:\n    x += 1",
    "leaves": "raise SystemExit(0)",
    "exits": "import os\nprint('from exits', flush=True)\nos._exit(0)",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "interrupts": "raise KeyboardInterrupt('mine')",
    "deep": "return deep(x)",
    "asks": "return int(input('x? '))",
    "hoards": "import numpy, os\nnumpy.empty(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') * 6 // 80)",
    "chatters": "print('a' * 10_000_000)\nreturn x",
    "halts": "breakpoint()\nreturn x + 1",
}


class Run:
    """What one run of pytest printed, taken apart."""

    def __init__(self, done) -> None:
        self.code, self.output = done.returncode, done.stdout + done.stderr
        self.outcomes = dict(re.findall(r"::test_(\w+) (\w+)", self.output))
        parts = re.split(r"(?m)^_+ (?:ERROR at setup of )?test_(\w+) _+$", self.output)
        self.failures = dict(zip(parts[1::2], parts[2::2], strict=True))

    @property
    def header(self) -> str:
        return "\n".join(
            line for line in self.output.splitlines() if line.startswith(("framework:", "your ", "course:"))
        )


def pytest_of(practice, *options: str, paths: tuple[str, ...] = ("sprints/01_practice",), **variables: str) -> Run:
    return Run(practice.run("pytest", "-v", "-rs", "-p", "no:cacheprovider", *paths, *options, **variables))


# ---------------------------------------------------------------- a learner's functions


@pytest.fixture(scope="module")
def damaged(practice, tmp_path_factory) -> tuple[Run, Path]:
    """One run on a workspace in which functions go wrong in every way at once."""
    folder = practice.workspace(tmp_path_factory.mktemp("damaged") / "my workspace", NOT_REACHED)
    return pytest_of(practice, f"--workspace={folder}", "--time-limit=3"), folder


def test_whatever_a_function_does_the_other_tests_are_run_and_told(damaged) -> None:
    run, _ = damaged
    expected = {**dict.fromkeys(("right", "after", "second", "third", "fourth"), "PASSED"), "skipped": "SKIPPED"}
    assert run.outcomes == expected | dict.fromkeys(NOT_REACHED, "FAILED"), run.output
    assert f"{len(NOT_REACHED)} failed, 5 passed, 1 skipped" in run.output and run.code == 1
    assert "not here" in run.output, "the reason of a skipped test"


@pytest.mark.parametrize(
    "name, message",
    [
        ("wrong", "AssertionError: one more is expected"),
        ("stub", "NotImplementedError: Sprint 01, exercise 3: Write stub; not written yet. Read sprints/01_practice/notes/01_stub.md"),
        ("loop", "it did not end within 3 s: an endless loop? It was in `loop`"),
        ("leaves", "SystemExit: 0"),
        ("exits", "it ended its process with exit code 0"),
        ("crashes", "it ended its process with signal SIGSEGV"),
        ("interrupts", "KeyboardInterrupt: mine"),
        ("deep", "RecursionError: maximum recursion depth exceeded"),
        ("asks", "reading from stdin while output is captured"),
        ("hoards", "MemoryError: Unable to allocate"),
        ("chatters", "AssertionError: one more is expected"),
        ("halts", "RuntimeError: a debugger needs the terminal and time: run pytest with --time-limit 0"),
    ],
)  # fmt: skip
def test_each_failure_says_what_happened_in_which_exercise_and_what_to_read(damaged, name: str, message: str) -> None:
    run, folder = damaged
    if name == "hoards" and Path("/dev/nvidiactl").exists():
        pytest.skip("memory is not limited where there is a GPU")
    text = run.failures[name]
    busy = " Or a slow one: the machine is busy, so try once more when it is not."
    assert message in text.replace(busy, "")
    section = text.partition("Where to look")[2]
    number = {"wrong": 2, "stub": 3, "loop": 4, "leaves": 5, "exits": 6, "crashes": 8, "interrupts": 9, "deep": 10, "asks": 11, "hoards": 12, "chatters": 13, "halts": 14}  # fmt: skip
    line = (folder / "shared" / "practice.py").read_text().splitlines().index(f"def {name}(x):") + 1
    assert f"Sprint 01, exercise {number[name]}, Write {name} ({folder}/shared/practice.py:{line})" in section
    assert f"read sprints/01_practice/notes/01_{name}.md; a hint: course hint 01 {number[name]}" in section
    blamed = "The error passed through your" in section
    assert blamed == (name not in ("wrong", "exits", "chatters")), "where the error's way is known, it is told"


def test_a_loop_and_a_crash_are_located(damaged) -> None:
    run, folder = damaged
    assert re.search(
        rf"It was in `loop`, {folder}/shared/practice.py:\d+: `(while True:|x \+= 1)`", run.failures["loop"]
    )
    assert f"It was in `crashes`, {folder}/shared/practice.py" in run.failures["crashes"]


def test_what_a_dying_test_printed_is_its_own(damaged) -> None:
    run, _ = damaged
    assert "from exits" in run.failures["exits"]
    assert run.output.count("from exits") == 1


def test_what_a_loop_prints_is_cut(damaged) -> None:
    run, _ = damaged
    assert "\n[…]\n" in run.failures["chatters"] and len(run.failures["chatters"]) < 20_000


def test_the_header_names_the_modules(damaged) -> None:
    run, _ = damaged
    expected = (
        "framework: yours: fourth (1 of 1 functions written), practice (13 of 14 functions written), second (1 of 1"
    )
    assert run.header.startswith(expected) and run.header.endswith("everything else: reference")


# ---------------------------------------------------------------- a learner's files


@pytest.fixture(scope="module")
def unusable(practice, tmp_path_factory) -> tuple[Run, Path]:
    """One run on a workspace with a syntax error, a lost name and an import that fails."""
    good = "\n\ndef {0}(x):\n    return x + 1\n"
    folder = tmp_path_factory.mktemp("unusable") / "linked"
    folder.symlink_to(tmp_path_factory.mktemp("elsewhere"), target_is_directory=True)
    practice.workspace(
        folder,
        second="def second(x)\n    return x + 1\n",
        third="def another(x):\n    return x + 1\n",
        fourth="import nowhere_to_be_found" + good.format("fourth"),
    )
    return pytest_of(practice, f"--workspace={folder}"), folder


def test_files_that_cannot_be_used_fail_their_own_tests_only(unusable) -> None:
    run, folder = unusable
    assert {name for name, outcome in run.outcomes.items() if outcome != "PASSED"} == {
        *"second third fourth skipped".split()
    }
    assert run.outcomes["second"] == run.outcomes["third"] == run.outcomes["fourth"] == "ERROR"
    shared = f"{folder}/shared"
    for name, number, reason in (
        ("second", 15, f"{shared}/second.py, line 1: expected ':': `def second(x)`"),
        ("third", 16, f"{shared}/third.py: `third` is gone (deleted or renamed?), and other code calls it."),
        (
            "fourth",
            17,
            f"{shared}/fourth.py, line 1: importing it ended with ModuleNotFoundError: No module named 'nowhere",
        ),
    ):
        assert f"Sprint 01, exercise {number}, Write {name}: {reason}" in run.failures[name]
        assert f"read sprints/01_practice/notes/01_{name}.md; a hint: course hint 01 {number}" in run.failures[name]
        assert f"your {name} cannot be used, the reference stands in for it: {reason}" in run.header
    assert "yours: practice (14 of 14 functions written); everything else: reference" in run.header


@pytest.mark.parametrize(
    "text, said",
    [
        ("while True:\n    pass\n", r"line [12]: importing it did not end within 3 s: an endless loop\?"),
        ("print('x' * 100)\nimport os\nos._exit(0)\n", r"second.py: importing it ended the process with exit code 0"),
        ("raise SystemExit(0)\n", r"line 1: importing it ended with SystemExit: 0"),
        ("import ctypes\nctypes.string_at(0)\n", r"line 2: importing it ended the process with signal SIGSEGV"),
        ("x = input('your name? ')\n", r"line 1: importing it ended with EOFError"),
        ("print(second(1) / 0)\n", r"line 4: importing it ended with ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt\n", r"line 1: importing it ended with KeyboardInterrupt"),
        ("import shared.mine\n", r"mine.py, line 2: importing it ended with SyntaxError: expected ':'"),
        ("from shared.third import nothing\n", r"third.py: .*ImportError: cannot import name 'nothing' from 'shared.third'"),
    ],
    ids=["loop", "os._exit", "sys.exit", "crash", "input", "error", "interrupt", "own module", "name"],
)  # fmt: skip
def test_what_happens_at_import_is_told_and_the_rest_goes_on(
    practice, tmp_path: Path, monkeypatch, text: str, said: str
) -> None:
    function = "def second(x):\n    return x + 1\n"
    text = f"{function}\n{text}" if "second(" in text else f"{text}\n{function}"
    folder = practice.workspace(tmp_path / "workspace", second=text)
    (folder / "shared" / "mine.py").write_text("x = 1\ndef mine(x)\n    return x\n")
    workspace = Workspace(folder, practice.root)
    found = preflight.static_problems(workspace)
    assert found == [], "nothing to be seen without running it"
    monkeypatch.setattr(preflight, "ROOT", practice.root)  # whose shared/ has these modules
    found = preflight.problems(workspace, 3)
    assert re.search(said, found[0].text), found
    assert len(found) <= 2


def test_prints_and_warnings_at_import_are_no_problem(practice, tmp_path: Path) -> None:
    text = "print('hello', flush=True)\npattern = '\\d'\n\ndef second(x):\n    return x + 1\n"
    folder = practice.workspace(tmp_path / "workspace", second=text)
    run = pytest_of(practice, f"--workspace={folder}", "-k", "second or third")
    assert run.outcomes == {"second": "PASSED", "third": "PASSED"}, run.output


def test_a_deleted_file_does_not_pass_by_the_reference(practice, tmp_path: Path) -> None:
    folder = practice.workspace(tmp_path / "workspace")
    (folder / "shared" / "second.py").unlink()
    run = pytest_of(practice, f"--workspace={folder}", "-k", "second or third")
    assert run.outcomes["third"] == "PASSED" and run.outcomes["second"] == "ERROR"
    assert "second.py is gone" in run.failures["second"] and "course hint 01 15" in run.failures["second"]


# ---------------------------------------------------------------- whose code


@pytest.fixture(scope="module")
def standing(practice):
    """workspace/ in the clone's root, where `right` is wrong, so that one sees whose code is tested."""
    folder = practice.root / "workspace"
    practice.workspace(folder, {"right": "return x + 5"})
    return practice


@pytest.mark.parametrize(
    "arguments, own",
    [
        (["sprints/01_practice/tests/test_milestone.py::test_right"], True),
        (["sprints"], True),
        (["sprints/01_a", "sprints/02_b/tests"], True),
        (["sprints/01_a", "tests"], False),
        (["."], False),
        ([], False),
    ],
)
def test_the_learners_code_is_tested_where_only_sprints_are_asked_for(arguments: list[str], own: bool) -> None:
    invocation = SimpleNamespace(dir=ROOT)
    assert testing._only_sprints(SimpleNamespace(invocation_params=invocation, args=arguments)) == own  # type: ignore[arg-type]
    inside = SimpleNamespace(invocation_params=SimpleNamespace(dir=ROOT / "sprints" / "01_a"), args=["tests"])
    assert testing._only_sprints(inside)  # type: ignore[arg-type]


ONLY = ("-k", "test_right or test_elsewhere")


@pytest.mark.parametrize(
    "arguments, variable, fails",
    [
        (("sprints/01_practice",), None, True),
        (("sprints/01_practice", "--reference"), "workspace", False),
        (("sprints/01_practice", "--workspace=stubs"), "workspace", True),
        ((), None, False),
        ((), "workspace", True),
    ],
)
def test_whose_code_is_tested(standing, arguments: tuple[str, ...], variable: str | None, fails: bool) -> None:
    (standing.root / "tests").mkdir(exist_ok=True)
    (standing.root / "tests" / "test_elsewhere.py").write_text("def test_elsewhere():\n    pass\n")
    variables = {"SHARED_WORKSPACE": str(standing.root / variable)} if variable else {}
    run = pytest_of(standing, "--no-preflight", *ONLY, paths=arguments, **variables)
    assert (run.outcomes["right"] == "FAILED") == fails, run.output
    assert run.header.startswith("framework: the reference" if not fails else "framework: yours: "), run.header
    if arguments and arguments[-1] == "--workspace=stubs":
        assert "Sprint 01, exercise 1: Write right; not written yet" in run.failures["right"]
    if not fails:
        assert run.header.endswith("(`pytest sprints/NN_*` tests yours)")


@pytest.mark.parametrize(
    "options, variable, message",
    [
        (("--workspace=nowhere",), None, "--workspace nowhere: there is no folder"),
        ((), "nowhere", "SHARED_WORKSPACE=nowhere names no folder: unset it"),
    ],
)
def test_a_workspace_that_is_not_there_is_one_clear_error(standing, options, variable, message: str) -> None:
    run = pytest_of(standing, *options, **({"SHARED_WORKSPACE": variable} if variable else {}))
    assert run.code == 4 and message in run.output and "Traceback" not in run.output


def test_a_record_of_a_newer_course_is_one_clear_error(practice, tmp_path: Path) -> None:
    folder = practice.workspace(tmp_path / "workspace")
    (folder / "workspace.json").write_text('{"version": 99}')
    run = pytest_of(practice, f"--workspace={folder}")
    assert run.code == 4 and "was written by a newer version of the course" in run.output
    assert "Traceback" not in run.output


def test_without_a_limit_tests_run_in_pytests_own_process_for_a_debugger(practice, tmp_path: Path) -> None:
    folder = practice.workspace(
        tmp_path / "workspace", {"second": "import os\nreturn x + 1 + (os.getpid() != int(os.environ['PID_OF_TEST']))"}
    )
    (practice.root / "sprints" / "conftest.py").write_text("import os\nos.environ['PID_OF_TEST'] = str(os.getpid())\n")
    try:
        run = pytest_of(practice, f"--workspace={folder}", "--no-preflight", "-k", "second", "--time-limit=0")
        assert run.outcomes == {"second": "PASSED"}, run.output
    finally:
        (practice.root / "sprints" / "conftest.py").unlink()


# ---------------------------------------------------------------- where processes cannot fork


def test_without_fork_a_loop_is_interrupted_and_other_tests_go_on(practice, tmp_path: Path) -> None:
    bodies = {"loop": NOT_REACHED["loop"], "wrong": NOT_REACHED["wrong"]}
    folder = practice.workspace(tmp_path / "workspace", bodies)
    (practice.root / "no_fork.py").write_text("import os\ndel os.fork\n")
    run = pytest_of(practice, f"--workspace={folder}", "--no-preflight", "--time-limit=2", "-p", "no_fork",
                "-k", "loop or wrong or right or after")  # fmt: skip
    assert run.outcomes == {"loop": "FAILED", "wrong": "FAILED", "right": "PASSED", "after": "PASSED"}, run.output
    assert "it did not end within 2 s: an endless loop?" in run.failures["loop"]
    assert "The error passed through your\nSprint 01, exercise 4, Write loop" in run.failures["loop"]


def test_after_two_loops_the_next_tests_have_less_time(practice, tmp_path: Path) -> None:
    folder = practice.workspace(tmp_path / "workspace", dict.fromkeys(("right", "wrong", "loop"), "while x:\n    pass"))
    run = pytest_of(practice, f"--workspace={folder}", "--no-preflight", "--time-limit=0.8", "-k", "right or wrong or loop")  # fmt: skip
    assert run.outcomes == {"right": "FAILED", "wrong": "FAILED", "loop": "FAILED"}
    seconds = [re.search(r"did not end within (\S+) s", run.failures[name])[1] for name in ("right", "wrong", "loop")]
    assert seconds == ["0.8", "0.8", "0.2"]


def test_after_a_loop_in_an_exercise_its_other_tests_have_less_time(practice, tmp_path: Path) -> None:
    bodies = {"loop": "while x:\n    pass", "second": "import time\ntime.sleep(0.4)\nreturn x + 1"}
    folder = practice.workspace(tmp_path / "workspace", bodies)
    tests = practice.folder / "tests" / "test_milestone.py"
    text = tests.read_text()
    four = '@pytest.mark.parametrize("number", range(4))\ndef test_loop(number):'
    assert "def test_loop():" in text
    tests.write_text(text.replace("def test_loop():", four))
    try:
        options = (f"--workspace={folder}", "--no-preflight", "--time-limit=1")
        run = pytest_of(practice, *options, "-k", "loop or right")
        only = pytest_of(practice, *options, "-k", "right or loop or after or second", "--until-late")
    finally:
        tests.write_text(text)
    assert re.findall(r"did not end within (\S+) s", run.output)[:4] == ["1", "0.25", "0.1", "0.1"]
    assert run.outcomes["right"] == "PASSED" and "4 failed, 1 passed" in run.output
    assert "1 failed, 1 passed" in only.output and "a test did not end in time" in only.output


@pytest.mark.parametrize(
    "late, loops, judges, seconds",
    [
        (0, set(), {"a"}, 10),
        (1, {"a"}, {"b"}, 10),
        (1, {"a"}, {"a", "b"}, 2.5),
        (1, set(), set(), 10),
        (2, {"a"}, {"b"}, 2.5),
        (2, set(), {"a"}, 2.5),
        (2, {"a"}, {"a"}, 1),
    ],
)
def test_patience_is_shortest_with_tests_of_an_exercise_that_has_looped(late, loops, judges, seconds) -> None:
    assert testing.Setting(limit=10, late=late, loops=loops).patience(judges) == seconds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_asked_where_it_is_ends_with_that(practice, tmp_path: Path) -> None:
    folder = practice.workspace(tmp_path / "workspace", {"loop": NOT_REACHED["loop"]})
    (practice.root / "patient.py").write_text("from course import isolation\nisolation.GRACE = 60\n")
    started = time.monotonic()
    run = pytest_of(practice, f"--workspace={folder}", "--no-preflight", "--time-limit=0.5", "-p", "patient", "-k", "test_loop")  # fmt: skip
    assert "It was in `loop`" in run.failures["loop"]
    assert time.monotonic() - started < 50, "it was waited for"


def test_the_alarm_leaves_the_handler_as_it_found_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(isolation.TimeLimit, match="within 0.05 s"):
        with isolation._alarm(0.05):
            while True:
                pass
    with isolation._alarm(5):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("used", "status"), [(0.3, 0), (0.0, None), (0.5, None)], ids=["computes", "waits", "spent"])
def test_a_test_that_computes_beside_other_work_is_given_more_time(used, status, monkeypatch) -> None:
    monkeypatch.setattr(isolation, "_cpu_seconds", lambda process: used)
    monkeypatch.setattr(isolation, "GRACE", 0.1)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        time.sleep(0.8 if status == 0 else 60)
        os._exit(0)
    assert isolation._wait(child, time.monotonic(), 0.5) == status


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_test_that_others_keep_from_the_processor_is_given_more_time(monkeypatch) -> None:
    monkeypatch.setattr(isolation, "_cpu_seconds", lambda process: 0.0)
    monkeypatch.setattr(isolation, "GRACE", 0.1)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            pass
        os._exit(0)
    assert isolation._wait(child, time.monotonic(), 0.5) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_time_in_which_the_machine_stood_still_does_not_count(monkeypatch) -> None:
    """Then neither the test's process nor the one that waits for it has run."""
    sleep, still = time.sleep, iter([1.5])
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        began = time.process_time()
        while time.process_time() < began + 0.02:
            pass
        os._exit(0)
    os.kill(child, signal.SIGSTOP)

    def stood_still(seconds: float) -> None:
        sleep(seconds + next(still, 0.0))
        os.kill(child, signal.SIGCONT)

    monkeypatch.setattr(isolation, "GRACE", 0.1)
    monkeypatch.setattr(time, "sleep", stood_still)
    assert isolation._wait(child, time.monotonic(), 0.5) == 0


@pytest.mark.parametrize(("seconds", "busy"), [(2.4, False), (7.0, True)])
def test_a_test_that_was_given_more_time_in_vain_may_be_slow_and_no_endless_loop(seconds, busy, request) -> None:
    text = isolation._died(request.node, None, 2, seconds, "").longrepr
    assert "within 2 s: an endless loop?" in text and ("the machine is busy" in text) == busy


# ---------------------------------------------------------------- what is not written yet


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["sprints/01_setup_and_basics"], {1}),
        (
            ["sprints/01_setup_and_basics/tests/test_milestone.py::test_x", "sprints/03_models_and_training_loops"],
            {1, 3},
        ),
        (["sprints"], {1, 2, 3}),
        (["."], {1, 2, 3}),
        (["tests"], set()),
    ],
)
def test_the_sprints_whose_stubs_count_are_those_asked_for(arguments: list[str], expected: set[int]) -> None:
    config = SimpleNamespace(invocation_params=SimpleNamespace(dir=ROOT), args=arguments)
    found = testing._sprints_tested(config)
    assert found & {1, 2, 3} == expected


def test_an_error_is_followed_to_where_it_began() -> None:
    def inner() -> None:
        raise NameError("inner")

    def outer() -> None:
        try:
            inner()
        except NameError:
            raise ValueError("outer") from None

    with pytest.raises(ValueError) as caught:
        outer()
    lines = [line for file, line in testing._frames(caught.value) if file == __file__]
    assert lines[-1] == inner.__code__.co_firstlineno + 1

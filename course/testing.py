"""The pytest plugin of the course: whose code is tested, and what a failure of the learner's code says.

Plain `pytest sprints/07_*` tests the learner's modules where they have begun (`workspace/`), everything else tests the
reference. Under a workspace every test of a sprint runs in a process of its own with a time limit, so that an endless
loop or a crash is one failed test among others.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import traceback
from collections.abc import Generator
from pathlib import Path

import pytest

from . import isolation, sources
from .preflight import IMPORT_SECONDS, Problem, problems
from .sprints import ROOT, CourseError, Exercise, Sprint, find_folder, load_sprint, load_sprints
from .workspace import STUB, WRITTEN, Workspace

VARIABLE, EXCEPTIONS = "SHARED_WORKSPACE", "SHARED_REFERENCE"  # as in shared.overlay, which must not be imported yet
LIMIT = 10.0


Span = tuple[Path, range, Exercise]  # a file, lines in it that hold a function, and the exercise it belongs to


@dataclasses.dataclass
class Setting:
    """What this run of pytest tests; `workspace` is None where it is the reference."""

    workspace: Workspace | None = None
    broken: dict[str, Problem] = dataclasses.field(default_factory=dict)
    exercises: list[Exercise] = dataclasses.field(default_factory=list)
    spans: list[Span] = dataclasses.field(default_factory=list)  # of these exercises, as they were imported
    limit: float = LIMIT
    late: int = 0  # tests that did not end in time
    loops: set[str] = dataclasses.field(default_factory=set)  # exercises, by key, in which a late test was seen
    told: bool = False  # a failure said what --until waits for

    def patience(self, judges: set[str]) -> float:
        """Seconds for the next test, which judges these exercises; less after a loop, so that one in the engine's heart
        does not take minutes: at first for tests of the exercise it was seen in, after two loops for every test."""
        again = bool(judges & self.loops)
        return self.limit / (10 if again and self.late >= 2 else 4 if again or self.late >= 2 else 1)


SETTING = pytest.StashKey[Setting]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the course."""
    group = parser.getgroup("course", "Sprint to GPT")
    group.addoption("--reference", action="store_true", help="test the reference, whatever lies in workspace/")
    group.addoption("--workspace", metavar="PATH", help="test the learner's modules in PATH (default: workspace/)")
    text = f"seconds that a sprint's test may take on a learner's code (default: {LIMIT:g}; 0: any, for a debugger)"
    group.addoption("--time-limit", metavar="S", type=float, default=LIMIT, help=text)
    text = "do not look for broken files in the workspace first"
    group.addoption("--no-preflight", action="store_true", help=text)
    text = "end with the first sprint's test that does not end in time"
    group.addoption("--until-late", action="store_true", help=text)
    group.addoption("--until", metavar="TEXT", help="end with the first failure of a sprint's test that says TEXT")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Decide whose code is tested, before anything imports `shared`."""
    setting = config.stash[SETTING] = Setting(limit=config.getoption("--time-limit"))
    folder = _chosen(config)
    if folder is None:
        os.environ.pop(VARIABLE, None)
        return
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "short"  # the framework's own lines are many, the learner's few
    try:
        workspace = setting.workspace = Workspace(folder)
        setting.exercises = [e for sprint in load_sprints() for e in sprint.exercises if workspace.started(e)]
        setting.spans = _spans(workspace, setting.exercises)
    except CourseError as error:
        raise pytest.UsageError(str(error)) from None
    os.environ[VARIABLE] = str(workspace.folder)
    if not config.getoption("--no-preflight"):
        seconds = min(IMPORT_SECONDS, 3 * setting.limit) or IMPORT_SECONDS
        setting.broken = {problem.module: problem for problem in problems(workspace, seconds)}
    tested = _sprints_tested(config)
    others = [exercise for exercise in setting.exercises if exercise.sprint not in tested]
    take_from_reference([*setting.broken, *unwritten(workspace, others)])


def adopt(config: pytest.Config, folder: Path, until: str = "") -> None:
    """Go on as a run of pytest on the workspace `folder`, what it changes being in place, that ends with a failure
    which says `until`."""
    os.environ[VARIABLE] = str(folder)
    workspace = Workspace(folder)
    sprints = load_sprints() if workspace.record["exercises"] else []
    begun = [exercise for sprint in sprints for exercise in sprint.exercises if workspace.started(exercise)]
    spans, limit = _spans(workspace, begun), config.getoption("--time-limit")
    config.stash[SETTING] = Setting(workspace, exercises=begun, spans=spans, limit=limit)
    config.option.until = until or None


def _chosen(config: pytest.Config) -> Path | None:
    """The workspace to test, or None for the reference."""
    if config.getoption("--reference"):
        return None
    if named := config.getoption("--workspace"):
        folder = (config.invocation_params.dir / named).absolute()
        if not (folder / "shared").is_dir():
            raise pytest.UsageError(
                f"--workspace {named}: there is no folder {folder / 'shared'}. `course start` makes one."
            )
        return folder
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise pytest.UsageError(
                f"{VARIABLE}={named} names no folder: unset it, or start a sprint, course start 01."
            )
        return Path(named).absolute()
    default = ROOT / "workspace"
    return default if _only_sprints(config) and (default / "shared").is_dir() else None


def _sprints_tested(config: pytest.Config) -> set[int]:
    """Numbers of the sprints whose tests were asked for: all of them where more was."""
    paths = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    found = {path.relative_to(ROOT / "sprints").parts[:1] for path in paths if path.is_relative_to(ROOT / "sprints")}
    everything = any(path == ROOT / "sprints" or (ROOT / "sprints").is_relative_to(path) for path in paths)
    numbers = {sprint.number: sprint.folder.name for sprint in load_sprints()}
    return {number for number, name in numbers.items() if everything or (name,) in found}


def unwritten(workspace: Workspace, exercises: list[Exercise]) -> list[str]:
    """The functions of these exercises that are still stubs."""
    return [part.target for exercise in exercises for part in workspace.parts(exercise) if part.state == STUB]


def take_from_reference(names: list[str]) -> None:
    """Have `shared` import these modules and functions from the reference, whatever the workspace holds."""
    kept = dict.fromkeys([*filter(None, os.environ.get(EXCEPTIONS, "").split(",")), *names])
    if kept:
        os.environ[EXCEPTIONS] = ",".join(kept)


def _only_sprints(config: pytest.Config) -> bool:
    paths = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return bool(paths) and all(path.is_relative_to(ROOT / "sprints") for path in paths)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Whose code is tested, per module."""
    setting = config.stash[SETTING]
    if setting.workspace is None:
        other = " (`pytest sprints/NN_*` tests yours)" if (ROOT / "workspace" / "shared").is_dir() else ""
        return [f"framework: the reference{other}"]
    return describe(setting.workspace, setting.exercises, setting.broken)


def describe(workspace: Workspace, exercises: list[Exercise], broken: dict[str, Problem]) -> list[str]:
    """Lines such as `framework: yours: autograd (1 of 2 functions written); everything else: reference`."""
    kept = os.environ.get(EXCEPTIONS, "").split(",")
    parts = [part for exercise in exercises for part in workspace.parts(exercise) if part.target not in kept]
    names, stubs = [], []
    for module in workspace.modules():
        states = [part.state for part in parts if part.module == module]
        begun = any(part.module == module for exercise in exercises for part in workspace.parts(exercise))
        if module in kept or (begun and not states):
            continue
        name, written = module.removeprefix("shared."), states.count(WRITTEN)
        if states and not written:
            stubs.append(name)
        else:
            names.append(name + (f" ({written} of {len(states)} functions written)" if states else ""))
    lines = [f"framework: yours: {', '.join(names) or 'nothing yet'}; everything else: reference"]
    if stubs:
        lines.append(f"nothing written yet in your {', '.join(stubs)}")
    replaced: dict[str, list[str]] = {}
    for exercise in exercises:
        if set(unwritten(workspace, [exercise])) & set(kept):
            replaced.setdefault(f"{exercise.sprint:02d}", []).append(str(exercise.number))
    for sprint, numbers in replaced.items():
        lines.append(f"not written yet, so the reference's: Sprint {sprint}, exercise {', '.join(numbers)}")
    for problem in broken.values():
        name = problem.module.removeprefix("shared.")
        lines.append(f"your {name} cannot be used, the reference stands in for it: {problem.text}")
    return lines + [f"course: {warning}" for warning in workspace.warnings]


# ---------------------------------------------------------------- which exercises a test judges


def _sprint_of(path: Path) -> Sprint | None:
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    return _sprint_named(parts[1]) if len(parts) > 1 and parts[0] == "sprints" else None


@functools.cache
def _sprint_named(name: str) -> Sprint | None:
    try:
        return load_sprint(find_folder(name))
    except CourseError:
        return None


def judged(item: pytest.Item) -> list[Exercise]:
    """The exercises that this test judges: those of the milestone it proves."""
    sprint = _sprint_of(item.path)
    if sprint is None:
        return []
    name = item.nodeid.partition("::")[2].partition("[")[0]
    ids = {m.id for m in sprint.milestones if m.test_name == name and m.test.startswith(item.path.name)}
    return [exercise for exercise in sprint.exercises if ids & set(exercise.milestones)]


def _advice(workspace: Workspace, exercise: Exercise) -> str:
    folder = find_folder(f"{exercise.sprint:02d}").name
    return (
        f"{exercise.label}, {exercise.title} ({', '.join(workspace.places(exercise))})\n"
        f"    read sprints/{folder}/{exercise.note}; a hint: course hint {exercise.sprint:02d} {exercise.number}"
    )


def _spans(workspace: Workspace, exercises: list[Exercise]) -> list[Span]:
    """Where the functions of these exercises stand."""
    return [
        (workspace.file(part.module), range(part.line, part.line + len(part.text.splitlines())), exercise)
        for exercise in exercises
        for part in workspace.parts(exercise)
    ]


def _blamed(spans: list[Span], frames: list[tuple[str, int]]) -> list[Exercise]:
    """Exercises whose functions the traceback passed through, innermost first; `frames` are (file, line)."""
    found = {}
    for file, line in reversed(frames):
        path = Path(file)
        found.update({one.key: one for there, lines, one in spans if line in lines and there == path})
    return list(found.values())


# ---------------------------------------------------------------- running


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail the tests of exercises whose file cannot be used, with the reason."""
    setting = item.config.stash[SETTING]
    if not setting.broken or setting.workspace is None:
        return
    for exercise in judged(item):
        problem = _unusable(setting, exercise)
        if problem and setting.workspace.started(exercise):
            pytest.fail(f"{exercise.label}, {exercise.title}: {problem.text}", pytrace=False)


def _unusable(setting: Setting, exercise: Exercise) -> Problem | None:
    """Why one of the files of an exercise cannot be used; None where they all can."""
    modules = (sources.split(target)[0] for target in exercise.targets)
    return next((setting.broken[module] for module in modules if module in setting.broken), None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a sprint's test on a learner's code apart from this process, within the time limit."""
    setting = item.config.stash[SETTING]
    if setting.workspace is None or _sprint_of(item.path) is None:
        return None
    if not setting.limit or item.config.option.usepdb or item.config.option.trace:
        return None  # a debugger needs the terminal, and time
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in isolation.run(item, nextitem, setting.patience({exercise.key for exercise in judged(item)})):
        if report.failed and not hasattr(report, "exercises"):  # it never came to writing a report of its own
            _explain(item, report, getattr(report, "frames", []))
        if hasattr(report, "late"):
            setting.late += 1
            setting.loops.update(getattr(report, "exercises", []))
            if item.config.getoption("--until-late"):
                item.session.shouldstop = "a test did not end in time"
        item.ihook.pytest_runtest_logreport(report=report)
        until = item.config.getoption("--until")
        if until and report.failed and until in report.longreprtext:
            setting.told = True
            item.session.shouldstop = f"a test said {until!r}"
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say which exercise a failure belongs to."""
    report: pytest.TestReport = yield
    if report.failed and call.excinfo is not None and _sprint_of(item.path) is not None:
        _explain(item, report, _frames(call.excinfo.value))
    return report


def _frames(error: BaseException | None) -> list[tuple[str, int]]:
    """(file, line) of the error's traceback, and behind it those of the errors it was raised for, innermost last."""
    found: list[tuple[str, int]] = []
    while error is not None:
        found += [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return found


def _explain(item: pytest.Item, report: pytest.TestReport, frames: list[tuple[str, int]]) -> None:
    """Append the section "Where to look", and the keys of the exercises it names as `report.exercises`."""
    setting = item.config.stash[SETTING]
    workspace = setting.workspace
    if workspace is None:
        return
    kept = os.environ.get(EXCEPTIONS, "").split(",")
    mine = [e for e in setting.exercises if not all(target in kept for target in e.targets)]
    spans = [span for span in setting.spans if span[2] in mine]
    blamed = _blamed(spans, frames)
    started = {exercise.key for exercise in mine}
    candidates = [exercise for exercise in judged(item) if exercise.key in started]
    candidates = [exercise for exercise in candidates if _unusable(setting, exercise)] or candidates
    if blamed:
        text = "The error passed through your\n" + "\n".join(_advice(workspace, e) for e in blamed[:2])
    elif candidates:
        one = "your" if len(candidates) == 1 else "one or more of your"
        text = f"This milestone rests on {one}\n" + "\n".join(_advice(workspace, e) for e in candidates)
    else:
        text = ""
    if text:
        report.sections.append(("Where to look", text))
    for file, line in reversed(frames):
        if _blamed(spans, [(file, line)]):  # the learner's innermost line, not a line copied around it
            report.place = f"{workspace.show(Path(file))}:{line}"  # type: ignore[attr-defined]
            break
    report.exercises = [exercise.key for exercise in blamed]  # type: ignore[attr-defined]

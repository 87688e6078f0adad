"""Judging one learner's modules, inside the disposable copy of the repository that `course grade` made for it.

`python -m course.grading.assess` reads a request from standard input and writes a line of JSON per sprint, each behind
the request's token. This process never imports `shared`: whatever runs a learner's code is a child of it, and after
each child everything that it left running is ended, and every file of the copy is compared with what it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import certify, preflight, sources, warm
from ..certify import FAILING, PASSING
from ..outcomes import FAILED, PASSED, SKIPPED
from ..sprints import ROOT, CourseError, Exercise, Sprint, find_folder, load_sprint, load_sprints
from ..workspace import BROKEN, MISSING, NOT_STARTED, STUB, VERSION, WRITTEN, Workspace
from .seal import seal

SAME, NOT_JUDGED = "same as the reference", "not judged"
ABSENT = "absent"
CODE = {".py", ".toml", ".ini", ".cfg", ".pth", ".pyc", ".nbi", ".nbc"}
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass
class Mark:
    """What is said of one exercise."""

    exercise: Exercise
    outcome: str
    message: str = ""
    seconds: float = 0.0
    remark: str = ""


# ---------------------------------------------------------------- the copy and the processes


class Copy:
    """The files of the disposable copy, held in memory: what a learner's code changed is found and put back."""

    def __init__(self, root: Path):
        self.root = root
        self.files = {path: path.read_bytes() for path in self._walk()}
        self.stamps = {path: path.stat().st_mtime_ns for path in self.files}
        self.now = dict(self.files)

    def _walk(self) -> Iterable[Path]:
        return (Path(folder) / name for folder, _, names in os.walk(self.root) for name in names)

    def put(self, files: dict[Path, bytes]) -> None:
        """Makes the copy what it was, with `files` in place of some of it."""
        wanted = {**self.files, **files}
        for path in self.now.keys() - wanted.keys():
            path.unlink(missing_ok=True)
        for path, data in wanted.items():
            if self.now.get(path) != data:
                self._write(path, data)
        self.now = wanted

    def changed(self) -> list[str]:
        """Names of the files that are not as they were put; they are put back, and whatever came in is removed."""
        names = []
        for path in list(self._walk()):
            if path not in self.now:
                path.unlink(missing_ok=True)
                if path.suffix in CODE and path.suffix not in (".nbi", ".nbc"):
                    names.append(path)
        for path, data in self.now.items():
            with contextlib.suppress(OSError):
                if not path.is_symlink() and path.read_bytes() == data:
                    continue
            names.append(path)
            self._write(path, data)
        return [path.relative_to(self.root).as_posix() for path in names if path.suffix not in (".nbi", ".nbc")]

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        path.write_bytes(data)
        if self.files.get(path) == data:
            os.utime(path, ns=(self.stamps[path], self.stamps[path]))


def adopt_orphans() -> None:
    """On Linux: processes whose parents have ended become children of this one, so that they can be found."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> None:
    """Ends every process that descends from this one."""
    import psutil

    while children := psutil.Process().children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=5)


# ---------------------------------------------------------------- one learner


class Learner:
    """One learner's modules in the copy, and what running the tests on them shows."""

    def __init__(self, request: dict[str, Any], copy: Copy):
        self.texts: dict[str, str] = request["modules"]
        self.unusable: dict[str, str] = request["unusable"]  # {module: why its file was not taken}
        for module, text in list(self.texts.items()):
            try:
                compile(text, module, "exec", dont_inherit=True)
            except (RecursionError, MemoryError):
                del self.texts[module]
                self.unusable[module] = (
                    f"{sources.module_path(module).as_posix()}: nested too deeply for Python to read"
                )
            except (SyntaxError, ValueError):
                pass  # told with its line later
        self.recorded: list[str] | None = request["recorded"]  # what workspace.json lists; None: not readable
        self.limit, self.time_limit = float(request["limit"]), float(request["time_limit"])
        self.expected: dict[str, str] = request["expected"]  # {node id: its outcome on the reference}
        self.copy = copy
        self.sprints = load_sprints()
        self.deadline = 0.0
        self.broken: list[preflight.Problem] = []
        self.parts: dict[str, dict[str, str]] = {
            exercise.key: {target: self._part(target) for target in exercise.targets}
            for sprint in self.sprints
            for exercise in sprint.exercises
        }
        folder = copy.root / "workspace"
        started = {
            e.key: {"started": "", "targets": list(e.targets)}
            for s in self.sprints
            for e in s.exercises
            if self.state(e) not in (NOT_STARTED, SAME)
        }
        record = {"version": VERSION, "exercises": started, "modules": {}}
        self.files = {folder / sources.module_path(m): text.encode() for m, text in self.texts.items()}
        self.files[folder / "workspace.json"] = json.dumps(record).encode()
        self.copy.put(self.files)
        self.workspace = Workspace(folder)

    def _part(self, target: str) -> str:
        """The state of one function, from the learner's file alone."""
        module, name = sources.split(target)
        if module in self.unusable:
            return BROKEN
        if module not in self.texts:
            return ABSENT
        try:
            found = sources.functions(self.texts[module]).get(name)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return BROKEN
        if found is None:
            return MISSING
        right = sources.functions((ROOT / sources.module_path(module)).read_text(encoding="utf-8"))[name]
        return STUB if found.stub else SAME if found.code == right.code else WRITTEN

    def state(self, exercise: Exercise) -> str:
        """The state of an exercise: not started, same as the reference, stub, written, missing or broken."""
        states = set(self.parts[exercise.key].values())
        listed = self.recorded is None or exercise.key in self.recorded
        if states == {ABSENT} or (states <= {ABSENT, SAME, BROKEN} and not listed):
            return NOT_STARTED
        return next(state for state in (BROKEN, MISSING, STUB, WRITTEN, SAME) if state in states)

    def look(self) -> None:
        """Finds the modules that cannot be used, before any test."""
        problems: list[preflight.Problem] = []
        if self.texts:
            problems = preflight.problems(self.workspace, min(preflight.IMPORT_SECONDS, self.time_limit + 5))
            end_descendants()
            self.copy.changed()
        self.broken = [preflight.Problem(module, text) for module, text in self.unusable.items()]
        self.broken += [problem for problem in problems if problem.module not in self.unusable]

    def remarks(self) -> list[str]:
        """Functions outside all exercises that the learner changed."""
        targets = {target for sprint in self.sprints for e in sprint.exercises for target in e.targets}
        found = []
        for module, text in self.texts.items():
            with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                here = sources.functions(text)
                right = sources.functions((ROOT / sources.module_path(module)).read_text(encoding="utf-8"))
                names = [name for name in right if name in here and here[name].code != right[name].code]
                found += [f"{module}.{name}" for name in names if f"{module}.{name}" not in targets]
        return found

    # ------------------------------------------------------------ running

    def run(self, job: warm.Job, files: dict[Path, bytes]) -> tuple[set[str], warm.Result | None, list[str]]:
        """(the tests that passed with a seal, everything else, changed files) of one run on the learner's code."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return set(), None, []
        self.copy.put({**self.files, **files})
        key = secrets.token_hex(16)
        job = dataclasses.replace(
            job,
            variables={**job.variables, "COURSE_SEAL": key},
            options=(*job.options, "-p", "course.grading.seal"),
            limit=min(job.limit, left),
        )
        one = warm.Run(job)
        while not one.ended():
            time.sleep(0.005)
        try:
            result = one.result()
            entries = {str(node): entry for node, entry in result.tests.items() if isinstance(entry, dict)}
        except (ValueError, TypeError, AttributeError, OSError):
            result, entries = warm.Result(job.key, {}, one.exit_code, 0.0, ""), {}
        end_descendants()
        sealed = {
            node
            for node, entry in entries.items()
            if entry.get("outcome") == PASSED and dict(entry.get("measured") or {}).get("seal") == seal(key, node)
        }
        return sealed, dataclasses.replace(result, tests=entries), self.copy.changed()

    def nodes(self, tests: Iterable[str]) -> list[str]:
        """The node ids, parametrised ones one by one, that pass on the reference, of the tests named."""
        names = set(tests)
        return [n for n, outcome in self.expected.items() if outcome == PASSED and n.partition("[")[0] in names]

    def judge(self, sprint: Sprint, exercise: Exercise) -> Mark:
        """One exercise among the reference's versions of all the others."""
        parts = self.parts[exercise.key]
        state = self.state(exercise)
        same = sum(part == SAME for part in parts.values())
        if state == NOT_STARTED:
            return Mark(exercise, NOT_STARTED)
        if state == SAME:
            why = (
                ""
                if self.recorded is not None
                else "; there is no readable workspace.json to tell whether it was begun"
            )
            return Mark(exercise, SAME, f"nothing here differs from the reference but for comments and layout{why}")
        if state == STUB:
            written = sum(part == WRITTEN for part in parts.values())
            return Mark(exercise, STUB, f"{written} of {len(parts)} functions written" if len(parts) > 1 else "")
        problem = next((p for p in self.broken if p.module in {sources.split(t)[0] for t in parts}), None)
        if problem or state in (BROKEN, MISSING):
            gone = ", ".join(target for target, part in parts.items() if part == MISSING)
            return Mark(exercise, FAILING, problem.text if problem else f"no definition of {gone} in the file")
        expected = self.nodes(certify.tests_of(sprint, exercise))
        if not expected:
            return Mark(exercise, NOT_JUDGED, "none of its tests passes on the reference on this machine")
        job = certify.isolated(sprint, exercise, self.workspace, self.broken, self.time_limit)
        sealed, result, changed = self.run(job, self.without_solution([exercise]))
        mark = self.mark(sprint, exercise, expected, sealed, result, changed)
        if same:
            mark.remark = f"{same} of {len(parts)} functions are the reference's"
        return mark

    def mark(
        self,
        sprint: Sprint,
        exercise: Exercise,
        expected: list[str],
        sealed: set[str],
        result: warm.Result | None,
        changed: list[str],
    ) -> Mark:
        """The verdict that a run amounts to."""
        if result is None:
            return Mark(exercise, NOT_JUDGED, f"the {self.limit:g} s for this sprint were used up")
        if changed:
            files = ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")
            return Mark(
                exercise, FAILING, f"while this code ran, files of the course were changed: {files}", result.seconds
            )
        names = {f"sprints/{sprint.folder.name}/tests/{m.test}": m.id for m in sprint.milestones}
        for node in expected:
            if node in sealed:
                continue
            entry = result.tests.get(node, {})
            if entry.get("outcome") == FAILED:
                text = str(entry.get("message", "")).removeprefix("Failed: ")
            elif entry.get("outcome") == SKIPPED:
                text = "this code had its test skipped"
            elif entry:
                text = "the report of this test was not written by the tests"
            elif result.exit_code is None:
                text = f"its tests were ended after {result.seconds:.0f} s"
            else:
                text = f"the process ended (exit code {result.exit_code}) before this test had reported"
                text += "".join(f": {line}" for line in result.output.strip().splitlines()[-1:])
            return Mark(exercise, FAILING, f"{names[node.partition('[')[0]]}: {text}", result.seconds)
        return Mark(exercise, PASSING, "", result.seconds)

    def without_solution(self, exercises: Iterable[Exercise]) -> dict[Path, bytes]:
        """The reference's modules with the bodies that are being judged blanked: no code can borrow them."""
        names: dict[str, dict[str, tuple[str, str]]] = {}
        for exercise in exercises:
            for target, part in self.parts[exercise.key].items():
                if part == WRITTEN:
                    module, name = sources.split(target)
                    names.setdefault(module, {})[name] = (f"{exercise.label}: ", "taken out while it is judged")
        paths = {module: self.copy.root / sources.module_path(module) for module in names}
        # From the text in memory: the file on disk may be without another exercise's bodies still.
        return {path: _blanked(self.copy.files[path], tuple(names[module].items())) for module, path in paths.items()}

    def canary(self, sprint: Sprint, marks: list[Mark]) -> None:
        """With the functions of the passing exercises taken out again their tests must fail: else something answers."""
        passing = [mark for mark in marks if mark.outcome == PASSING]
        if not passing:
            return
        files: dict[Path, bytes] = {}
        for mark in passing:
            for target, part in self.parts[mark.exercise.key].items():
                module, name = sources.split(target)
                path = self.workspace.file(module)
                if part != ABSENT:
                    text = (files.get(path) or self.files[path]).decode()
                    files[path] = self.workspace.with_stub(text, module, name, mark.exercise, sprint).encode()
        job = self.job("canary", sprint, [test for mark in passing for test in certify.tests_of(sprint, mark.exercise)])
        keys = {mark.exercise.key for mark in passing}
        others = [t for key, parts in self.parts.items() if key not in keys for t, p in parts.items() if p != ABSENT]
        kept = ",".join([*others, *(problem.module for problem in self.broken)])
        job.variables["SHARED_REFERENCE"] = kept
        job = dataclasses.replace(job, options=(*job.options, "--tb=native"))  # nobody reads these tracebacks
        sealed, _, _ = self.run(job, {**self.without_solution([mark.exercise for mark in passing]), **files})
        for mark in passing:
            if answered := sealed & set(self.nodes(certify.tests_of(sprint, mark.exercise))):
                test = sorted(answered)[0].partition("::")[2]
                mark.outcome = FAILING
                mark.message = (
                    f"{test} passes even with this exercise's functions taken out: something else answers for them"
                )

    def job(self, key: str, sprint: Sprint, tests: Iterable[str]) -> warm.Job:
        """A run of some of a sprint's tests on the learner's framework as a whole."""
        tests = tuple(dict.fromkeys(tests))
        variables = {
            "SHARED_WORKSPACE": str(self.workspace.folder),
            "SHARED_REFERENCE": ",".join(problem.module for problem in self.broken),
        }
        limit = (self.time_limit + 5) * len(tests) + 30
        return warm.Job(key, tests, variables, (f"--time-limit={self.time_limit:g}",), limit)

    def milestones(self, sprint: Sprint, marks: list[Mark]) -> list[str]:
        """Ids of the milestones reached on the framework as a whole, all of whose exercises the learner has solved."""
        right = {mark.exercise.id for mark in marks if mark.outcome == PASSING}
        tried = []
        for milestone in sprint.milestones:
            resting = {e.id for e in sprint.exercises if milestone.id in e.milestones}
            if resting and resting <= right:
                tried.append((milestone.id, f"sprints/{sprint.folder.name}/tests/{milestone.test}"))
        if not tried:
            return []
        solved = [mark.exercise for mark in marks if mark.outcome == PASSING]
        job = self.job("whole", sprint, [test for _, test in tried])
        sealed, result, changed = self.run(job, self.without_solution(solved))
        if result is None or changed:
            return []
        return [id for id, test in tried if (nodes := self.nodes([test])) and sealed.issuperset(nodes)]

    def sprint(self, label: str) -> dict[str, Any]:
        """Everything about one sprint."""
        self.deadline = time.monotonic() + self.limit
        started = time.monotonic()
        sprint = load_sprint(find_folder(label))
        marks = [self.judge(sprint, exercise) for exercise in sprint.exercises]
        self.canary(sprint, marks)
        reached = self.milestones(sprint, marks)
        return {
            "sprint": label,
            "reached": reached,
            "seconds": round(time.monotonic() - started, 3),
            "marks": [
                {"key": m.exercise.key, **{k: getattr(m, k) for k in ("outcome", "message", "seconds", "remark")}}
                for m in marks
            ],
        }


@functools.lru_cache(maxsize=64)
def _blanked(text: bytes, stubs: tuple[tuple[str, tuple[str, str]], ...]) -> bytes:
    return sources.blanked(text.decode(), dict(stubs)).encode()


def reference(label: str, limit: float) -> dict[str, Any]:
    """{node id: outcome} and messages of a sprint's milestone tests on the reference."""
    sprint = load_sprint(find_folder(label))
    tests = [f"sprints/{sprint.folder.name}/tests/{milestone.test}" for milestone in sprint.milestones]
    key = secrets.token_hex(16)
    options = ("--reference", "-p", "course.grading.seal")
    one = warm.Run(warm.Job(label, tuple(tests), {"COURSE_SEAL": key}, options, limit))
    while not one.ended():
        time.sleep(0.01)
    result = one.result()
    if not result.tests:
        raise CourseError(f"the tests of sprint {label} could not be run on the reference:\n{result.output[-2000:]}")
    found = {}
    for node, entry in result.tests.items():
        outcome = entry["outcome"]
        if outcome == PASSED and entry["measured"].get("seal") != seal(key, node):
            outcome = FAILED
        found[node] = {"outcome": outcome, "message": entry["message"]}
    return {"sprint": label, "expected": found, "seconds": result.seconds}


def preload() -> None:
    """Imports once what every run of pytest imports; none of it is the learner's."""
    for name in warm.PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would touch, and so copy, every page of what was loaded here


def main() -> None:
    """Serve one request."""
    request = json.load(sys.stdin)
    token, sys.stdin = request["token"], open(os.devnull)
    adopt_orphans()

    def send(answer: dict[str, Any]) -> None:
        print(token, json.dumps(answer), flush=True)

    copy = Copy(ROOT)
    try:
        if request.get("reference"):
            preload()
            for label in request["sprints"]:
                send(reference(label, float(request["limit"])))
            return
        learner = Learner(request, copy)
        learner.look()
        if any(WRITTEN in parts.values() for parts in learner.parts.values()):
            preload()
        send({"remarks": learner.remarks()})
        for label in request["sprints"]:
            send(learner.sprint(label))
    finally:
        end_descendants()


if __name__ == "__main__":
    main()

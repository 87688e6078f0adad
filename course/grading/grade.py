"""`course grade`: fresh milestone tests on each learner's workspace, in a copy and a process of its own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import sources
from ..outcomes import PASSED, SKIPPED
from ..sprints import ROOT, CourseError, Exercise, Sprint, find_folder, load_sprint, load_sprints
from . import gradebook
from .assess import NOT_JUDGED
from .submissions import Submission, collect

OVERHEAD = 120.0  # seconds a learner's process may take beside its sprints: to start, to look for broken files
PATTERNS = (
    "conftest.py",
    "pyproject.toml",
    "course/**/*",
    "shared/**/*",
    "datasets/**/*",
    "sprints/*/sprint.toml",
    "sprints/*/notes/*.md",
    "sprints/*/tests/**/*",
)
KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "CUDA_VISIBLE_DEVICES",
    "OPENBLAS_CORETYPE",
)
UNDER_WAY: set[subprocess.Popen[bytes]] = set()
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class Row:
    """One learner and exercise; `exercise` is None where the learner could not be graded at all."""

    learner: str
    sprint: str
    exercise: Exercise | None
    outcome: str
    message: str = ""
    seconds: float = 0.0
    remark: str = ""


@dataclass
class Grade:
    """One learner: rows, milestones reached {sprint: ids}, what else was changed; `suspect`: try again alone."""

    name: str
    rows: list[Row] = field(default_factory=list)
    reached: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    suspect: bool = False


# ---------------------------------------------------------------- the copy


class Snapshot:
    """What of the repository grading needs, held in memory before any learner's code runs."""

    def __init__(self, root: Path = ROOT):
        self.root = root
        self.files: dict[str, tuple[bytes, int]] = {}
        for pattern in PATTERNS:
            for path in root.glob(pattern):
                if self._wanted(path):
                    name = path.relative_to(root).as_posix()
                    self.files[name] = (path.read_bytes(), path.stat().st_mtime_ns)
        self.compiled: dict[str, tuple[bytes, int]] = {}

    def _wanted(self, path: Path) -> bool:
        parts = path.relative_to(self.root).parts
        if path.is_symlink() or not path.is_file() or parts[:2] == ("datasets", "cache"):
            return False
        return "__pycache__" not in parts or path.suffix in (".nbi", ".nbc")  # Numba's, which take long to make

    def changed(self) -> list[str]:
        """Names of the repository's own files that are no longer as they were."""
        names = []
        for name, (data, _) in self.files.items():
            path = self.root / name
            with contextlib.suppress(OSError):
                if "__pycache__" in name or path.read_bytes() == data:
                    continue
            names.append(name)
        return names

    def write(self, folder: Path) -> None:
        """Makes the copy."""
        for name, (data, stamp) in {**self.files, **self.compiled}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, ns=(stamp, stamp))

    def compile(self) -> None:
        """Adds Python's compiled modules, so that not every process of every learner compiles them anew."""
        with tempfile.TemporaryDirectory(prefix="grade-") as name:
            folder = Path(name).resolve()
            self.write(folder)
            options = ["-q", "--invalidation-mode", "checked-hash", "course", "shared", "conftest.py"]
            subprocess.run([sys.executable, "-m", "compileall", *options], cwd=folder, stdout=subprocess.DEVNULL)
            for path in folder.rglob("*.pyc"):
                self.compiled[path.relative_to(folder).as_posix()] = (path.read_bytes(), path.stat().st_mtime_ns)


def environment(base: Path, root: Path) -> dict[str, str]:
    """The variables of a learner's process: nothing of the caller's but the few that Python needs to start."""
    repository, home, temporary = base / "repository", base / "home", base / "tmp"
    data = [
        *os.environ.get("COURSE_DATA", "").split(os.pathsep),
        os.environ.get("COURSE_CACHE") or root / "datasets/cache",
    ]
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        **dict.fromkeys(THREADS, "1"),
        "PYTHONPATH": str(repository),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "MPLBACKEND": "Agg",
        "COURSE_DATA": os.pathsep.join(str(Path(folder).absolute()) for folder in data if folder),
        "COURSE_CACHE": str(base / "data"),
        **dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(home)),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)),
    }


def ask(snapshot: Snapshot, request: dict[str, Any], seconds: float) -> tuple[list[dict[str, Any]], str]:
    """(answers, why there are no more of them) of assess.py in a fresh copy; whatever it started is ended."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as name:
        base = Path(name).resolve()
        for folder in ("repository", "home", "tmp", "data"):
            (base / folder).mkdir()
        snapshot.write(base / "repository")
        command = [sys.executable, "-B", "-s", "-m", "course.grading.assess"]
        with (base / "errors").open("w+b") as errors, (base / "answers").open("w+b") as output:
            process = subprocess.Popen(
                command,
                cwd=base / "repository",
                env=environment(base, snapshot.root),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            trouble = ""
            UNDER_WAY.add(process)
            try:
                process.communicate(json.dumps({**request, "token": token}).encode(), timeout=seconds)
            except subprocess.TimeoutExpired:
                trouble = f"grading took longer than {seconds:.0f} s and was ended"
            finally:
                _end(process)
                UNDER_WAY.discard(process)
            output.seek(0)
            lines = output.read().decode("utf-8", errors="replace").splitlines()
            errors.seek(0)
            last = errors.read().decode("utf-8", errors="replace").strip().rpartition("\n")[2]
    if not trouble and process.returncode:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        trouble = f"the process that graded this learner ended with {how}" + (f": {last}" if last else "")
    return [json.loads(line.removeprefix(token)) for line in lines if line.startswith(token)], trouble


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, its group and its descendants."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


# ---------------------------------------------------------------- grading


@dataclass
class Grader:
    """All that is the same for every learner."""

    sprints: list[Sprint]
    snapshot: Snapshot
    limit: float
    time_limit: float
    expected: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def reference(self, sprint: Sprint) -> None:
        """Learns which tests pass on the reference on this machine; only those judge anyone."""
        request = {"reference": True, "sprints": [sprint.label], "limit": max(self.limit, 600.0)}
        answers, trouble = ask(self.snapshot, request, max(self.limit, 600.0) + OVERHEAD)
        if not answers:
            raise CourseError(f"The tests of sprint {sprint.label} could not be run on the reference: {trouble}.")
        for node, entry in answers[0]["expected"].items():
            self.expected[node] = entry["outcome"]
            if entry["outcome"] != PASSED:
                word = "is skipped" if entry["outcome"] == SKIPPED else "fails"
                why = entry["message"].partition("\n")[0]
                self.warnings.append(f"{node} {word} on the reference here and judges nobody: {why}")

    def learner(self, submission: Submission) -> Grade:
        """Grades one learner."""
        grade = Grade(submission.name)
        if submission.problem:
            grade.rows = [Row(submission.name, "", None, NOT_JUDGED, submission.problem)]
            return grade
        started = datetime.datetime.now()
        request = {
            "modules": submission.modules,
            "unusable": submission.unusable,
            "recorded": submission.recorded,
            "sprints": [sprint.label for sprint in self.sprints],
            "limit": self.limit,
            "time_limit": self.time_limit,
            "expected": self.expected,
        }
        answers, trouble = ask(self.snapshot, request, len(self.sprints) * self.limit + OVERHEAD)
        by_sprint: dict[str, list[dict[str, Any]]] = {}
        for answer in answers:
            grade.remarks += answer.get("remarks", [])
            if "sprint" in answer:
                by_sprint.setdefault(answer["sprint"], []).append(answer)
        for sprint in self.sprints:
            found = by_sprint.get(sprint.label, [])
            marks = {mark["key"]: mark for mark in found[0]["marks"]} if len(found) == 1 else {}
            grade.reached[sprint.label] = found[0]["reached"] if len(found) == 1 else []
            for exercise in sprint.exercises:
                mark = marks.get(exercise.key) or {"outcome": NOT_JUDGED, "message": trouble or "no result came back"}
                values = {key: value for key, value in mark.items() if key != "key"}
                grade.rows.append(Row(submission.name, sprint.label, exercise, **values))
                grade.suspect |= not marks or "files of the course were changed" in mark["message"]
        grade.seconds = (datetime.datetime.now() - started).total_seconds()
        return grade

    def all(self, submissions: list[Submission], processes: int, progress: Any) -> list[Grade]:
        """Grades every learner, `processes` at a time; what looks disturbed is graded again, alone."""
        grades: dict[str, Grade] = {}
        with concurrent.futures.ThreadPoolExecutor(processes) as pool:
            try:
                running = {pool.submit(self.learner, one): one for one in submissions}
                for done in concurrent.futures.as_completed(running):
                    grades[running[done].name] = done.result()
                    progress(running[done].name)
                    self._unharmed(running[done].name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(UNDER_WAY):  # they are in sessions of their own: Ctrl-C does not reach them
                    process.kill()
                raise
        if processes > 1:
            for one in submissions:
                if grades[one.name].suspect:
                    grades[one.name] = self.learner(one)
                    self._unharmed(one.name)
        return [grades[one.name] for one in submissions]

    def _unharmed(self, name: str) -> None:
        if changed := self.snapshot.changed():
            files = ", ".join(changed[:5]) + (" …" if len(changed) > 5 else "")
            raise CourseError(
                f"Files of the repository changed while {name} was graded: {files}. Nothing was written. If you did "
                "not change them yourself, look at that learner's code before you run it again."
            )


def version(root: Path) -> str:
    """The reference that graded: the package's version, and the commit where git knows it."""
    found = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            found += f" ({done.stdout.strip()})"
    return found


def place(folder: Path, out: Path | None) -> Path:
    """Where the tables go; CourseError rather than over earlier ones."""
    if out is not None:
        if any((out / name).exists() for name in gradebook.FILES):
            raise CourseError(f"{out} holds grades already; name another folder with --out, or move them away.")
        return out
    day = datetime.date.today().isoformat()
    parent = folder.absolute().parent
    names = (parent / f"grades-{day}{suffix}" for suffix in ["", *(f"-{n}" for n in range(2, 1000))])
    return next(path for path in names if not path.exists())


def chosen(labels: list[str] | None) -> list[Sprint]:
    """The sprints to grade: those named, or all that have exercises."""
    if not labels:
        return [sprint for sprint in load_sprints() if sprint.exercises]
    sprints = {sprint.label: sprint for sprint in (load_sprint(find_folder(label)) for label in labels)}
    if without := [label for label, sprint in sprints.items() if not sprint.exercises]:
        raise CourseError(f"Sprint {', '.join(without)} has no exercises to grade.")
    return [sprints[label] for label in sorted(sprints)]


def grade(
    folder: Path,
    labels: list[str] | None = None,
    out: Path | None = None,
    limit: float = 300.0,
    time_limit: float = 10.0,
    processes: int = 2,
) -> tuple[list[Grade], list[str], list[Path]]:
    """Grade every learner in `folder`; returns (grades, warnings, the files written). Raises CourseError."""
    from tqdm import tqdm

    sprints = chosen(labels)
    modules = {sources.split(t)[0] for sprint in load_sprints() for e in sprint.exercises for t in e.targets}
    wanted = {sources.module_path(module).as_posix(): module for module in sorted(modules)}
    submissions, passed_over = collect(folder, wanted)
    target = place(folder, out)
    snapshot = Snapshot()
    snapshot.compile()
    grader = Grader(sprints, snapshot, limit, time_limit)
    grader.warnings += [f"{name} is neither a folder nor a zip file and was passed over" for name in passed_over]
    with tqdm(total=len(sprints) + len(submissions), unit="learner", desc="the reference") as bar:
        with concurrent.futures.ThreadPoolExecutor(processes) as pool:
            for _ in pool.map(grader.reference, sprints):
                bar.update()

        def progress(name: str) -> None:
            bar.set_description(name[:20])
            bar.update()

        grades = grader.all(submissions, processes, progress)
    date = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    about = gradebook.About(version(ROOT), date, tuple(sprints), tuple(grader.warnings))
    return grades, grader.warnings, gradebook.write(target, grades, about)


def counts(one: Grade) -> dict[str, int]:
    """{outcome: number of exercises} of one learner."""
    outcomes = [row.outcome for row in one.rows if row.exercise]
    return {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}

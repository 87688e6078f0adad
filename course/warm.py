"""Many small runs of pytest from one process that has imported the heavy packages once.

`run` starts `python -m course.warm`, which imports NumPy, Numba, scikit-learn and pytest, but never `shared`, and forks
a child per job; the child imports `shared` as the job's variables say. Where processes cannot fork, jobs start cold.

Jobs that differ from the reference in one function need not even import `shared`, nor a process of their own: such jobs
share a stage, a process that has imported the reference and collected the tests. It puts the function of one after
another in place (course/grafting.py) and forks for each test alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .environment import THREADS, environment
from .files import locked
from .forking import forked
from .grafting import Graft
from .sprints import ROOT, CourseError

PRELOADED = ("numpy", "numpy.random", "pytest", "hypothesis", "resource")
# Not in a stage, whose many forks take three times as long with them; its jobs, on the formulas, need none of them.
HEAVY = ("sklearn.datasets", "numba", "tqdm")
OPTIONS = ("-q", "-p", "course.recorder", "-p", "no:cacheprovider", "--tb=short", "--no-header")


@dataclass(frozen=True)
class Job:
    """One run of pytest: node ids, the environment variables and options in which it differs, its time limit in s.

    It ends with the first failure that says `until`. `graft` is all that its workspace changes, where that is known.
    """

    key: str
    tests: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    limit: float = 120.0
    until: str = ""
    graft: Graft | None = None

    @property
    def stage(self) -> tuple[Any, ...]:
        """What jobs that can share a stage have in common."""
        folders = {str(Path(test.partition("::")[0]).parent) for test in self.tests}
        variables = {item for item in self.variables.items() if item[0] != "SHARED_WORKSPACE"}
        return frozenset(folders), frozenset(variables), *self.options


@dataclass(frozen=True)
class Result:
    """What a job did: {node id: outcome, message, …} as course.recorder writes it; exit_code None: it was killed.

    `grafted` is true where its function was put into a framework that was imported already.
    """

    key: str
    tests: dict[str, dict[str, Any]]
    exit_code: int | None
    seconds: float
    output: str
    grafted: bool = False


def processes() -> int:
    """How many jobs to run at a time: up to four, or this worker's share of the machine where pytest-xdist runs."""
    return max(1, min(4, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


def run(jobs: Iterable[Job], processes: int = 2, root: Path = ROOT) -> Iterator[Result]:
    """Results in the order in which the jobs end, `processes` of them running at a time."""
    jobs = list(jobs)
    if not jobs:
        return
    variables = {**environment(root, ROOT), **THREADS}
    for name in ("SHARED_WORKSPACE", "SHARED_REFERENCE", "COURSE_REPORT", "PYTEST_ADDOPTS"):
        variables.pop(name, None)
    command = [sys.executable, "-m", "course.warm", str(processes)]
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            command, cwd=root, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert server.stdin is not None and server.stdout is not None
        try:
            json.dump([asdict(job) for job in jobs], server.stdin)
            server.stdin.close()
            received = 0
            for line in server.stdout:
                received += 1
                yield Result(**json.loads(line))
                if received == len(jobs):
                    break  # what a job left running may hold the pipe
            if server.wait() or received < len(jobs):
                errors.seek(0)
                raise CourseError(f"{len(jobs) - received} runs of pytest were lost:\n{errors.read()[-2000:]}")
        finally:
            server.terminate()
            server.wait()


# ---------------------------------------------------------------- the warm process


def serve(processes: int) -> None:
    """Reads the jobs from standard input and writes a line of JSON for each as it ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    read = json.load(sys.stdin)
    jobs = [Job(**{**job, "graft": Graft(**job["graft"]) if job["graft"] else None}) for job in read]
    if hasattr(os, "fork"):
        _preload(PRELOADED)
        stages: dict[Any, list[Job]] = {}
        for job in jobs:
            if job.graft:
                stages.setdefault(job.stage, []).append(job)
        done = {key for group in stages.values() for key in _staged(group, processes)}
        jobs = [job for job in jobs if job.key not in done]
        _preload(HEAVY if jobs else ())
    work(jobs, processes)


def _preload(names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a child that collects garbage would otherwise copy every page of what was imported


def work(jobs: list[Job], processes: int) -> None:
    """Runs jobs, each in a process of its own, `processes` at a time."""
    running: dict[str, Run] = {}
    try:
        while jobs or running:
            while jobs and len(running) < processes:
                one = Run(jobs.pop(0))
                running[one.job.key] = one
            for key, one in list(running.items()):
                if one.ended():
                    print(json.dumps(asdict(one.result())), flush=True)
                    del running[key]
            time.sleep(0.005)
    finally:
        for one in running.values():
            one.kill()


def _staged(jobs: list[Job], processes: int) -> set[str]:
    """Runs jobs from one stage; returns the keys of those that were run: not what cannot be grafted."""
    with tempfile.TemporaryDirectory(prefix="course-stage-") as folder:
        taken, log = Path(folder) / "taken.json", Path(folder) / "log"

        def run() -> int:
            out = os.fdopen(os.dup(1), "w")

            def tell(job: Job, tests: dict[str, Any], seconds: float) -> None:
                failed = any(test["outcome"] == "failed" for test in tests.values())
                result = Result(job.key, tests, int(failed), round(seconds, 3), "", True)
                with locked(log):  # others write to the same pipe
                    print(json.dumps(asdict(result)), file=out, flush=True)

            _redirect(log)
            os.environ.update(jobs[0].variables, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
            del os.environ["SHARED_WORKSPACE"]
            import pytest

            from .stage import Stage

            files = sorted({test.partition("::")[0] for job in jobs for test in job.tests})
            arguments = [*OPTIONS, f"--rootdir={Path.cwd()}", *jobs[0].options, "--reference", *files]
            return int(pytest.main(arguments, plugins=[Stage(jobs, taken, processes, tell)]))

        stage = forked(run)
        try:
            _, status = os.waitpid(stage, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stage, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stage, 0)
            raise
        if not taken.exists():  # its tests could not be collected: each job will tell
            return set()
        if status:
            raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        return set(json.loads(taken.read_text(encoding="utf-8")))


def _redirect(log: Path) -> None:
    """Has this process read nothing, and print to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


class Run:
    """A job under way in a process of its own."""

    def __init__(self, job: Job):
        self.job, self.started = job, time.monotonic()
        self.folder = tempfile.TemporaryDirectory(prefix="course-")
        self.report, self.log = Path(self.folder.name) / "report.json", Path(self.folder.name) / "log"
        self.exit_code: int | None = None
        until = [f"--until={job.until}"] if job.until else []
        arguments = [*OPTIONS, f"--rootdir={Path.cwd()}", *job.options, *until, *job.tests]
        variables = {**job.variables, "COURSE_REPORT": str(self.report), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        if not hasattr(os, "fork"):
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "pytest", *arguments],
                    env={**os.environ, **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            return

        def run() -> int:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _redirect(self.log)
            os.environ.update(variables)
            import pytest

            return int(pytest.main(arguments))

        self.child = forked(run)

    def ended(self) -> bool:
        """True once the process has ended, or had to be killed."""
        if hasattr(os, "fork"):
            done, status = os.waitpid(self.child, os.WNOHANG)
            if done:
                self.exit_code = os.waitstatus_to_exitcode(status)
                return True
        elif self.process.poll() is not None:
            self.exit_code = self.process.returncode
            return True
        if time.monotonic() - self.started > self.job.limit:
            self.kill()
            return True
        return False

    def kill(self) -> None:
        """Ends the process and everything it started."""
        if not hasattr(os, "fork"):
            self.process.kill()
            self.process.wait()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.child, 0)

    def result(self) -> Result:
        """What it left."""
        seconds = round(time.monotonic() - self.started, 3)
        tests = json.loads(self.report.read_text(encoding="utf-8")) if self.report.exists() else {}
        output = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        self.folder.cleanup()
        return Result(self.job.key, tests, self.exit_code, seconds, output)


if __name__ == "__main__":
    serve(int(sys.argv[1]))

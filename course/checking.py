"""Running a sprint's tests and reading from them which milestones are reached."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment import environment
from .outcomes import FAILED, MISSING, PASSED, SKIPPED
from .sprints import ROOT, CourseError, Milestone, Sprint


@dataclass(frozen=True)
class Check:
    """What one run of a sprint's tests showed."""

    sprint: Sprint
    milestones: dict[str, dict[str, Any]]
    seconds: float
    exit_code: int

    @property
    def ok(self) -> bool:
        """Every test of the sprint passed or was skipped, and no milestone is without a test or failed."""
        return self.exit_code == 0 and all(m["outcome"] in (PASSED, SKIPPED) for m in self.milestones.values())


def check(sprint: Sprint, root: Path = ROOT, arguments: tuple[str, ...] = ("-q", "--reference")) -> Check:
    """Run the sprint's tests on the reference, in a process whose output is shown, and sum up per milestone."""
    folder = sprint.folder / "tests"
    if not folder.is_dir():
        raise CourseError(f"sprints/{sprint.folder.name} has no tests folder.")
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        variables = environment(root, ROOT, COURSE_REPORT=str(report))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "course.recorder",
            "-p",
            "course.testing",
            f"--rootdir={root}",
            *arguments,
        ]
        started = time.perf_counter()
        sys.stdout.flush()
        done = subprocess.run([*command, str(folder)], cwd=root, env=variables)
        seconds = time.perf_counter() - started
        if done.returncode not in (0, 1) or not report.exists():
            raise CourseError(f"pytest could not run the tests of sprint {sprint.label} (exit code {done.returncode}).")
        tests = json.loads(report.read_text(encoding="utf-8"))
    results = {milestone.id: judge(milestone, tests) for milestone in sprint.milestones}
    return Check(sprint, results, seconds, done.returncode)


def judge(milestone: Milestone, tests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One outcome for a milestone out of {node id: outcome}; of a parametrised test the worst case counts.

    >>> case = {"outcome": "passed", "seconds": 1.0, "message": "", "measured": {}}
    >>> m = Milestone("a", "…", "test_milestone.py::test_x")
    >>> judge(m, {"sprints/01_a/tests/test_milestone.py::test_x[1]": case, "b.py::test_y": case})["outcome"]
    'passed'
    >>> judge(m, {})["outcome"]
    'missing'
    """
    file, _, name = milestone.test.partition("::")
    cases = []
    for node, case in tests.items():
        node_file, _, node_name = node.partition("::")
        if node_file.endswith(f"/{file}") and node_name.partition("[")[0] == name:
            cases.append(case)
    if not cases:
        return {
            "outcome": MISSING,
            "seconds": 0.0,
            "message": f"there is no test {milestone.test}",
            "measured": {},
        }
    worst = next((case for kind in (FAILED, SKIPPED, PASSED) for case in cases if case["outcome"] == kind), cases[0])
    measured: dict[str, Any] = {}
    for case in cases:
        measured.update(case["measured"])
    seconds = round(sum(case["seconds"] for case in cases), 3)
    return {
        "outcome": worst["outcome"],
        "seconds": seconds,
        "message": worst["message"],
        "measured": measured,
    }

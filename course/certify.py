"""What a learner's code is worth: the milestones on the workspace as it is, and each exercise by itself.

An exercise is judged among right versions of all the others, so that one which is right passes while its neighbours are
still stubs or wrong; a milestone is reached when its test passes on the learner's code as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import outcomes, warm
from .checking import judge
from .outcomes import FAILED, SKIPPED
from .preflight import Problem, problems, reason
from .sprints import ROOT, CourseError, Exercise, Sprint, load_sprints
from .testing import LIMIT
from .workspace import BROKEN, MISSING, NOT_STARTED, STUB, WRITTEN, Workspace

PASSING, FAILING, UNCHECKED, CONSULTED = (
    "passing",
    "failing",
    "to be checked",
    "passing, reference consulted",
)


@dataclass(frozen=True)
class Verdict:
    """One exercise: its standing (not started, stub, failing, passing), why, and what was checked.

    `place` is the learner's innermost line that the first error passed through, `output` what pytest printed.
    """

    exercise: Exercise
    standing: str
    message: str = ""
    code: str = ""
    place: str = ""
    output: str = ""


def tests_of(sprint: Sprint, exercise: Exercise) -> tuple[str, ...]:
    """Node ids, from the repository's root, of the milestone tests that judge an exercise, in the order it lists them.

    A failure of the first is what the learner reads first.
    """
    by_id = {milestone.id: milestone for milestone in sprint.milestones}
    chosen = [by_id[name] for name in exercise.milestones if name in by_id]
    return tuple(f"sprints/{sprint.folder.name}/tests/{milestone.test}" for milestone in chosen)


def milestone_results(sprint: Sprint, tests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{milestone id: outcome, message, …} out of what a run of the tests recorded."""
    return {milestone.id: judge(milestone, tests) for milestone in sprint.milestones}


def isolated(
    sprint: Sprint, exercise: Exercise, workspace: Workspace, broken: Iterable[Problem], limit: float = LIMIT
) -> warm.Job:
    """The job that judges one exercise of a workspace among the reference's versions of all the others."""
    others = [
        target
        for other in load_sprints(workspace.root)
        for one in other.exercises
        if one.key != exercise.key and workspace.started(one)
        for target in one.targets
    ]
    variables = {
        "SHARED_WORKSPACE": str(workspace.folder),
        "SHARED_REFERENCE": ",".join([*others, *(problem.module for problem in broken)]),
    }
    tests = tests_of(sprint, exercise)
    options = (f"--time-limit={limit:g}", "--no-preflight")
    return warm.Job(exercise.key, tests, variables, options, (limit + 5) * len(tests) + 30)


def whole(sprint: Sprint, workspace: Workspace, limit: float = LIMIT) -> warm.Job:
    """The job that runs all of a sprint's tests on a workspace as it stands."""
    variables = {"SHARED_WORKSPACE": str(workspace.folder)}
    seconds = (limit + 5) * max(10, len(sprint.milestones)) + 60
    return warm.Job(
        sprint.folder.name, (f"sprints/{sprint.folder.name}/tests",), variables, (f"--time-limit={limit:g}",), seconds
    )


@dataclass(frozen=True)
class Certificate:
    """What a workspace is worth in one sprint; `milestones` is empty where only single exercises were asked for."""

    sprint: Sprint
    milestones: dict[str, dict[str, Any]]
    verdicts: list[Verdict]
    seconds: float


def certify(
    sprint: Sprint,
    workspace: Workspace,
    exercises: Iterable[Exercise] | None = None,
    root: Path = ROOT,
    limit: float = LIMIT,
) -> Certificate:
    """Judge the sprint on a workspace: milestones and all exercises, or only the `exercises` given.

    Raises CourseError where the tests could not be run at all.
    """
    chosen = list(sprint.exercises if exercises is None else exercises)
    found: dict[str, Verdict] = {}
    codes: dict[str, str] = {}  # as they were before the tests ran: the learner may go on writing meanwhile
    jobs = [whole(sprint, workspace, limit)] if exercises is None else []
    broken = problems(workspace)
    for exercise in chosen:
        state, code = workspace.state(exercise), workspace.code(exercise)
        if state in (NOT_STARTED, STUB):
            found[exercise.key] = Verdict(exercise, state, _unfinished(workspace, exercise))
            continue
        modules = {problem.module for problem in broken}
        parts = [
            part for part in workspace.parts(exercise) if part.module in modules or part.state in (BROKEN, MISSING)
        ]
        if parts:
            found[exercise.key] = Verdict(exercise, FAILING, reason(workspace, parts[0], broken), code)
        else:
            codes[exercise.key] = code
            job = isolated(sprint, exercise, workspace, broken, limit)
            jobs.append(replace(job, options=(*job.options, "--until-late")))  # its verdict is known by then
    by_key = {exercise.key: exercise for exercise in chosen}
    milestones: dict[str, dict[str, Any]] = {}
    seconds = 0.0
    for result in warm.run(jobs, min(2, os.cpu_count() or 1), root):
        if result.key not in by_key:
            milestones, seconds = milestone_results(sprint, result.tests), result.seconds
            if not result.tests:
                raise CourseError(f"pytest could not run the tests of sprint {sprint.label}:\n{result.output[-2000:]}")
            continue
        exercise = by_key[result.key]
        failure = _failure(result, tests_of(sprint, exercise))
        standing = PASSING if failure is None else FAILING
        places = (test.get("place", "") for test in result.tests.values() if test["outcome"] == FAILED)
        found[result.key] = Verdict(
            exercise, standing, failure or "", codes[result.key], next(places, ""), result.output
        )
    return Certificate(sprint, milestones, [found[exercise.key] for exercise in chosen], seconds)


def _unfinished(workspace: Workspace, exercise: Exercise) -> str:
    """Which functions of an exercise are still missing, where some are written."""
    parts = workspace.parts(exercise)
    missing = [part.name for part in parts if part.state == STUB]
    if len(missing) in (0, len(parts)):
        return ""
    written = f"{len(parts) - len(missing)} of {len(parts)} functions written; still missing: {', '.join(missing)}"
    return f"{written}. Its tests run when all are written; until then try the examples in the docstrings"


def _failure(result: warm.Result, tests: tuple[str, ...]) -> str | None:
    """Why an exercise does not pass; None only where every one of its tests ran, none failed and one passed."""
    failed = (test["message"] for test in result.tests.values() if test["outcome"] == FAILED)
    if (message := next(failed, None)) is not None:
        return message
    if result.exit_code is None:
        return "its tests did not end in time"
    ran = {node.partition("[")[0] for node in result.tests}
    if result.exit_code or set(tests) - ran:  # exit code 0 is also that of a learner's sys.exit() or os._exit(0)
        return (
            result.output.strip()[-500:] or f"its tests ended with exit code {result.exit_code} before they were done"
        )
    if all(test["outcome"] == SKIPPED for test in result.tests.values()):
        return "its tests were skipped on this machine: " + next(iter(result.tests.values()))["message"]
    return None


def record(verdict: Verdict, root: Path = ROOT) -> str | None:
    """Store a verdict on something the learner wrote. Returns a warning where the old record was damaged."""
    if verdict.standing not in (PASSING, FAILING):
        return None
    values: dict[str, Any] = {"passed": True} if verdict.standing == PASSING else {}
    values |= {"outcome": verdict.standing, "message": verdict.message.partition("\n")[0], "code": verdict.code}
    return outcomes.note(verdict.exercise, root, **values, checked=outcomes.now())


def standing(exercise: Exercise, workspace: Workspace, noted: dict[str, Any]) -> str:
    """Where an exercise stands, without running anything: the record where the code is still the one it judged."""
    state = workspace.state(exercise)
    if state in (NOT_STARTED, STUB):
        return state
    if state != WRITTEN:
        return FAILING
    if noted.get("code") != workspace.code(exercise):
        return UNCHECKED
    if noted.get("outcome") == PASSING:
        return CONSULTED if noted.get("consulted") else PASSING
    return FAILING

"""The laws of the course, for every sprint: stubs pass nothing, right code passes all. test_bugs.py has the other one.

Each law runs the milestone tests in warm processes (course/warm.py), on workspaces made by `course start` alone.
That they pass on the reference itself is seen by running them, sprints/NN_*/tests, which are part of the same suite.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from course import certify, sources, warm
from course.sprints import Sprint, load_sprints
from course.workspace import Workspace

SPRINTS = [sprint for sprint in load_sprints() if sprint.exercises]
each_sprint = pytest.mark.parametrize("sprint", SPRINTS, ids=lambda sprint: sprint.label)


def started(folder: Path, sprint: Sprint) -> Workspace:
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.start([sprint])
    return workspace


def solve(workspace: Workspace, sprint: Sprint) -> None:
    """Replaces every stub of a sprint by the reference's function."""
    for target in (target for exercise in sprint.exercises for target in exercise.targets):
        module, name = sources.split(target)
        path = workspace.file(module)
        right = sources.functions(workspace.reference(module))[name].text
        path.write_text(sources.put(path.read_text(encoding="utf-8"), name, right), encoding="utf-8")


def copy(workspace: Workspace, folder: Path) -> Workspace:
    """The workspace as it is now, to which nothing more happens."""
    shutil.copytree(workspace.folder, folder)
    return Workspace(folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, warm.Result]:
    """Every run that the laws need, by name; a workspace of several sprints came about sprint by sprint."""
    folder = tmp_path_factory.mktemp("laws")
    jobs = []

    def job(name: str, made: warm.Job, *options: str, kernels: str = "reference") -> None:
        # Each test runs in a process of its own, and loading compiled kernels there takes longer than they save: the
        # formulas do, but where all of the framework is the learner's, as with the reference itself.
        variables = {**made.variables, "SHARED_KERNELS": kernels}
        # Only messages are read: a traceback with the lines around each frame takes long to write.
        jobs.append(warm.Job(name, made.tests, variables, (*made.options, *options, "--tb=native"), made.limit))

    solved, unwritten = (started(folder / name, SPRINTS[0]) for name in ("solved", "unwritten"))
    for place, sprint in enumerate(SPRINTS):
        stubs = started(folder / f"stubs-{sprint.label}", sprint)
        own = copy(stubs, folder / f"own-{sprint.label}")
        solve(own, sprint)
        job(f"{sprint.label} stubs", certify.whole(sprint, stubs), "--no-preflight")
        for exercise in sprint.exercises:
            job(f"{sprint.label} only {exercise.id}", certify.isolated(sprint, exercise, stubs, []))
        if place:
            earlier = copy(solved, folder / f"before-{sprint.label}")
            job(f"{sprint.label} earlier solved", certify.whole(sprint, earlier), "--no-preflight")
            earlier = copy(unwritten, folder / f"unwritten-{sprint.label}")
            job(f"{sprint.label} earlier unwritten", certify.whole(sprint, earlier), "--no-preflight")
            solved.start([sprint])
            unwritten.start([sprint])
        solve(solved, sprint)
        # By the time it runs, the sprints that come after are solved, too.
        job(f"{sprint.label} all solved", certify.whole(sprint, solved), kernels="auto")
        job(f"{sprint.label} earlier reference", certify.whole(sprint, own), "--no-preflight")
    return {result.key: result for result in warm.run(jobs, warm.processes())}


def failures(result: warm.Result) -> dict[str, str]:
    assert result.tests, f"no test ran:\n{result.output[-2000:]}"
    return {node: test["message"] for node, test in result.tests.items() if test["outcome"] == "failed"}


@each_sprint
def test_every_milestone_is_judged_by_an_exercise(sprint: Sprint) -> None:
    covered = {id for exercise in sprint.exercises for id in exercise.milestones}
    assert {milestone.id for milestone in sprint.milestones} == covered
    assert 4 <= len(sprint.exercises) <= 8


@each_sprint
def test_on_stubs_no_milestone_test_passes_and_each_failure_names_the_exercise(sprint: Sprint, results: Any) -> None:
    result = results[f"{sprint.label} stubs"]
    failed = failures(result)
    passed = sorted(set(result.tests) - set(failed))
    assert not passed, f"these pass on untouched stubs: {passed}"
    for node, message in failed.items():
        assert f"Sprint {sprint.label}, exercise" in message, f"{node} does not name an exercise:\n{message}"


@each_sprint
def test_one_stub_fails_every_test_that_its_exercise_lists_and_is_named(sprint: Sprint, results: Any) -> None:
    for exercise in sprint.exercises:
        result = results[f"{sprint.label} only {exercise.id}"]
        failed = failures(result)
        for milestone in (m for m in sprint.milestones if m.id in exercise.milestones):
            of = [node for node in result.tests if node.partition("::")[2].partition("[")[0] == milestone.test_name]
            told = [node for node in of if f"{exercise.label}:" in failed.get(node, "")]
            assert told, f"exercise {exercise.id} lists {milestone.id}, whose test does not fail by it: {failed}"


@each_sprint
@pytest.mark.parametrize("framework", ["all solved", "earlier reference", "earlier solved", "earlier unwritten"])
def test_right_code_passes_wherever_the_learner_started(sprint: Sprint, framework: str, results: Any) -> None:
    result = results.get(f"{sprint.label} {framework}")
    if result is None:
        pytest.skip("there is no earlier sprint")
    assert failures(result) == {}
    assert result.exit_code == 0, result.output[-2000:]

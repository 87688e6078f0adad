"""What the exercise commands print: start, reset, hint, solution, check."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table

from . import outcomes, running
from .certify import FAILING, PASSING, Certificate, certify, record
from .checking import Check
from .scoreboard import difficulty
from .sprints import CourseError, Exercise, Sprint
from .workspace import NOT_STARTED, STUB, WRITTEN, Workspace

STYLES = {PASSING: "green", FAILING: "red", STUB: "yellow", NOT_STARTED: "dim"}


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=110)


def _workspace() -> Workspace:
    workspace = Workspace()
    for warning in workspace.warnings:
        print(f"course: {warning}", file=sys.stderr)
    return workspace


def _to_write(workspace: Workspace, exercise: Exercise) -> str:
    """`workspace/shared/autograd.py:214`, where the first function that is still a stub stands."""
    part = next(part for part in workspace.parts(exercise) if part.state == STUB)
    return f"{workspace.show(workspace.file(part.module))}:{part.line}"


def start(sprints: list[Sprint]) -> None:
    """Blank the exercises of `sprints` into the workspace, and say where they are."""
    workspace = _workspace()
    if not any(sprint.exercises for sprint in sprints):
        raise CourseError("there are no exercises yet in " + ", ".join(sprint.label for sprint in sprints) + ".")
    begun = workspace.start(sprints)
    console = _console()
    for sprint in sprints:
        new = [exercise for exercise in begun if exercise.sprint == sprint.number]
        if not new:
            console.print(
                f"Sprint {sprint.label} was started before; nothing was changed. course progress shows where you are."
            )
            continue
        console.print(f"[bold]Sprint {sprint.label}, {escape(sprint.title)}[/]: {len(new)} exercises, yours to write")
        for exercise in new:
            effort = f"{difficulty(exercise.difficulty)}  {exercise.minutes} min"
            console.print(f"\n{exercise.number}  [bold]{escape(exercise.title)}[/]  {effort}; read {exercise.note}")
            console.print(Padding("\n".join(workspace.places(exercise)), (0, 3)), soft_wrap=True)
    if begun:
        first = begun[0]
        number = f"{first.sprint:02d} {first.number}"
        console.print(
            f"\nOnly their bodies are gone: signature and docstring say what to write. Begin with exercise {number}, "
            f"then: course check {number}. Stuck: course hint {number}."
        )


def reset(sprint: Sprint, number: int | None) -> None:
    """Put stubs back, and say where the replaced text went."""
    workspace = _workspace()
    copies = workspace.reset(sprint, None if number is None else sprint.exercise(number))
    for exercise in sprint.exercises:
        if number in (None, exercise.number) and "passed" in outcomes.exercise(_record(), exercise):
            _warn(outcomes.note(exercise, passed=False))  # a new attempt
    what = f"Exercise {number} of sprint" if number else "Every exercise of sprint"
    print(f"{what} {sprint.label} is a stub again.")
    for copy in copies:
        print(f"What you had is in {workspace.show(copy)}")


def renew() -> None:
    """Take over what the reference has changed, and say what and where the old texts are."""
    from .renew import renew

    workspace = _workspace()
    changed = workspace.changed_in_reference()
    copies, remarks = renew(workspace)
    print("\n".join(f"The reference's {name} has changed." for name in changed) or "The reference has not changed.")
    for copy in copies:
        print(f"What you had is in {workspace.show(copy)}")
    for remark in remarks:
        print(remark)


def hint(sprint: Sprint, number: int, again: bool) -> None:
    """Print the next hint, or those given already, and count it."""
    exercise = sprint.exercise(number)
    had = outcomes.exercise(_record(), exercise).get("hints", 0)
    console = _console()
    console.print(f"[bold]{exercise.label}: {escape(exercise.title)}[/]")
    if again or had >= len(exercise.hints):
        for level, text in enumerate(exercise.hints[:had], 1):
            console.print(Padding(f"{level}. {escape(text)}", (0, 2)))
        if not had:
            console.print("You have had no hint yet.")
        if had >= len(exercise.hints):
            where = f"sprints/{sprint.folder.name}/{exercise.note}"
            console.print(
                f"That was the last one. {where} has the idea; course solution {sprint.label} {number}, a diff."
            )
        return
    console.print(Padding(f"{had + 1} of {len(exercise.hints)}. {escape(exercise.hints[had])}", (0, 2)))
    outcomes.note(exercise, hints=had + 1)


def solution(sprint: Sprint, number: int, yes: bool) -> None:
    """Show the reference beside the learner's version; before an attempt, ask first."""
    exercise = sprint.exercise(number)
    workspace = _workspace()
    noted = outcomes.exercise(_record(), exercise)
    attempted = workspace.state(exercise) == WRITTEN or "outcome" in noted
    if not attempted and not yes:
        print(
            f"You have not tried {exercise.label} ({exercise.title}) yet; `course hint {sprint.label} {number}` helps."
        )
        if not sys.stdin.isatty():
            raise CourseError("show the solution before a first attempt? Ask again with --yes.")
        try:
            answer = input("Show the solution all the same? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            return
    lines = workspace.diff(exercise)
    if not lines:
        print("Yours and the reference are the same.")
    elif (console := Console()).is_terminal:
        console.print(Syntax("\n".join(lines), "diff", background_color="default", word_wrap=True))
    else:
        print("\n".join(lines))
    if not noted.get("passed"):
        _warn(outcomes.note(exercise, consulted=True))


def check(sprints: list[Sprint], number: int | None, verbose: bool = False) -> bool:
    """Judge and record what the learner wrote; without a start, run the tests on the reference and say so."""
    workspace = _workspace()
    console = _console()
    started = [sprint for sprint in sprints if any(map(workspace.started, sprint.exercises))]
    if not started:
        if number is not None:
            raise CourseError(f"you have not started sprint {sprints[0].label}: course start {sprints[0].label}.")
        if unbegun := ", ".join(sprint.label for sprint in sprints if sprint.exercises):
            console.print(f"You have not started sprint {unbegun}: this tests the reference, and records nothing.\n")
        checks = [found for sprint in sprints if (found := running.check_reference(sprint.folder))]
        running.print_milestones(checks, {})
        for found in checks:
            if not found.sprint.exercises:  # nothing to write: what passes is reached
                _warn(outcomes.save(found.sprint, found.milestones))
        return len(checks) == len(sprints) and all(found.ok for found in checks)
    good = True
    for sprint in started:
        exercises = None if number is None else [sprint.exercise(number)]
        with console.status(f"Testing sprint {sprint.label} on your framework"):
            certificate = certify(sprint, workspace, exercises)
        if certificate.milestones:
            _warn(outcomes.save(sprint, certificate.milestones))
            running.print_milestones([Check(sprint, certificate.milestones, certificate.seconds, 0)], {})
        for verdict in certificate.verdicts:
            _warn(record(verdict))
        if verbose:
            for verdict in certificate.verdicts:
                if verdict.standing == FAILING and verdict.output:
                    console.rule(f"Exercise {verdict.exercise.number}, among right versions of the others")
                    print(verdict.output)
        _print_verdicts(console, certificate, workspace)
        good &= all(verdict.standing == PASSING for verdict in certificate.verdicts)
        good &= all(entry["outcome"] in ("passed", "skipped") for entry in certificate.milestones.values())
    return good


def _print_verdicts(console: Console, certificate: Certificate, workspace: Workspace) -> None:
    """Each exercise by itself, what is wrong with the first failing one, and what to do next."""
    sprint = certificate.sprint
    failing = next((verdict for verdict in certificate.verdicts if verdict.standing == FAILING), None)
    table = Table("", "Exercise", "By itself", "", box=None, pad_edge=False)
    for verdict in certificate.verdicts:
        standing = f"[{STYLES[verdict.standing]}]{verdict.standing}[/]"
        remark = "see below" if verdict is failing else escape(_short(verdict.message))
        table.add_row(str(verdict.exercise.number), escape(verdict.exercise.title), standing, f"[dim]{remark}[/]")
    console.print("[bold]Exercises[/], each among right versions of the others\n", table, sep="\n")
    if failing:
        one = failing.exercise
        places = failing.place or ", ".join(workspace.places(one))
        console.print(f"\n[bold]{one.label}, {escape(one.title)}[/] ({places})")
        console.print(Padding(escape(failing.message.strip()), (0, 2)))
        console.print(
            f"Read sprints/{sprint.folder.name}/{one.note}; course hint {sprint.label} {one.number}; tracebacks and "
            f"what your code printed: course check {sprint.label} {one.number} --verbose"
        )
        return
    asked = [verdict.exercise for verdict in certificate.verdicts]  # come first, then those that follow, then the rest
    last = max((exercise.number for exercise in asked), default=0)
    others = sorted(sprint.exercises, key=lambda exercise: exercise.number <= last)
    stub = next((exercise for exercise in (*asked, *others) if workspace.state(exercise) == STUB), None)
    if stub:
        place = _to_write(workspace, stub)
        console.print(f"\nNext: exercise {stub.number}, {escape(stub.title)}, {stub.minutes} minutes ({place}).")
        console.print(f"Read sprints/{sprint.folder.name}/{stub.note}, then course check {sprint.label} {stub.number}.")
    elif not certificate.milestones:
        console.print(f"\nAll exercises of sprint {sprint.label} are written; together: course check {sprint.label}")
    elif all(m["outcome"] == "passed" for m in certificate.milestones.values()):
        console.print(f"\nSprint {sprint.label} is done, on your own framework.")


def mutants(sprints: list[Sprint], name: str, write: bool) -> bool:
    """Run the mutants of `sprints` whose name contains `name`; True where all were killed."""
    from tqdm import tqdm

    from . import mutants as classic

    if name and write:
        raise CourseError("--write renews the whole scoreboard: leave --name out.")
    chosen = {sprint.label: [m for m in classic.load(sprint) if name in m.name] for sprint in sprints}
    console, good = _console(), True
    for sprint in sprints:
        if not chosen[sprint.label]:
            continue
        with tqdm(total=len(chosen[sprint.label]), unit="mutant", disable=not sys.stderr.isatty()) as bar:
            fates = classic.run(chosen[sprint.label], on_done=bar.update, anew=write)
        table = Table("", "Mutant", "Failed", "Said", box=None, pad_edge=False)
        for fate in fates:
            state = "[green]killed[/]" if fate.killed else "[red]survived[/]"
            remark = fate.said if fate.killed else f"expected: {fate.mutant.message}"
            table.add_row(state, fate.mutant.name, str(len(fate.failed)), escape(_short(remark)))
        console.print(f"\n[bold]Sprint {sprint.label}[/]", table)
        for fate in fates:
            if not fate.killed:
                console.print(f"\n[red]{fate.mutant.name}[/] survived; what its tests said:")
                for message in fate.messages or ("nothing: they all passed",):
                    console.print(Padding(escape(message[:600]), (0, 2)))
        killed = sum(fate.killed for fate in fates)
        console.print(f"{killed} of {len(fates)} killed, each by a message that names the mistake.")
        good &= killed == len(fates)
        if write and killed == len(fates):
            classic.write_board(sprint, fates)
    return good


def _short(message: str) -> str:
    first = message.strip().partition("\n")[0]
    return first if len(first) <= 120 else first[:117] + "…"


def _record() -> dict:
    found, warning = outcomes.load()
    _warn(warning)
    return found


def _warn(warning: str | None) -> None:
    if warning:
        print(f"course: {warning}", file=sys.stderr)

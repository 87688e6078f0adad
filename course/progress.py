"""How far a learner is: every exercise's standing, milestones, skills, and the one next step. Runs no test."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import outcomes
from .certify import CONSULTED, FAILING, PASSING, UNCHECKED, standing
from .preflight import reason
from .sprints import ROOT, Exercise, Milestone, Sprint, load_sprints
from .workspace import BROKEN, MISSING, NOT_STARTED, STUB, Part, Workspace

STANDINGS = (PASSING, CONSULTED, FAILING, UNCHECKED, STUB, NOT_STARTED)
DONE = (PASSING, CONSULTED)
STYLES = {PASSING: "green", CONSULTED: "green", FAILING: "red", UNCHECKED: "yellow", STUB: "yellow", NOT_STARTED: "dim"}
OUTCOMES = {
    None: "not checked yet",
    outcomes.PASSED: "reached",
    outcomes.FAILED: "not reached",
    outcomes.SKIPPED: "skipped on this machine",
    outcomes.MISSING: "its test is missing",
}


@dataclass(frozen=True)
class Row:
    """One exercise: where it stands, the hints used, where its code is, and why it fails (one line) if it does."""

    exercise: Exercise
    standing: str
    hints: int
    parts: tuple[Part, ...]
    place: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """How commands name it: `01 2`."""
        return f"{self.exercise.sprint:02d} {self.exercise.number}"


@dataclass(frozen=True)
class Progress:
    """One sprint: its exercises, its milestones with their outcome in words, and when they were last checked."""

    sprint: Sprint
    rows: tuple[Row, ...]
    milestones: tuple[tuple[Milestone, str], ...]
    checked: str = ""

    @property
    def reached(self) -> int:
        """How many milestones are reached."""
        return sum(words == OUTCOMES[outcomes.PASSED] for _, words in self.milestones)

    @property
    def started(self) -> bool:
        """True where the learner has begun one of the exercises."""
        return any(row.standing != NOT_STARTED for row in self.rows)

    @property
    def finished(self) -> bool:
        """True where every exercise passes and every milestone that this machine can test is reached."""
        open_words = {words for _, words in self.milestones} - {
            OUTCOMES[outcomes.PASSED],
            OUTCOMES[outcomes.SKIPPED],
        }
        return not open_words and all(row.standing in DONE for row in self.rows)


@dataclass(frozen=True)
class Step:
    """What to do next: a sentence, where, what to read, the reason for a failure, and the command."""

    text: str
    command: str = ""
    place: str = ""
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Overview:
    """All that `course progress` shows."""

    sprints: tuple[Progress, ...]
    skills: dict[str, tuple[int, int]]
    step: Step
    changed: dict[str, list[str]]
    warnings: tuple[str, ...]

    @property
    def rows(self) -> list[Row]:
        """Every exercise of the course."""
        return [row for progress in self.sprints for row in progress.rows]


# ---------------------------------------------------------------- finding out


def overview(workspace: Workspace, root: Path = ROOT) -> Overview:
    """The learner's progress as recorded, with the files of the workspace as they are now."""
    record, warning = outcomes.load(root)
    sprints = tuple(_progress(sprint, record, workspace) for sprint in load_sprints(root))
    changed: dict[str, list[str]] = {}
    for name in workspace.changed_in_reference():
        module = next(m for m in workspace.record["modules"] if name.startswith(f"{m}."))
        changed.setdefault(module, []).append(name.removeprefix(f"{module}."))
    warnings = (*([warning] if warning else []), *workspace.warnings)
    return Overview(sprints, skills(sprints), next_step(sprints), changed, warnings)


def _progress(sprint: Sprint, record: dict[str, Any], workspace: Workspace) -> Progress:
    checked = record["sprints"].get(sprint.folder.name, {}).get("checked", "")
    milestones = tuple((m, OUTCOMES[outcomes.outcome(record, sprint, m.id)]) for m in sprint.milestones)
    rows = tuple(_row(exercise, workspace, outcomes.exercise(record, exercise)) for exercise in sprint.exercises)
    return Progress(sprint, rows, milestones, checked)


def _row(exercise: Exercise, workspace: Workspace, noted: dict[str, Any]) -> Row:
    parts, stands = tuple(workspace.parts(exercise)), standing(exercise, workspace, noted)
    hints = min(int(noted.get("hints") or 0), len(exercise.hints))
    return Row(exercise, stands, hints, parts, _place(workspace, parts), _reason(workspace, parts, stands, noted))


def _place(workspace: Workspace, parts: tuple[Part, ...]) -> str:
    """`workspace/shared/autograd.py:214`: the first stub, or else the first function; empty where there is no file."""
    found = sorted((part for part in parts if part.line), key=lambda part: part.state != STUB)
    if found:
        return f"{workspace.show(workspace.file(found[0].module))}:{found[0].line}"
    files = [path for part in parts if (path := workspace.file(part.module)).exists()]
    return workspace.show(files[0]) if files and parts[0].state != NOT_STARTED else ""


def _reason(workspace: Workspace, parts: tuple[Part, ...], stands: str, noted: dict[str, Any]) -> str:
    """Why an exercise fails, in one line; empty where it does not."""
    if stands != FAILING:
        return ""
    for part in parts:
        if part.state in (BROKEN, MISSING):
            return reason(workspace, part)
    first = str(noted.get("message", "")).partition("\n")[0]
    return first.removeprefix("Failed: ").removeprefix("AssertionError: ")


def skills(sprints: tuple[Progress, ...]) -> dict[str, tuple[int, int]]:
    """{skill: (milestones reached, milestones that show it)}, in the order of the course."""
    found: dict[str, tuple[int, int]] = {}
    for progress in sprints:
        for milestone, words in progress.milestones:
            for skill in milestone.skills:
                reached, total = found.get(skill, (0, 0))
                found[skill] = (reached + (words == OUTCOMES[outcomes.PASSED]), total + 1)
    return found


def next_step(sprints: tuple[Progress, ...]) -> Step:
    """Finish what was begun, then the sprints after it, then those left out; last those that have no exercises."""
    begun = [p for p in sprints if p.started]
    last = begun[-1].sprint.number if begun else 0
    rest = sorted((p for p in sprints if not p.started), key=lambda p: (not p.rows, p.sprint.number < last))
    for progress in [*begun, *rest]:
        if not progress.finished:
            return _step(progress) if progress.started else _first_step(progress)
    return Step("Every exercise passes and every milestone is reached.")


def _first_step(progress: Progress) -> Step:
    sprint = progress.sprint
    title = f"Sprint {sprint.label}, {sprint.title}"
    if progress.rows:
        return Step(f"Start {title}: {_amount(progress)}.", f"course start {sprint.label}")
    return Step(f"Work through {title}; it has no exercises.", f"course lab {sprint.label}")


def _step(progress: Progress) -> Step:
    sprint = progress.sprint
    verbs = {
        UNCHECKED: "Check what you wrote in",
        FAILING: "Mend",
        STUB: "Write",
    }
    for stands, verb in verbs.items():
        row = next((row for row in progress.rows if row.standing == stands), None)
        if row:
            note = "" if stands == UNCHECKED else f"sprints/{sprint.folder.name}/{row.exercise.note}"
            text = f"{verb} {row.exercise.label}: {row.exercise.title}."
            return Step(text, f"course check {row.name}", row.place, note, row.message)
    if any(row.standing == NOT_STARTED for row in progress.rows):
        return Step(
            f"Sprint {sprint.label} has exercises that you have not begun. What you wrote stays as it is.",
            f"course start {sprint.label}",
        )
    return Step(
        f"All exercises of Sprint {sprint.label} pass. Test its milestones on your code as a whole.",
        f"course check {sprint.label}",
    )


def _amount(progress: Progress) -> str:
    """`8 exercises, about 4 h`"""
    minutes = sum(row.exercise.minutes for row in progress.rows)
    return f"{count(len(progress.rows), 'exercise')}, about {duration(minutes)}"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "function"), count(1200, "function")
    ('1 function', '1,200 functions')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(minutes: int) -> str:
    """Minutes as a reader wants them.

    >>> duration(45), duration(120), duration(135)
    ('45 min', '2 h', '2 h 15 min')
    """
    hours, rest = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest or not hours)
    return " ".join(parts)


def when(checked: str) -> str:
    """A recorded time in UTC, in this machine's own time zone, to the minute; as it is where it is no time."""
    try:
        return datetime.datetime.fromisoformat(checked).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return checked


# ---------------------------------------------------------------- the terminal


def show(found: Overview, console: Console) -> None:
    """Print the sprints, the exercises of those that were begun, the skills, and the next step."""
    table = Table("", "Sprint", "Milestones", "Exercises", "Time", box=None, pad_edge=False)
    for progress in found.sprints:
        done = sum(row.standing in DONE for row in progress.rows)
        exercises = f"{done} of {len(progress.rows)}" if progress.started else f"{len(progress.rows)}, not started"
        table.add_row(
            progress.sprint.label,
            Text(progress.sprint.title),
            f"{progress.reached} of {len(progress.milestones)}",
            exercises if progress.rows else "none",
            duration(sum(row.exercise.minutes for row in progress.rows)) if progress.rows else "",
            style="" if progress.started else "dim",
        )
    console.print(table)
    for progress in found.sprints:
        if progress.started:
            _show_exercises(progress, console)
    _show_skills(found.skills, console)
    if found.changed:
        _show_changed(found.changed, console)
    _show_step(found.step, console)


def _show_exercises(progress: Progress, console: Console) -> None:
    console.print(Text(f"\n{progress.sprint.label}  {progress.sprint.title}", style="bold"))
    _line(console, ("", "Exercise", "Level", "Min", "Hints", "Standing"), style="dim")
    said = {""}  # a file that cannot be read fails all its exercises for one reason
    for row in progress.rows:
        one = row.exercise
        cells = (f"{one.number}", one.title, f"{one.difficulty}/5", f"{one.minutes}", f"{row.hints}/{len(one.hints)}")
        _line(console, (*cells, row.standing), STYLES[row.standing])
        if row.message not in said:
            console.print(Padding(Text(_shortened(row.message), style="red"), (0, 0, 0, 4)))
        said.add(row.message)


def _line(console: Console, cells: tuple[str, ...], state: str = "", style: str = "") -> None:
    """One row; the columns have fixed widths so that a failure's message may stand between two rows at full width."""
    widths = (2, max(20, min(60, console.width - 49)), 5, 3, 5, 22)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for width, justify in zip(widths, ("right", "left", "right", "right", "right", "left"), strict=True):
        grid.add_column(width=width, justify=justify)  # type: ignore[arg-type]
    grid.add_row(*(Text(cell) for cell in cells[:-1]), Text(cells[-1], style=state), style=style)
    console.print(grid)


def _shortened(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else f"{message[: limit - 1]}…"


def _show_skills(shown: dict[str, tuple[int, int]], console: Console) -> None:
    groups: dict[str, list[str]] = {"Skills shown": [], "In part": [], "To come": []}
    for skill, (reached, total) in shown.items():
        group = "Skills shown" if reached == total else "In part" if reached else "To come"
        groups[group].append(f"{skill} ({reached} of {total})" if group == "In part" else skill)
    console.print()
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, entries in groups.items():
        if entries:
            grid.add_row(Text(name, style="bold"), Text(", ".join(entries)))
    console.print(grid)


def _show_changed(changed: dict[str, list[str]], console: Console) -> None:
    console.print()
    text = "The reference has changed since you began. Your files keep the older text of:"
    console.print(Text(text, style="yellow"))
    for module, names in changed.items():
        console.print(Padding(Text(f"{module}: {', '.join(names)}"), (0, 0, 0, 4)))


def _show_step(step: Step, console: Console) -> None:
    console.print()
    console.print(Text("Next: ", style="bold").append(step.text, style="not bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (("why", step.reason), ("where", step.place), ("read", step.note), ("then", step.command)):
        if value:
            name = "do" if name == "then" and not step.place else name
            style = "bold" if value == step.command else ""
            grid.add_row(f"      {name}", Text(_shortened(value), style=style, overflow="fold"))
    console.print(grid)

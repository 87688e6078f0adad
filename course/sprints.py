"""What is under sprints/: folders, `sprint.toml`, and how a learner names one of them."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = re.compile(r"^(\d\d)_[a-z0-9_]+$")


class CourseError(Exception):
    """Something a learner can mend; the command prints the message, without a traceback, and exits with 1."""


@dataclass(frozen=True)
class Milestone:
    """One promise of a sprint, and the test that proves it."""

    id: str
    text: str
    test: str
    skills: tuple[str, ...] = ()

    @property
    def test_name(self) -> str:
        """The part of `test` after the file: `test_x` or `TestX::test_y`."""
        return self.test.partition("::")[2]


@dataclass(frozen=True)
class Exercise:
    """One part of `shared` that the learner writes: a function or a few, and the milestones whose tests judge it."""

    sprint: int
    number: int
    id: str
    title: str
    targets: tuple[str, ...]
    difficulty: int
    minutes: int
    note: str
    milestones: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name in records: `01/unbroadcast`."""
        return f"{self.sprint:02d}/{self.id}"

    @property
    def label(self) -> str:
        """How messages and stubs name it: `Sprint 01, exercise 2`."""
        return f"Sprint {self.sprint:02d}, exercise {self.number}"


@dataclass(frozen=True)
class Sprint:
    """One sprint, as its sprint.toml describes it."""

    folder: Path
    number: int
    title: str
    goal: str
    hours: float
    requires: tuple[int, ...] = ()
    adds: tuple[str, ...] = ()
    notebooks_seconds: float = 90.0
    tests_seconds: float = 30.0
    milestones: tuple[Milestone, ...] = ()
    exercises: tuple[Exercise, ...] = ()
    insights: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    skills: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str:
        """Two digits, as in the folder's name."""
        return f"{self.number:02d}"

    def exercise(self, number: int) -> Exercise:
        """The exercise of that number, counted from 1; a CourseError says which there are."""
        if not 1 <= number <= len(self.exercises):
            there = f"exercises 1 to {len(self.exercises)}" if self.exercises else "no exercises"
            raise CourseError(f"Sprint {self.label} has no exercise {number}; it has {there}.")
        return self.exercises[number - 1]

    @property
    def notebooks(self) -> list[Path]:
        """The sprint's notebooks in the order in which they are worked."""
        return notebooks_of(self.folder)

    def metrics(self) -> dict[str, dict[str, Any]]:
        """What the scripts under results/ measured, by name; empty before the first run."""
        path = self.folder / "results" / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def sprint_folders(root: Path = ROOT) -> list[Path]:
    """The folders sprints/NN_name in order, with or without a sprint.toml."""
    base = root / "sprints"
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if path.is_dir() and FOLDER.match(path.name))


def notebooks_of(folder: Path) -> list[Path]:
    """The notebooks of one sprint folder, in order."""
    return sorted(path for path in (folder / "notebooks").glob("*.ipynb") if not path.name.startswith("."))


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the course, in order."""
    return [path for folder in sprint_folders(root) for path in notebooks_of(folder)]


def find_folder(name: str, root: Path = ROOT) -> Path:
    """The folder that `name` means: 7, 07, 07_transformer_block, or a path to it.

    Raises CourseError that lists what there is when nothing fits.
    """
    folders = sprint_folders(root)
    wanted = Path(name).name
    for folder in folders:
        if folder.name == wanted:
            return folder
    known = ", ".join(folder.name[:2] for folder in folders) or "none yet"
    digits = re.match(r"^(\d{1,3})(?:_.*)?$", wanted)
    if not digits:
        raise CourseError(f"{name!r} does not name a sprint: give its number. There are: {known}.")
    for folder in folders:
        if int(folder.name[:2]) == int(digits[1]):
            return folder
    raise CourseError(f"There is no sprint {digits[1]} in this repository. There are: {known}.")


def _need(table: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    if key not in table:
        raise CourseError(f"{where}: `{key}` is missing.")
    value = table[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise CourseError(f"{where}: `{key}` must be {names}, not {value!r}.")
    return value


def _strings(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise CourseError(f"{where}: `{key}` must be a list of strings, not {values!r}.")
    return tuple(values)


def _exercises(
    entries: list[dict[str, Any]], number: int, ids: list[str], folder: Path, where: str
) -> tuple[Exercise, ...]:
    """The [[exercises]] of a sprint.toml, checked."""
    exercises: list[Exercise] = []
    for position, entry in enumerate(entries, 1):
        here = f"{where}, exercise {position}"
        values: dict[str, Any] = {key: _need(entry, key, str, here) for key in ("id", "title", "note")}
        values |= {key: _need(entry, key, int, here) for key in ("difficulty", "minutes")}
        values |= {key: _strings(entry, key, here) for key in ("targets", "milestones", "hints")}
        exercise = Exercise(number, position, **values)
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", exercise.id):
            raise CourseError(f"{here}: `id` is written in small letters, digits and hyphens, not {exercise.id!r}.")
        for target in exercise.targets:
            if not re.fullmatch(r"shared(\.\w+){2,}", target):
                raise CourseError(
                    f"{here}: a target is a dotted name such as shared.autograd.unbroadcast, not {target!r}."
                )
        if not exercise.targets or not exercise.milestones:
            raise CourseError(f"{here}: it needs at least one of `targets` and one of `milestones`.")
        if unknown := set(exercise.milestones) - set(ids):
            raise CourseError(f"{here}: there is no milestone {', '.join(sorted(unknown))} in this sprint.")
        if len(exercise.hints) != 3:
            raise CourseError(f"{here}: three `hints` of growing directness are needed, not {len(exercise.hints)}.")
        if not 1 <= exercise.difficulty <= 5:
            raise CourseError(f"{here}: `difficulty` is 1 to 5, not {exercise.difficulty}.")
        if not (folder / exercise.note).is_file():
            raise CourseError(f"{here}: there is no note {exercise.note!r} in the sprint's folder.")
        exercises.append(exercise)
    for kind, names in (
        ("id", [exercise.id for exercise in exercises]),
        ("target", [target for exercise in exercises for target in exercise.targets]),
    ):
        if twice := {name for name in names if names.count(name) > 1}:
            raise CourseError(f"{where}: two exercises have the same {kind}: {', '.join(sorted(twice))}.")
    return tuple(exercises)


_table = functools.lru_cache(maxsize=64)(tomllib.loads)  # the same few texts, again and again; nobody changes a table


def load_sprint(folder: Path) -> Sprint:
    """Read and check `folder/sprint.toml`; a CourseError names the file and the key that is wrong."""
    path = folder / "sprint.toml"
    where = f"sprints/{folder.name}/sprint.toml"
    try:
        table = _table(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{where} is missing.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{where} cannot be read: {error}") from None

    milestones = []
    for position, entry in enumerate(table.get("milestones", []), 1):
        here = f"{where}, milestone {position}"
        text = {key: _need(entry, key, str, here) for key in ("id", "text", "test")}
        if not re.match(r"^[\w/]+\.py::[\w:]+$", text["test"]):
            raise CourseError(f"{here}: `test` must look like test_milestone.py::test_name, not {text['test']!r}.")
        milestones.append(Milestone(**text, skills=_strings(entry, "skills", here)))
    ids = [milestone.id for milestone in milestones]
    if len(set(ids)) != len(ids):
        raise CourseError(f"{where}: two milestones have the same id.")

    number = _need(table, "number", int, where)
    exercises = _exercises(table.get("exercises", []), number, ids, folder, where)
    if int(folder.name[:2]) != number:
        raise CourseError(f"{where}: number = {number} does not fit the folder's name.")
    requires = table.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(n, int) and n < number for n in requires):
        raise CourseError(f"{where}: `requires` must list numbers of earlier sprints, not {requires!r}.")
    budget, retrospective = table.get("budget", {}), table.get("retrospective", {})
    skills = dict.fromkeys(skill for milestone in milestones for skill in milestone.skills)
    return Sprint(
        folder=folder,
        number=number,
        title=_need(table, "title", str, where),
        goal=_need(table, "goal", str, where),
        hours=_need(table, "hours", (int, float), where),
        requires=tuple(requires),
        adds=_strings(table, "adds", where),
        notebooks_seconds=float(budget.get("notebooks_seconds", 90)),
        tests_seconds=float(budget.get("tests_seconds", 30)),
        milestones=tuple(milestones),
        exercises=exercises,
        insights=_strings(retrospective, "insights", where),
        next=_strings(retrospective, "next", where),
        skills=tuple(skills),
    )


def load_sprints(root: Path = ROOT) -> list[Sprint]:
    """Every sprint that has a sprint.toml, in order."""
    return [load_sprint(folder) for folder in sprint_folders(root) if (folder / "sprint.toml").exists()]

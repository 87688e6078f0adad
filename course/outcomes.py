"""The learner's record, progress/outcomes.json, which git ignores: milestones passed, and each exercise's fate."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import locked, set_aside, write_atomically
from .sprints import ROOT, CourseError, Exercise, Sprint

PASSED, FAILED, SKIPPED, MISSING = "passed", "failed", "skipped", "missing"
VERSION = 2


def record_path(root: Path = ROOT) -> Path:
    """Where the record lies."""
    return root / "progress" / "outcomes.json"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def load(root: Path = ROOT) -> tuple[dict[str, Any], str | None]:
    """(the record, a warning or None). A damaged file is set aside, not lost, and named in the warning.

    Raises CourseError for a record that a newer version of the course wrote; it is left as it is.
    """
    path = record_path(root)
    empty: dict[str, Any] = {"version": VERSION, "sprints": {}, "exercises": {}}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("version", 1) > VERSION:
            raise CourseError(
                f"progress/{path.name} was written by a newer version of this course: update the repository."
            )
        for entry in record["sprints"].values():
            for milestone in entry["milestones"].values():
                milestone["outcome"]
        for entry in record.setdefault("exercises", {}).values():
            entry.get("outcome"), int(entry.get("hints", 0))
        record["version"] = VERSION
        return record, None
    except FileNotFoundError:
        return empty, None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = set_aside(path)
        reason = f"{type(error).__name__}: {error}"
        return empty, (
            f"progress/{path.name} could not be read ({reason}). It was set aside as progress/{aside.name}; "
            "`course check` records everything anew."
        )


def update(change: Callable[[dict[str, Any]], None], root: Path = ROOT) -> str | None:
    """Apply `change` to the record and write it, atomically. Returns load()'s warning, if any."""
    with locked(record_path(root)):
        record, warning = load(root)
        change(record)
        write_atomically(record_path(root), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return warning


def save(sprint: Sprint, results: dict[str, dict[str, Any]], root: Path = ROOT) -> str | None:
    """Replace one sprint's milestone results in the record."""

    def change(record: dict[str, Any]) -> None:
        record["sprints"][sprint.folder.name] = {"checked": now(), "milestones": results}

    return update(change, root)


def exercise(record: dict[str, Any], one: Exercise) -> dict[str, Any]:
    """What is recorded of an exercise: hints, consulted, outcome, code, message, checked; empty where nothing is."""
    return record["exercises"].get(one.key, {})


def note(one: Exercise, root: Path = ROOT, **values: Any) -> str | None:
    """Record `values` for an exercise, beside what is there."""
    return update(lambda record: record["exercises"].setdefault(one.key, {}).update(values), root)


def outcome(record: dict[str, Any], sprint: Sprint, milestone_id: str) -> str | None:
    """The recorded outcome of a milestone; None where it was never checked."""
    entry = record["sprints"].get(sprint.folder.name, {}).get("milestones", {}).get(milestone_id)
    return entry["outcome"] if entry else None


def passed(record: dict[str, Any], sprint: Sprint) -> int:
    """How many of the sprint's milestones are recorded as passed."""
    return sum(outcome(record, sprint, milestone.id) == PASSED for milestone in sprint.milestones)


def current(sprints: list[Sprint], record: dict[str, Any]) -> Sprint | None:
    """The first sprint with a milestone that has not passed; the last one when all have."""
    unfinished = (sprint for sprint in sprints if passed(record, sprint) < len(sprint.milestones))
    return next(unfinished, sprints[-1] if sprints else None)

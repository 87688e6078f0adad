"""The learner's record: which milestones passed, and when. In progress/outcomes.json, ignored by git."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from .files import write_atomically
from .sprints import ROOT, Sprint

PASSED, FAILED, SKIPPED, MISSING = "passed", "failed", "skipped", "missing"


def record_path(root: Path = ROOT) -> Path:
    """Where the record lies."""
    return root / "progress" / "outcomes.json"


def load(root: Path = ROOT) -> tuple[dict[str, Any], str | None]:
    """(the record, a warning or None). A damaged file is set aside, not lost, and named in the warning."""
    path = record_path(root)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for entry in record["sprints"].values():
            for milestone in entry["milestones"].values():
                milestone["outcome"]
        return record, None
    except FileNotFoundError:
        return {"sprints": {}}, None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
        path.rename(aside)
        reason = f"{type(error).__name__}: {error}"
        return {"sprints": {}}, (
            f"progress/{path.name} could not be read ({reason}). It was set aside as progress/{aside.name}; "
            "`course check` records everything anew."
        )


def save(sprint: Sprint, results: dict[str, dict[str, Any]], root: Path = ROOT) -> str | None:
    """Merge one sprint's milestone results into the record, atomically. Returns load()'s warning, if any."""
    record, warning = load(root)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record["sprints"][sprint.folder.name] = {"checked": now, "milestones": results}
    write_atomically(record_path(root), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return warning


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

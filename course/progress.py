"""The learner's own page: what is done, skill by skill, and what is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import outcomes
from .files import write_atomically
from .sprints import ROOT, Sprint


def skills(sprints: list[Sprint], record: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """{skill: (milestones passed, milestones that show it)}, in the order of the course."""
    found: dict[str, tuple[int, int]] = {}
    for sprint in sprints:
        for milestone in sprint.milestones:
            done = outcomes.outcome(record, sprint, milestone.id) == outcomes.PASSED
            for skill in milestone.skills:
                passed, total = found.get(skill, (0, 0))
                found[skill] = (passed + done, total + 1)
    return found


def open_milestones(sprints: list[Sprint], record: dict[str, Any]) -> list[tuple[Sprint, str, str]]:
    """[(sprint, milestone's text, outcome in words)] of all that has not passed."""
    words = {
        None: "not checked yet",
        "failed": "failed",
        "skipped": "skipped",
        "missing": "its test is missing",
    }
    return [
        (sprint, milestone.text, words[state])
        for sprint in sprints
        for milestone in sprint.milestones
        if (state := outcomes.outcome(record, sprint, milestone.id)) != outcomes.PASSED
    ]


def page(sprints: list[Sprint], record: dict[str, Any]) -> str:
    """The learner's page as Markdown."""
    lines = ["# My progress", "", "| Sprint | Milestones | Last checked |", "|---|---:|---|"]
    for sprint in sprints:
        checked = record["sprints"].get(sprint.folder.name, {}).get("checked", "never")[:16].replace("T", " ")
        done = outcomes.passed(record, sprint)
        lines.append(f"| {sprint.label} {sprint.title} | {done} of {len(sprint.milestones)} | {checked} |")
    lines += ["", "## Skills", "", "| Skill | Shown |", "|---|---:|"]
    lines += [f"| {skill} | {done} of {total} |" for skill, (done, total) in skills(sprints, record).items()]
    lines += ["", "## Open", ""]
    still = open_milestones(sprints, record)
    lines += [f"- {sprint.label}: {text} ({state})" for sprint, text, state in still] or ["Nothing."]
    return "\n".join(lines) + "\n"


def write_page(sprints: list[Sprint], record: dict[str, Any], root: Path = ROOT) -> Path:
    """Write progress/mine.md, which git ignores."""
    path = root / "progress" / "mine.md"
    write_atomically(path, page(sprints, record))
    return path

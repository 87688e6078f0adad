"""The learner's page, progress/mine.html: one file without scripts, that loads nothing. Its frame is page.html."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from .files import write_atomically
from .house import CLASSES, MARKS, draw, modules, summary
from .progress import DONE, OUTCOMES, STANDINGS, Overview, Progress, Row, Step, count, duration, when
from .scoreboard import difficulty
from .sources import module_path
from .sprints import ROOT
from .workspace import Workspace

TEMPLATE = Path(__file__).with_name("page.html")
WIDE, NARROW = 900.0, 360.0  # in pixels of a screen on which the letters have their nominal size


def path(root: Path = ROOT) -> Path:
    """Where the page lies; git ignores it."""
    return root / "progress" / "mine.html"


def write(found: Overview, workspace: Workspace, drawn: str, root: Path = ROOT) -> Path:
    """Write the page, and return its path."""
    write_atomically(path(root), page(found, workspace, drawn, root))
    return path(root)


def page(found: Overview, workspace: Workspace, drawn: str, root: Path = ROOT) -> str:
    """The whole page; `drawn` is the time it shows."""
    house = modules(found.rows, workspace, root)
    done, reached = _done(found.rows), sum(progress.reached for progress in found.sprints)
    milestones = sum(len(progress.milestones) for progress in found.sprints)
    exercises = f"{done} of {count(len(found.rows), 'exercise')} passing"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=exercises,
        summary=f"{exercises}, {reached} of {count(milestones, 'milestone')} reached.",
        notices=_notices(found),
        step=_step(found.step),
        house_summary=escape(summary(house)),
        legend=_legend(found.rows),
        wide=draw(house, WIDE, "wide"),
        narrow=draw(house, NARROW, "narrow"),
        sprints="\n".join(map(_sprint, found.sprints)),
        skills=_skills(found.skills),
        drawn=escape(when(drawn)),
    )


def _done(rows: list[Row] | tuple[Row, ...]) -> int:
    return sum(row.standing in DONE for row in rows)


def _badge(standing: str, text: str = "") -> str:
    return f'<span class="badge {CLASSES[standing]}">{MARKS[standing]} {escape(text or standing)}</span>'


def _notices(found: Overview) -> str:
    """Warnings, and what has changed in the reference."""
    boxes = [f'<div class="box warning"><p>{escape(warning)}</p></div>' for warning in found.warnings]
    if found.changed:
        names = "".join(
            f"<dt><code>{escape(module)}</code></dt><dd><code>{escape(', '.join(functions))}</code></dd>"
            for module, functions in found.changed.items()
        )
        boxes.append(
            '<div class="box older"><p><strong>The reference has changed since you began.</strong> Your files '
            "keep the older text of these functions. Where something in them fails, compare them with those of "
            f"<code>shared/</code>.</p><dl>{names}</dl></div>"
        )
    return "\n".join(boxes)


def _step(step: Step) -> str:
    entries = [("Why", escape(step.reason)), ("Where", _code(step.place)), ("Read", _link(step.note))]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in entries if value)
    listed = f"<dl>{listed}</dl>" if listed else ""
    command = f'<code class="command">{escape(step.command)}</code>' if step.command else ""
    return f'<section class="box next"><p><strong>Next:</strong> {escape(step.text)}</p>{listed}{command}</section>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>" if text else ""


def _link(file: str, text: str = "") -> str:
    """A link from progress/ to a file of the repository."""
    return f'<a href="../{escape(quote(file))}">{escape(text or file)}</a>' if file else ""


def _legend(rows: list[Row]) -> str:
    items = []
    for standing in STANDINGS:
        number = sum(row.standing == standing for row in rows)
        items.append(f"<li>{_badge(standing, f'{standing}: {number}')}</li>")
    return f'<ul class="legend" aria-label="Exercises by standing">{"".join(items)}</ul>'


def _sprint(progress: Progress) -> str:
    """One sprint, unfolded where the learner is at work in it."""
    sprint = progress.sprint
    facts = [f"{_done(progress.rows)} of {count(len(progress.rows), 'exercise')}"] if progress.rows else []
    facts.append(f"{progress.reached} of {count(len(progress.milestones), 'milestone')}")
    if progress.checked:
        facts.append(f"last checked {when(progress.checked)}")
    unfolded = " open" if progress.started and not progress.finished else ""
    return (
        f"<details{unfolded}><summary><h3>{sprint.label} {escape(sprint.title)}</h3> "
        f'<span class="soft">{escape(", ".join(facts))}</span></summary>\n'
        f"{_exercises(progress)}{_milestones(progress)}</details>"
    )


def _exercises(progress: Progress) -> str:
    if not progress.rows:
        return ""
    names = ("", "Exercise", "Level", "Minutes", "Hints", "Standing")
    head = "".join(f'<span role="columnheader">{name}</span>' for name in names)
    rows = "\n".join(_row(progress, row) for row in progress.rows)
    return (
        f'<div role="table" aria-label="Exercises of Sprint {progress.sprint.label}">\n'
        f'<div class="row head" role="row">{head}</div>\n{rows}\n</div>\n'
    )


def _row(progress: Progress, row: Row) -> str:
    one = row.exercise
    names = ", ".join(part.name for part in row.parts)
    files = row.place or ", ".join(dict.fromkeys(module_path(part.module).as_posix() for part in row.parts))
    note = f"sprints/{progress.sprint.folder.name}/{one.note}"
    level = f'<span role="img" aria-label="{one.difficulty} of 5">{difficulty(one.difficulty)}</span>'
    why = f'<span class="why" role="cell">{escape(row.message)}</span>' if row.message else ""
    return (
        f'<div class="row" role="row"><span role="cell">{one.number}</span>'
        f'<span class="what" role="cell">{escape(one.title)}'
        f'<span class="soft more">{_code(names)}</span>'
        f'<span class="soft more"><span>{_code(files)}</span> <span>{_link(note, one.note)}</span></span></span>'
        f'<span class="cell level" role="cell">{level}</span>'
        f'<span class="cell" role="cell">{duration(one.minutes)}</span>'
        f'<span class="cell" role="cell" data-name=" hints">{row.hints} of {len(one.hints)}</span>'
        f'<span class="standing" role="cell">{_badge(row.standing)}</span>{why}</div>'
    )


def _milestones(progress: Progress) -> str:
    marks = dict.fromkeys(OUTCOMES.values(), "✗") | {
        OUTCOMES[None]: "·",
        OUTCOMES["skipped"]: "·",
        OUTCOMES["passed"]: "✓",
    }
    items = "".join(
        f'<li><b aria-hidden="true">{marks[words]}</b>{escape(milestone.text)} <span class="soft">({words})</span></li>'
        for milestone, words in progress.milestones
    )
    return f'<details><summary>Milestones</summary><ul class="milestones">{items}</ul></details>'


def _skills(found: dict[str, tuple[int, int]]) -> str:
    items = []
    for skill, (reached, total) in found.items():
        mark = "✓ " if reached == total else ""
        items.append(f'<li><span>{mark}{escape(skill)}</span><span class="soft">{reached} of {total}</span></li>')
    return f'<ul class="skills">{"".join(items)}</ul>'

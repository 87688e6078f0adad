"""The tables that `course grade` writes: grades.csv for a spreadsheet, grades.html to read."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..certify import FAILING, PASSING
from ..files import write_atomically
from ..sprints import CourseError, Exercise, Sprint
from ..workspace import NOT_STARTED, STUB
from .assess import NOT_JUDGED, SAME

if TYPE_CHECKING:
    from .grade import Grade, Row

FILES = ("grades.csv", "grades.html")
COLUMNS = (
    "learner",
    "sprint",
    "exercise",
    "id",
    "title",
    "outcome",
    "message",
    "milestones reached",
    "seconds",
    "reference",
    "date",
)
# outcome: (sign, class in grades.html)
SIGNS = {
    PASSING: ("✓", "passing"),
    FAILING: ("✗", "failing"),
    SAME: ("=", "same"),
    STUB: ("○", "stub"),
    NOT_STARTED: ("·", "none"),
    NOT_JUDGED: ("?", "unknown"),
}
LONGEST = 4000  # characters of a message in grades.html


@dataclass(frozen=True)
class About:
    """What the tables say of themselves: the reference, when, which sprints, what the grader should know."""

    reference: str
    date: str
    sprints: tuple[Sprint, ...]
    warnings: tuple[str, ...] = ()


def write(folder: Path, grades: list[Grade], about: About) -> list[Path]:
    """Writes both tables into `folder`, each atomically; CourseError where one is there already."""
    paths = [folder / name for name in FILES]
    if there := [path for path in paths if path.exists()]:
        raise CourseError(f"{there[0]} exists already and is not overwritten.")
    for path, text in zip(paths, ("\ufeff" + table(grades, about), page(grades, about)), strict=True):
        write_atomically(path, text)
    return paths


# ---------------------------------------------------------------- grades.csv


def cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula.

    >>> cell("=1+1"), cell("ada")
    ("'=1+1", 'ada')
    """
    text = "".join(c for c in text if c.isprintable() or c in "\n\t").strip()
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def brief(row: Row) -> str:
    """The first line of why, the line that names the mistake where the tests recognised it, and the remark."""
    lines = [line.strip() for line in row.message.splitlines() if line.strip()]
    told = lines[:1] + [line for line in lines[1:] if line.startswith("That is what")][:1]
    return " ".join(told + ([f"({row.remark})"] if row.remark else []))[:500]


def reached(grade: Grade, exercise: Exercise) -> str:
    """`1 of 2`: of the exercise's milestones, those reached on the learner's framework as a whole."""
    ids = set(grade.reached.get(f"{exercise.sprint:02d}", []))
    return f"{len(ids & set(exercise.milestones))} of {len(exercise.milestones)}"


def table(grades: list[Grade], about: About) -> str:
    """grades.csv: one row per learner and exercise."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for grade in grades:
        for row in grade.rows:
            e = row.exercise
            what = (str(e.number), e.id, e.title) if e else ("", "", "")
            done = reached(grade, e) if e else ""
            values = (grade.name, row.sprint, *what, row.outcome, brief(row), done, f"{row.seconds:.2f}")
            writer.writerow([cell(value) for value in (*values, about.reference, about.date)])
    return text.getvalue()


# ---------------------------------------------------------------- grades.html


def page(grades: list[Grade], about: About) -> str:
    """grades.html: a matrix of learners and exercises, then every learner in words."""
    template = Template((Path(__file__).parent / "grade.html").read_text(encoding="utf-8"))
    warnings = "".join(f"<li>{escape(text)}</li>" for text in about.warnings)
    return template.substitute(
        date=escape(about.date.replace("T", " ")),
        reference=escape(about.reference),
        learners=_number(len(grades), "learner"),
        exercises=_number(sum(len(sprint.exercises) for sprint in about.sprints), "exercise"),
        legend="".join(f"<li>{_badge(outcome)} {escape(outcome)}</li>" for outcome in SIGNS),
        warnings=f'<ul class="box">{warnings}</ul>' if warnings else "",
        head=_head(about),
        body="\n".join(_line(grade, about) for grade in grades),
        foot=_foot(grades, about),
        details="\n".join(_detail(grade, about) for grade in grades),
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _badge(outcome: str, title: str = "") -> str:
    sign, kind = SIGNS[outcome]
    hint = f' title="{escape(title)}"' if title else ""
    return f'<span class="badge {kind}"{hint}><span aria-hidden="true">{sign}</span></span>'


def _head(about: About) -> str:
    sprints, exercises = [], []
    for sprint in about.sprints:
        size = len(sprint.exercises) + 1
        sprints.append(
            f'<th scope="colgroup" colspan="{size}" class="first">{sprint.label} {escape(sprint.title)}</th>'
        )
        for place, e in enumerate(sprint.exercises):
            first = ' class="first"' if place == 0 else ""
            exercises.append(f'<th scope="col"{first}><abbr title="{escape(e.title)}">{e.number}</abbr></th>')
        exercises.append('<th scope="col"><abbr title="milestones reached on the framework as a whole">M</abbr></th>')
    return (
        f'<tr><th rowspan="2" scope="col">Learner</th><th rowspan="2" scope="col">Passing</th>{"".join(sprints)}</tr>\n'
        f"<tr>{''.join(exercises)}</tr>"
    )


def _line(grade: Grade, about: About) -> str:
    rows = {row.exercise.key: row for row in grade.rows if row.exercise}
    total = sum(len(sprint.exercises) for sprint in about.sprints)
    name = f'<th scope="row"><a href="#{_anchor(grade, about)}">{escape(grade.name)}</a></th>'
    if not rows:
        width = total + len(about.sprints)
        why = escape(grade.rows[0].message)
        return f'<tr>{name}<td>–</td><td class="first why" colspan="{width}">{_badge(NOT_JUDGED)} {why}</td></tr>'
    cells = [f"<td>{_passing(list(rows.values()))} of {total}</td>"]
    for sprint in about.sprints:
        for place, exercise in enumerate(sprint.exercises):
            row = rows[exercise.key]
            text = f"{exercise.label}, {exercise.title}: {row.outcome}. {brief(row)}"
            first = ' class="first"' if place == 0 else ""
            hidden = f'<span class="hidden">{escape(row.outcome)}</span>'
            cells.append(f"<td{first}>{_badge(row.outcome, text)}{hidden}</td>")
        cells.append(f'<td class="soft">{len(grade.reached.get(sprint.label, []))}/{len(sprint.milestones)}</td>')
    return f"<tr>{name}{''.join(cells)}</tr>"


def _passing(rows: list[Row]) -> int:
    return sum(row.outcome == PASSING for row in rows)


def _foot(grades: list[Grade], about: About) -> str:
    rows = [row for grade in grades for row in grade.rows if row.exercise]
    cells = [f"<td>{_passing(rows)}</td>"]
    for sprint in about.sprints:
        for place, exercise in enumerate(sprint.exercises):
            first = ' class="first"' if place == 0 else ""
            here = [row for row in rows if row.exercise and row.exercise.key == exercise.key]
            cells.append(f"<td{first}>{_passing(here)}</td>")
        cells.append("<td></td>")
    return f'<tr><th scope="row">Learners passing</th>{"".join(cells)}</tr>'


def _anchor(grade: Grade, about: About) -> str:
    # Names are the learners' own: an anchor is made of what every browser takes, and of a number that tells it apart.
    import hashlib

    return "learner-" + hashlib.sha256(grade.name.encode("utf-8", "replace")).hexdigest()[:12]


def _detail(grade: Grade, about: About) -> str:
    words = []
    for outcome in SIGNS:
        count = sum(row.outcome == outcome for row in grade.rows if row.exercise)
        if count:
            words.append(f"{count} {outcome}")
    lines = []
    for row in grade.rows:
        if row.exercise is None:
            lines.append(f"<p>{escape(row.message)}</p>")
        elif row.outcome != NOT_STARTED:
            title = f"{row.exercise.label}, {row.exercise.title}"
            first, _, rest = row.message[:LONGEST].partition("\n")
            remark = f' <span class="soft">({escape(row.remark)})</span>' if row.remark else ""
            more = f"<pre>{escape(rest)}</pre>" if rest.strip() else ""
            lines.append(
                f"<li>{_badge(row.outcome)} <b>{escape(title)}</b>: {escape(row.outcome)}{remark}"
                f"{f'<br>{escape(first)}' if first else ''}{more}</li>"
            )
    body = f'<ul class="marks">{"".join(lines)}</ul>' if any(row.exercise for row in grade.rows) else "".join(lines)
    if grade.remarks:
        names = ", ".join(f"<code>{escape(name)}</code>" for name in grade.remarks[:20])
        body += f'<p class="soft">Changed outside the exercises: {names}</p>'
    about_it = f'<span class="soft">{escape(", ".join(words) or NOT_JUDGED)}; {grade.seconds:.0f} s</span>'
    summary = f"<summary><b>{escape(grade.name)}</b> {about_it}</summary>"
    return f'<details id="{_anchor(grade, about)}">{summary}{body}</details>'

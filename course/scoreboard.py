"""The generated tables about exercises: what there is to write, and which classic bugs the tests catch."""

from __future__ import annotations

from . import mutants
from .sprints import Sprint

HOW = (
    "`course start NN` puts the modules into `workspace/` with these bodies blanked, `course check NN 1` judges an "
    "exercise by itself, `course hint NN 1` helps in three steps, `course progress` shows where you are."
)


def cell(text: str) -> str:
    """Text that cannot break out of a table's cell.

    >>> cell("a | b\\nc <d>")
    'a \\\\| b c &lt;d>'
    """
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def difficulty(level: int) -> str:
    """
    >>> difficulty(2)
    '●●○○○'
    """
    return "●" * level + "○" * (5 - level)


def exercise_table(sprint: Sprint) -> str:
    """The sprint's exercises: what is written, where, how hard, how long, after which note, judged by what."""
    texts = {milestone.id: milestone.test_name for milestone in sprint.milestones}
    rows = ["| | Exercise | You write | Difficulty | Minutes | Read first |", "|---:|---|---|---|---:|---|"]
    for exercise in sprint.exercises:
        targets = ", ".join(f"`{target.removeprefix('shared.')}`" for target in exercise.targets)
        note = exercise.note.rpartition("/")[2].partition("_")[0]
        rows.append(
            f"| {exercise.number} | {cell(exercise.title)} | {targets} | {difficulty(exercise.difficulty)} | "
            f"{exercise.minutes} | [{note}]({exercise.note}) |"
        )
    minutes = sum(exercise.minutes for exercise in sprint.exercises)
    judges = len({texts[id] for exercise in sprint.exercises for id in exercise.milestones})
    return "\n".join(
        [*rows, "", f"About {minutes / 60:.1f} hours in all. {judges} milestone tests judge them. " + HOW]
    ).replace("NN", sprint.label)


def bug_table(sprint: Sprint) -> str:
    """The scoreboard of the sprint's mutants, per exercise; what they are stands apart, for it gives things away."""
    listed, killed = _bugs(sprint)
    rows = ["| | Exercise | Classic bugs caught |", "|---:|---|---:|"]
    for exercise in sprint.exercises:
        own = [mutant.name for mutant in listed if mutant.exercise == exercise]
        rows.append(f"| {exercise.number} | {cell(exercise.title)} | {len(killed & {*own})} of {len(own)} |")
    rows.append(f"| | **All** | **{len(killed)} of {len(listed)}** |")
    return "\n".join(
        [
            *rows,
            "",
            "Each is caught by a test whose message names the mistake. [tests/BUGS.md](tests/BUGS.md) lists them with "
            "what the tests say, and gives things away: write your own version first. "
            f"`course mutants {sprint.label}` tries them all.",
        ]
    )


def bug_page(sprint: Sprint) -> str:
    """tests/BUGS.md: each mutant's misconception, and what the failing test says."""
    board, (listed, killed) = mutants.board(sprint), _bugs(sprint)
    lines = [
        f"# Classic bugs of Sprint {sprint.label}",
        "",
        f"{len(killed)} of {len(listed)} small wrong versions of the sprint's exercises are caught, each by a test "
        "whose message names the mistake. The changes themselves are in [mutants.toml](mutants.toml).",
    ]
    for exercise in sprint.exercises:
        lines += ["", f"## {exercise.number} {exercise.title}", ""]
        lines += ["| Misconception | What the failing test says |", "|---|---|"]
        for mutant in (mutant for mutant in listed if mutant.exercise == exercise):
            said = cell(board[mutant.name]["said"]) or "**survives**"
            lines.append(f"| {cell(mutant.misconception)} | {said} |")
    return "\n".join(lines) + "\n"


def _bugs(sprint: Sprint) -> tuple[list[mutants.Mutant], set[str]]:
    """(the sprint's mutants, the names of those that are killed)"""
    board, listed = mutants.board(sprint), mutants.load(sprint)
    return listed, {mutant.name for mutant in listed if board[mutant.name]["killed_by"]}


def course_table(sprints: list[Sprint]) -> str:
    """Per sprint: exercises, minutes, and classic bugs caught, for the root README."""
    rows = ["| Sprint | Exercises | Functions you write | Hours | Classic bugs caught |", "|---|---:|---:|---:|---:|"]
    for sprint in sprints:
        if not sprint.exercises:
            continue
        listed, killed = _bugs(sprint)
        functions = sum(len(exercise.targets) for exercise in sprint.exercises)
        hours = sum(exercise.minutes for exercise in sprint.exercises) / 60
        title = f"[{sprint.label} {sprint.title}](sprints/{sprint.folder.name}/README.md#exercises)"
        rows.append(
            f"| {title} | {len(sprint.exercises)} | {functions} | {hours:.1f} | {len(killed)} of {len(listed)} |"
        )
    return "\n".join(rows)

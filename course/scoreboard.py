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
    """The scoreboard of the sprint's mutants: the misconception, and what the failing test says."""
    board = mutants.board(sprint)
    listed = mutants.load(sprint)
    killed = sum(bool(board[mutant.name]["killed_by"]) for mutant in listed)
    rows = ["| Exercise | Misconception | What the failing test says |", "|---:|---|---|"]
    for mutant in listed:
        said = board[mutant.name]["said"] or "**survives**"
        rows.append(f"| {mutant.exercise.number} | {cell(mutant.misconception)} | {cell(said)} |")
    return "\n".join(
        [
            f"{killed} of {len(listed)} classic bugs are caught, each by a test whose message names the mistake: "
            f"[tests/mutants.toml](tests/mutants.toml) has them, `course mutants {sprint.label}` tries them all.",
            "",
            "<details><summary>The bugs, and what the tests say to each. It gives things away: write your own version "
            "first.</summary>",
            "",
            *rows,
            "",
            "</details>",
        ]
    )


def course_table(sprints: list[Sprint]) -> str:
    """Per sprint: exercises, minutes, and classic bugs caught, for the root README."""
    rows = ["| Sprint | Exercises | Functions you write | Hours | Classic bugs caught |", "|---|---:|---:|---:|---:|"]
    for sprint in sprints:
        if not sprint.exercises:
            continue
        board, listed = mutants.board(sprint), mutants.load(sprint)
        killed = sum(bool(board[mutant.name]["killed_by"]) for mutant in listed)
        functions = sum(len(exercise.targets) for exercise in sprint.exercises)
        hours = sum(exercise.minutes for exercise in sprint.exercises) / 60
        title = f"[{sprint.label} {sprint.title}](sprints/{sprint.folder.name}/README.md#exercises)"
        rows.append(f"| {title} | {len(sprint.exercises)} | {functions} | {hours:.1f} | {killed} of {len(listed)} |")
    return "\n".join(rows)

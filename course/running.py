"""The main job: every notebook in order, then every milestone, then the table of what was reached."""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import notebooks
from .checking import Check
from .checking import check as run_tests
from .sprints import CourseError, load_sprint, notebooks_of

PREFETCHED = ("mnist-5k", "tinyshakespeare", "gpt2-bpe")
STYLES = {"passed": "green", "failed": "red", "skipped": "yellow", "missing": "red"}


def prefetch() -> None:
    """Fetch the small packages that carry the course's default data; say so and go on where that fails."""
    from shared.data import catalog

    for name in PREFETCHED:
        try:
            here = catalog.status(name) in ("cached", "course-data", "embedded")
            catalog.fetch(name, progress=not here)
            print(f"data: {name} is here")
        except (catalog.DatasetUnavailable, ValueError, OSError) as error:
            print(f"data: {error}\n      Lessons go on with what is inside the installed packages.")


def execute_all(folders: list[Path], write: bool) -> tuple[dict[Path, float], list[tuple[Path, str]]]:
    """({notebook: seconds}, [(notebook, what failed)]); a broken notebook does not stop the next one."""
    from tqdm import tqdm

    paths = [path for folder in folders for path in notebooks_of(folder)]
    if not paths:
        raise CourseError("There is no notebook to run.")
    counts = {path: sum(cell["cell_type"] == "code" for cell in notebooks.read(path).cells) for path in paths}
    seconds: dict[Path, float] = {}
    failures: list[tuple[Path, str]] = []
    live = sys.stderr.isatty()
    total = sum(counts.values())
    with tqdm(total=total, unit="cell", mininterval=0.2 if live else 10, ncols=None if live else 90) as bar:
        finished = 0

        def advance(base: int, done: int) -> None:
            bar.update(base + done - bar.n)

        for path in paths:
            bar.set_description(f"{path.parent.parent.name[:2]}/{path.stem}")
            base, started = finished, time.perf_counter()
            try:
                executed, seconds[path] = notebooks.execute(path, on_cell=partial(advance, base))
                if write:
                    notebooks.write_executed(path, executed)
            except CourseError as error:
                failures.append((path, str(error)))
                seconds[path] = time.perf_counter() - started
            finished += counts[path]
            bar.update(finished - bar.n)
    return seconds, failures


def check_reference(folder: Path) -> Check | None:
    """Run one sprint's milestones on the reference; None, with a message, where its tests could not be run."""
    try:
        return run_tests(load_sprint(folder))
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        return None


def print_milestones(checks: list[Check], notebook_seconds: dict[str, float]) -> None:
    """The table of milestones with outcomes, times, and what the tests measured (`record_property`)."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    table = Table("", "Milestone", "Outcome", "Seconds", box=None, pad_edge=False)
    for result in checks:
        sprint, name = result.sprint, result.sprint.folder.name
        times = [f"tests {result.seconds:.0f} s (budget {sprint.tests_seconds:g})"]
        if name in notebook_seconds:
            times.insert(0, f"notebooks {notebook_seconds[name]:.0f} s (budget {sprint.notebooks_seconds:g})")
        table.add_row(sprint.label, f"{escape(sprint.title)}: {', '.join(times)}", style="bold")
        for milestone in sprint.milestones:
            entry = result.milestones[milestone.id]
            outcome = f"[{STYLES[entry['outcome']]}]{entry['outcome']}[/]"
            remark = ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in entry["measured"].items())
            if entry["outcome"] != "passed":
                remark = waiting(entry["message"]) or entry["message"].partition("\n")[0]
            text = escape(milestone.text) + (f"\n[dim]{escape(remark)}[/]" if remark else "")
            table.add_row("", text, outcome, f"{entry['seconds']:.2f}")
        table.add_row()
    console.print("\n[bold]Milestones[/]\n", table)
    states = [entry["outcome"] for result in checks for entry in result.milestones.values()]
    console.print(f"{states.count('passed')} of {len(states)} milestones reached.")


def waiting(message: str) -> str | None:
    """What a stub's message says in a table's row; None for any other message.

    >>> waiting("NotImplementedError: Sprint 01, exercise 2: Undo broadcasting; not written yet. Read …")
    'waits for Sprint 01, exercise 2'
    """
    match = re.match(r"NotImplementedError: (Sprint \d\d, exercise \d+): .*; not written yet", message)
    return f"waits for {match[1]}" if match else None


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

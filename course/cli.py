"""The commands. Each is a few lines here; the work is in the module it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .environment import environment
from .sprints import ROOT, CourseError, find_folder, load_sprint, load_sprints, notebooks_of, sprint_folders

app = typer.Typer(
    help="Sprint to GPT: run the course, check what you built, see how far you are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets: list, fetch, verify.", no_args_is_help=True)
app.add_typer(data_app, name="data")

console = Console()
STYLES = {"ok": "green", "note": "cyan", "slow": "yellow", "broken": "red"}

SprintName = Annotated[str | None, typer.Argument(metavar="[NN]", help="Sprint number, e.g. 03.")]


def main() -> int:
    """Run the command line; a CourseError becomes one readable message and exit code 1."""
    try:
        app(standalone_mode=True)
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncourse: stopped.", file=sys.stderr)
        return 130
    return 0


# ---------------------------------------------------------------- looking


@app.command("list")
def list_sprints() -> None:
    """List the sprints, with hours and your milestones."""
    from . import outcomes
    from .docs import planned

    record = _record()
    sprints = {sprint.number: sprint for sprint in load_sprints()}
    table = Table("", "Sprint", "Hours", "Milestones", "Notebooks", box=None, pad_edge=False)
    for entry in planned():
        label = f"{entry['number']:02d}"
        if sprint := sprints.get(entry["number"]):
            done = f"{outcomes.passed(record, sprint)} of {len(sprint.milestones)}"
            table.add_row(label, sprint.title, f"{sprint.hours:g}", done, str(len(sprint.notebooks)))
        else:
            table.add_row(label, entry["title"], f"{entry['hours']:g}", "planned", "", style="dim")
    console.print(table)


@app.command()
def progress(
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show where every exercise stands, skill by skill, and the next step; writes progress/mine.html too."""
    import webbrowser

    from . import outcomes, page
    from . import progress as standings
    from .workspace import Workspace

    workspace = Workspace()
    found = standings.overview(workspace)
    if not found.sprints:
        raise CourseError("There is no sprint here yet.")
    for warning in found.warnings:
        print(f"course: {warning}", file=sys.stderr)
    standings.show(found, console)
    written = page.write(found, workspace, outcomes.now())
    print(f"\nAs a page, with a picture of the framework: {written.relative_to(ROOT)}")
    if browser and not webbrowser.open(written.as_uri()):
        raise CourseError(f"no browser could be opened; open {written.relative_to(ROOT)} yourself.")


@app.command()
def doctor() -> None:
    """Say what this machine has, what would be slow and why, and what to do about it."""
    from . import doctor as checks

    found = checks.findings()
    table = Table("", "", "", box=None, pad_edge=False, show_header=False)
    for finding in found:
        table.add_row(finding.name, f"[{STYLES[finding.state]}]{finding.state}[/]", escape(finding.text))
        if finding.remedy:
            table.add_row("", "", f"→ {escape(finding.remedy)}")
    console.print(table)
    if any(finding.state == checks.BROKEN for finding in found):
        raise typer.Exit(1)


@app.command()
def lab(
    sprint: SprintName = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab at your current sprint, or at the one you name."""
    from . import outcomes

    if sprint:
        folder = find_folder(sprint)
    elif chosen := outcomes.current(load_sprints(), _record()):
        folder = chosen.folder
    else:
        raise CourseError("There is no sprint here yet.")
    notebooks = notebooks_of(folder)
    target = (notebooks[0] if notebooks else folder).relative_to(ROOT)
    print(f"Opening {target}; stop with Ctrl-C.", flush=True)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}", str(ROOT / target)]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # a container: Jupyter asks for a word of consent
        command.append("--allow-root")
    raise typer.Exit(
        subprocess.run([*command, *([] if browser else ["--no-browser"])], cwd=ROOT, env=environment(ROOT)).returncode
    )


@app.command()
def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="FOLDER|NAME", help="A folder with a model, or gpt2, distilgpt2, …; repeatable."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Serve to everybody who can reach this machine, not only to yourself.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    reference: Annotated[
        bool, typer.Option("--reference", help="Run the reference, whatever lies in workspace/.")
    ] = False,
) -> None:
    """Write with a model in the browser: strategies, probabilities, attention. Only on this machine, 127.0.0.1.

    The functions that you have written in workspace/ are used.
    """
    print("Starting …", flush=True)
    from .extension import activate_for_program

    print("\n".join(activate_for_program(reference)), flush=True)
    from .demo import server  # its pages import shared

    server.serve(model or [], port, public, browser)


# ---------------------------------------------------------------- running


@app.command()
def run(
    sprint: SprintName = None,
    write: Annotated[bool, typer.Option("--write", help="Store the outputs in the notebooks.")] = False,
) -> None:
    """Execute a sprint's notebooks, each in a fresh kernel; without NN, the whole course and its milestones.

    Without --write the notebooks on disk stay as they are.
    """
    from . import running

    folders = [find_folder(sprint)] if sprint else sprint_folders()
    if not sprint and not write:
        running.prefetch()
    seconds, failures = running.execute_all(folders, write)
    if sprint or write:
        for path, error in failures:
            print(f"\n{path.relative_to(ROOT)}\n{error}", file=sys.stderr)
        if failures:
            raise CourseError(f"{len(failures)} of {sum(len(notebooks_of(f)) for f in folders)} notebooks failed.")
        for path, taken in seconds.items():
            print(f"{path.relative_to(ROOT)}: {taken:.1f} s{', written' if write else ''}")
        return

    checks = []
    for number, folder in enumerate(folders, 1):
        print(f"\nMilestones of {folder.name} ({number} of {len(folders)})", flush=True)
        checks.append(running.check_reference(folder))
    for path, error in failures:
        print(f"\n{path.relative_to(ROOT)}\n{error}", file=sys.stderr)
    per_sprint = {f.name: sum(s for path, s in seconds.items() if f in path.parents) for f in folders}
    running.print_milestones([c for c in checks if c], per_sprint)
    broken = [path.name for path, _ in failures]
    broken += [f.name for f, c in zip(folders, checks, strict=True) if not (c and c.ok)]
    if broken:
        raise CourseError(f"not everything passed: {', '.join(broken)}.")
    print("Every notebook ran and no milestone failed.")


# ---------------------------------------------------------------- exercises

ExerciseNumber = Annotated[int, typer.Argument(metavar="K", help="The exercise's number in its sprint.")]
OneSprint = Annotated[str, typer.Argument(metavar="NN", help="Sprint number, e.g. 03.")]


@app.command()
def start(
    sprint: SprintName = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Every exercise of every sprint: build the whole framework.")
    ] = False,
) -> None:
    """Put the modules of a sprint's exercises into workspace/, their bodies blanked; what you wrote there stays."""
    from . import exercises

    if (sprint is None) != from_scratch:
        raise CourseError("name the sprint to start (course start 01), or --from-scratch for all of them.")
    exercises.start(load_sprints() if sprint is None else [load_sprint(find_folder(sprint))])


@app.command()
def reset(
    sprint: OneSprint,
    exercise: Annotated[
        int | None, typer.Argument(metavar="[K]", help="One exercise; all of the sprint's without.")
    ] = None,
) -> None:
    """Put the stub of an exercise back, or of all of a sprint's. Your text is kept under workspace/backup/."""
    from . import exercises

    exercises.reset(load_sprint(find_folder(sprint)), exercise)


@app.command()
def renew() -> None:
    """Bring what the reference has changed since you started into your modules; your own functions stay."""
    from . import exercises

    exercises.renew()


@app.command()
def hint(
    sprint: OneSprint,
    exercise: ExerciseNumber,
    again: Annotated[bool, typer.Option("--again", help="Only the hints you have had already.")] = False,
) -> None:
    """Give the next of an exercise's three hints."""
    from . import exercises

    exercises.hint(load_sprint(find_folder(sprint)), exercise, again)


@app.command()
def solution(
    sprint: OneSprint,
    exercise: ExerciseNumber,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even before a first attempt.")] = False,
) -> None:
    """Show the difference between your version of an exercise and the reference's."""
    from . import exercises

    exercises.solution(load_sprint(find_folder(sprint)), exercise, yes)


@app.command()
def check(
    sprint: SprintName = None,
    exercise: Annotated[int | None, typer.Argument(metavar="[K]", help="Judge only this exercise.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks, and what your code printed.")] = False,
) -> None:
    """Test what you built, record it under progress/, and show it: a sprint, one exercise, or all you have started."""
    from . import exercises

    sprints = [load_sprint(find_folder(sprint))] if sprint else load_sprints()
    if not exercises.check(sprints, exercise, verbose):
        raise typer.Exit(1)


@app.command()
def mutants(
    sprint: SprintName = None,
    name: Annotated[str | None, typer.Option("--name", help="Only the mutants whose name contains this.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Renew tests/mutants.json, for the scoreboard.")] = False,
) -> None:
    """Put each classic bug into the framework and see whether the milestone tests catch and explain it."""
    from . import exercises

    sprints = [load_sprint(find_folder(sprint))] if sprint else load_sprints()
    if not exercises.mutants(sprints, name or "", write):
        raise typer.Exit(1)


# ---------------------------------------------------------------- for teachers


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="One folder, or zip file, per learner.")],
    sprint: Annotated[list[str] | None, typer.Option("--sprint", metavar="NN", help="Repeatable; else all.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the tables go; default: grades-DATE beside FOLDER.")] = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds per learner and sprint.")] = 300.0,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.1, help="Seconds per test.")] = 10.0,
    processes: Annotated[int, typer.Option(min=1, help="Learners graded at a time.")] = 2,
) -> None:
    """Grade a folder of learners' workspaces: grades.csv and grades.html, per learner and exercise.

    The exit code is 0 when every learner was graded, whatever the grades. course/TEACHERS.md says what they certify.
    """
    from .grading import grade as grading

    grades, warnings, paths = grading.grade(folder, sprint, out, limit, time_limit, processes)
    for warning in warnings:
        print(f"course: {warning}", file=sys.stderr)
    table = Table("Learner", "Exercises", "Seconds", box=None, pad_edge=False)
    for one in grades:
        words = ", ".join(f"{count} {outcome}" for outcome, count in grading.counts(one).items())
        table.add_row(escape(one.name), escape(words or one.rows[0].message), f"{one.seconds:.1f}")
    console.print(table)
    for path in paths:
        print(f"written: {path}")


# ---------------------------------------------------------------- data


@data_app.command("list")
def data_list() -> None:
    """List the datasets, and where each one is."""
    from shared.data import catalog

    table = Table("Name", "What", "Size", "Licence", "Where", box=None, pad_edge=False)
    for entry in catalog.entries():
        size = f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else ""
        table.add_row(entry.name, entry.title, size, entry.license, catalog.status(entry.name))
    console.print(table)


@data_app.command("fetch")
def data_fetch(names: Annotated[list[str], typer.Argument(help="Names as in `course data list`.")]) -> None:
    """Make sure that datasets are on this machine: download what is missing, compare checksums."""
    from shared.data import catalog

    failed = 0
    for name in names:
        _known(name)
        try:
            paths = catalog.fetch(name)
            print(f"{name}: {', '.join(map(str, paths.values())) or 'inside an installed package'}")
        except catalog.DatasetUnavailable as error:
            failed += 1
            print(f"course: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names; every dataset when left out.")] = None,
) -> None:
    """Compare the checksums of the files that are here; changes nothing. Exits with 1 if one is damaged."""
    from tqdm import tqdm

    from shared.data import catalog

    damaged = 0
    chosen = [_known(name) for name in names] if names else [entry.name for entry in catalog.entries()]
    for name in tqdm(chosen, unit="set", leave=False):
        for path, state in catalog.verify(name).items():
            if state == "missing" and not names:
                continue
            damaged += state != "ok"
            tqdm.write(f"{name}: {path}: {state}")
    print("All files that are here are intact." if not damaged else f"{damaged} file(s) missing or damaged.")
    if damaged:
        raise typer.Exit(1)


def _known(name: str) -> str:
    from shared.data import catalog

    try:
        return catalog.entry(name).name
    except ValueError as error:
        raise CourseError(str(error)) from None


# ---------------------------------------------------------------- for those who write the course


@app.command()
def docs(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 1 if anything is stale.")] = False,
) -> None:
    """Rewrite the generated parts: milestone tables, README tables, MILESTONES.md, progress/."""
    from . import docs as generator

    if check:
        trouble = generator.stale()
        changed: list[Path] = []
    else:
        changed, trouble = generator.write()
        trouble += generator.stale_metrics()
    for path in changed:
        print(f"written: {path.relative_to(ROOT)}")
    for problem in trouble:
        print(problem, file=sys.stderr)
    if trouble:
        raise CourseError(f"{len(trouble)} generated part(s) need attention.")
    print("All generated parts are up to date.")


@app.command("notebooks")
def check_notebooks(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if anything is wrong.")] = False,
) -> None:
    """Check that committed notebooks were executed, hold no error or machine path, and are not stale."""
    from . import notebooks
    from .sprints import all_notebooks

    wrong = 0
    for path in all_notebooks():
        for problem in notebooks.problems(path):
            wrong += 1
            print(f"{path.relative_to(ROOT)}: {problem}")
    print("All notebooks are fresh." if not wrong else f"{wrong} problem(s) found.")
    if check and wrong:
        raise typer.Exit(1)


@app.command()
def setup(
    extra: Annotated[list[str] | None, typer.Option(help="An extra, e.g. parity or gpu.")] = None,
) -> None:
    """Make or update .venv. (`python -m course setup` does it before anything is installed.)"""
    from . import bootstrap

    raise typer.Exit(bootstrap.main([f"--extra={name}" for name in extra or []]))


def _record() -> dict:
    from . import outcomes

    record, warning = outcomes.load()
    if warning:
        print(f"course: {warning}", file=sys.stderr)
    return record

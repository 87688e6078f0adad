"""The commands. Each one is a few lines here; the work is in the module it names."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .sprints import ROOT, CourseError, find_folder, notebooks_of, sprint_folders

app = typer.Typer(
    help="Sprint to GPT: run, check and follow the course.", no_args_is_help=True, rich_markup_mode="rich"
)


def main() -> None:
    """Entry point: a CourseError becomes one readable message and exit code 1."""
    try:
        app()
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ncourse: stopped.", file=sys.stderr)
        sys.exit(130)


@app.command()
def run(
    sprint: Annotated[
        str | None, typer.Argument(help="Sprint number, e.g. 03; all sprints when left out.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Store the outputs in the notebooks.")] = False,
) -> None:
    """Execute notebooks headless, in order, each in a fresh kernel. Without --write the tree stays clean."""
    from tqdm import tqdm

    from . import notebooks

    folders = [find_folder(sprint)] if sprint else sprint_folders()
    paths = [path for folder in folders for path in notebooks_of(folder)]
    if not paths:
        raise CourseError("There is no notebook to run.")
    for path in paths:
        total = sum(cell["cell_type"] == "code" for cell in notebooks.read(path).cells)
        with tqdm(total=total, desc=f"{path.parent.parent.name[:2]} {path.name}", unit="cell") as bar:
            executed, seconds = notebooks.execute(
                path, on_cell=lambda done, _, bar=bar: bar.update(done - bar.n)
            )
        if write:
            notebooks.write_executed(path, executed)
        print(f"{path.relative_to(ROOT)}: {total} cells in {seconds:.1f} s{', written' if write else ''}")


@app.command("notebooks")
def check_notebooks(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if anything is wrong.")] = False,
) -> None:
    """Check that committed notebooks were executed, hold no error and no path of one machine, and are not stale."""
    from . import notebooks

    wrong = 0
    for folder in sprint_folders():
        for path in notebooks_of(folder):
            for problem in notebooks.problems(path):
                wrong += 1
                print(f"{path.relative_to(ROOT)}: {problem}")
    print("All notebooks are fresh." if not wrong else f"{wrong} problem(s) found.")
    if check and wrong:
        raise typer.Exit(1)

"""A notebook (`%load_ext course`) or the demo imports the learner's modules; what is not written is the reference's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .preflight import problems, static_problems
from .sprints import ROOT, CourseError, Exercise, load_sprints
from .testing import EXCEPTIONS, VARIABLE, describe, take_from_reference, unwritten
from .workspace import Workspace


def activate(folder: Path | None = None) -> list[str]:
    """Name the workspace in the environment, before `shared` is imported, and say whose code will run, in lines.

    Raises CourseError where `shared` was imported already, from the reference or another workspace.
    """
    folder = folder or Path(os.environ.get(VARIABLE) or ROOT / "workspace").absolute()
    if not (folder / "shared").is_dir():
        if os.environ.get(VARIABLE):
            raise CourseError(f"{VARIABLE}={os.environ[VARIABLE]} names no workspace: there is no folder shared in it.")
        return ["framework: the reference (you have not started a sprint yet: course start 01)"]
    overlay = sys.modules.get("shared.overlay")
    if overlay is not None and overlay.workspace() != folder:
        raise CourseError(
            "shared is imported already: restart the kernel and run `%load_ext course` in its first cell."
        )
    if overlay is None and "shared" in sys.modules:
        raise CourseError("importing shared failed before: restart the kernel and run `%load_ext course` first.")
    workspace, started = _use(folder)
    lines = describe(workspace, started, {})
    if found := static_problems(workspace):
        lines += ["", "Importing shared will fail, or run without a part of yours, until this is mended:"]
        lines += [f"    {problem.text}" for problem in found]
        lines += ["Mend it, restart the kernel, and run `%load_ext course` again."]
    return lines


def activate_for_program(reference: bool = False, folder: Path | None = None) -> list[str]:
    """The same for a program that has to run: the reference stands in for a module that cannot be used.

    With `reference`, or where nothing was started, the reference runs throughout. `shared` must not be imported yet.
    """
    folder = folder or Path(os.environ.get(VARIABLE) or ROOT / "workspace").absolute()
    if not reference and os.environ.get(VARIABLE) and not (folder / "shared").is_dir():
        raise CourseError(f"{VARIABLE}={os.environ[VARIABLE]} names no workspace: there is no folder shared in it.")
    begun = (folder / "shared").is_dir()
    if reference or not begun:
        for name in (VARIABLE, EXCEPTIONS):
            os.environ.pop(name, None)
        return ["framework: the reference" + (" (without --reference: yours)" if begun else "")]
    workspace, started = _use(folder)
    broken = {problem.module: problem for problem in problems(workspace)}
    take_from_reference([*broken])
    return describe(workspace, started, broken)


def _use(folder: Path) -> tuple[Workspace, list[Exercise]]:
    """Names the workspace in the environment, and what it lacks as the reference's; returns it, and what is begun."""
    os.environ[VARIABLE] = str(folder)
    workspace = Workspace(folder)
    started = [e for sprint in load_sprints() for e in sprint.exercises if workspace.started(e)]
    take_from_reference(unwritten(workspace, started))
    return workspace, started

"""`%load_ext course`: a notebook's kernel imports the learner's modules, and what is not written from the reference."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .preflight import static_problems
from .sprints import ROOT, CourseError, load_sprints
from .testing import VARIABLE, describe, take_from_reference, unwritten
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
    os.environ[VARIABLE] = str(folder)
    workspace = Workspace(folder)
    started = [e for sprint in load_sprints() for e in sprint.exercises if workspace.started(e)]
    take_from_reference(unwritten(workspace, started))
    lines = describe(workspace, started, {})
    if found := static_problems(workspace):
        lines += ["", "Importing shared will fail, or run without a part of yours, until this is mended:"]
        lines += [f"    {problem.text}" for problem in found]
        lines += ["Mend it, restart the kernel, and run `%load_ext course` again."]
    return lines

"""`%load_ext course`: a notebook's kernel imports the learner's modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .sprints import ROOT, CourseError, load_sprints
from .testing import VARIABLE, describe
from .workspace import Workspace


def activate(folder: Path | None = None) -> list[str]:
    """Name the workspace in the environment, before `shared` is imported, and say whose code will run, in lines.

    Raises CourseError where `shared` was imported already, from the reference or another workspace.
    """
    folder = folder or Path(os.environ.get(VARIABLE) or ROOT / "workspace").absolute()
    if not (folder / "shared").is_dir():
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
    return describe(workspace, started, {})

"""What is wrong with a workspace before any test runs: files that do not parse, lost names, failing imports.

A broken file is the learner's to mend, but it must not hide how the rest is doing: the tests of its exercises fail with
the problem in words, and everything else runs with the reference in that one module's place.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import sources
from .environment import environment
from .sprints import ROOT
from .workspace import Workspace

IMPORT_SECONDS = 30.0


@dataclass(frozen=True)
class Problem:
    """A module of the workspace that cannot be used, and why."""

    module: str
    text: str


def problems(workspace: Workspace) -> list[Problem]:
    """Every module of the workspace that cannot be used, each with a sentence that names file and line."""
    found = []
    for module in workspace.modules():
        if text := static_problem(workspace, module):
            found.append(Problem(module, text))
    while len(found) < len(workspace.modules()):
        problem = _import_problem(workspace, [p.module for p in found])
        if problem is None:
            break
        found.append(problem)
    return found


def static_problem(workspace: Workspace, module: str) -> str | None:
    """What is wrong with a module of the workspace as a text, without importing it; None where nothing is."""
    path = workspace.file(module)
    where = workspace.show(path)
    if not (workspace.root / sources.module_path(module)).exists():
        return None  # a module of the learner's own
    try:
        text = path.read_text(encoding="utf-8")
        compile(text, str(path), "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        return f"{where}, line {error.lineno}: {error.msg}" + (f": `{line}`" if line else "")
    except ValueError as error:  # null bytes, not UTF-8
        return f"{where}: {error}"
    here, expected = sources.definitions(text) | _bound(text), sources.definitions(workspace.reference(module))
    lost = [name for name in sorted(expected - here) if name.rpartition(".")[0] not in expected - here]
    if lost:
        names = ", ".join(f"`{name}`" for name in lost)
        return (
            f"{where}: {names} {'is' if len(lost) == 1 else 'are'} gone (deleted or renamed?), and other code calls "
            f"{'it' if len(lost) == 1 else 'them'}. `course reset` puts the stub of an exercise back"
        )
    return None


def _bound(text: str) -> set[str]:
    """Names that the module binds at its top without `def` or `class`: `relu = some_function`."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _import_problem(workspace: Workspace, without: list[str]) -> Problem | None:
    """The module of the workspace because of which importing all of them ends in an error; None if none does."""
    modules = [module for module in workspace.modules() if module not in without]
    if not modules:
        return None
    code = (
        "import faulthandler, importlib, sys\n"
        f"faulthandler.dump_traceback_later({IMPORT_SECONDS}, exit=True)\n"
        f"import shared\nfor name in {modules}: importlib.import_module(name)\n"
    )
    variables = environment(ROOT, SHARED_WORKSPACE=str(workspace.folder), SHARED_REFERENCE=",".join(without))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        done = subprocess.run([sys.executable, "-c", code], env=variables, stdout=output, stderr=output)
        output.seek(0)
        text = output.read()
    if done.returncode == 0:
        return None
    frames = [(Path(file), int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', text)]
    if "Timeout (" in text:
        frames.reverse()  # faulthandler lists the innermost frame first
        reason = f"importing it did not end within {IMPORT_SECONDS:g} s"
    elif done.returncode < 0:
        reason = f"importing it ended the process with signal {-done.returncode}"
    else:
        reason = text.strip().rpartition("\n")[2] or f"importing it ended the process with exit code {done.returncode}"
    files = {os.path.realpath(workspace.file(module)): module for module in modules}
    for path, line in reversed(frames):
        if module := files.get(os.path.realpath(path)):
            where = workspace.show(workspace.file(module))
            return Problem(module, f"{where}, line {line}: {reason}")
    # Nothing points at one of them (the process was ended, or a name is missing): the first without which it works.
    for module in modules:
        if _import_problem_of_rest(workspace, [*without, module], code):
            continue
        return Problem(module, f"{workspace.show(workspace.file(module))}: {reason}")
    return Problem(modules[0], f"{workspace.show(workspace.file(modules[0]))}: {reason}")


def _import_problem_of_rest(workspace: Workspace, without: list[str], code: str) -> bool:
    """True where the import still fails without these modules."""
    variables = environment(ROOT, SHARED_WORKSPACE=str(workspace.folder), SHARED_REFERENCE=",".join(without))
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
    return done.returncode != 0

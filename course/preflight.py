"""What is wrong with a workspace before any test runs: files that do not parse, lost names, failing imports.

A broken file is the learner's to mend, but it must not hide how the rest is doing: the tests of its exercises fail with
the problem in words, and everything else runs with the reference in that one module's place.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import sources
from .environment import environment
from .sprints import ROOT
from .workspace import Part, Workspace

IMPORT_SECONDS = 30.0


@dataclass(frozen=True)
class Problem:
    """A module of the workspace that cannot be used, and why."""

    module: str
    text: str


def problems(workspace: Workspace, seconds: float = IMPORT_SECONDS) -> list[Problem]:
    """Every module of the workspace that cannot be used, each with a sentence that names file and line.

    Importing all of them may take `seconds`.
    """
    found = static_problems(workspace)
    while problem := _import_problem(workspace, [p.module for p in found], seconds):
        found.append(problem)
    return found


def static_problems(workspace: Workspace) -> list[Problem]:
    """What can be found wrong without running anything of the learner's."""
    modules = dict.fromkeys([*workspace.modules(), *workspace.expected()])
    return [Problem(module, text) for module in modules if (text := static_problem(workspace, module))]


def static_problem(workspace: Workspace, module: str) -> str | None:
    """What is wrong with a module of the workspace as a text, without importing it; None where nothing is."""
    path = workspace.file(module)
    where = workspace.show(path)
    if not (workspace.root / sources.module_path(module)).exists():
        return None  # a module of the learner's own
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "is gone (deleted or renamed?)"
        return f"{where} {kind}; `course reset` with the sprint's number puts the file back"
    try:
        text = sources.read(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sources.parse(text)
            compile(text, str(path), "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        return f"{where}, line {error.lineno}: {error.msg}" + (f": `{line}`" if line else "")
    except OSError as error:
        return f"{where} cannot be read: {error.strerror}"
    expected = sources.definitions(workspace.reference(module))
    lost = expected - sources.definitions(text, assigned=True)
    names = [name for name in sorted(lost) if name.rpartition(".")[0] not in lost]
    if names:
        return (
            f"{where}: {', '.join(f'`{name}`' for name in names)} {'is' if len(names) == 1 else 'are'} gone (deleted "
            f"or renamed?), and other code calls {'it' if len(names) == 1 else 'them'}. `course reset` puts the stub "
            f"of an exercise back"
        )
    return None


def reason(workspace: Workspace, part: Part, found: Iterable[Problem] = ()) -> str:
    """Why the tests of a function that is missing, or whose file is broken, cannot be run; `found` by problems()."""
    problem = next((p.text for p in found if p.module == part.module), static_problem(workspace, part.module))
    where = workspace.show(workspace.file(part.module))
    return problem or f"{where}: there is no `def {part.name}` there any more; `course reset` puts its stub back"


# ---------------------------------------------------------------- importing


def _import_problem(workspace: Workspace, without: list[str], seconds: float) -> Problem | None:
    """The module of the workspace because of which importing all of them ends in an error; None if none does."""
    reference = (name for name in workspace.modules() if (workspace.root / sources.module_path(name)).exists())
    modules = [module for module in reference if module not in without]
    if not modules or (text := _imported(workspace, modules, without, seconds)) is None:
        return None
    frames = [(file, int(line)) for file, line in re.findall(r'File "([^"\n]+)", line (\d+)', text)]
    text, _, why = text.strip().rpartition("\n")
    if match := re.search(
        r"(?:cannot import name '\w+' from (?:partially initialized module )?|module )'([\w.]+)'", why
    ):
        if match[1] in modules:  # it lacks something, and another module noticed
            return Problem(match[1], f"{workspace.show(workspace.file(match[1]))}: {why}")
    files = {os.path.realpath(workspace.file(name)): name for name in workspace.modules()}
    mine = [(files[path], line) for file, line in frames if (path := os.path.realpath(file)) in files]
    if module := next((name for name, _ in mine if name in modules), None):
        name, line = mine[0]  # it may be a module of the learner's own that this one imports
        return Problem(module, f"{workspace.show(workspace.file(name))}, line {line}: {why}")
    # Nothing points at one of them (the process was ended): the first without which it works.
    rest = (module for module in modules if _imported(workspace, modules, [*without, module], seconds) is None)
    module = next(rest, modules[0])
    return Problem(module, f"{workspace.show(workspace.file(module))}: {why}")


IMPORT = """
import faulthandler, importlib, os, sys, traceback
log = open({log!r}, "w", encoding="utf-8")
faulthandler.enable(log)
faulthandler.dump_traceback_later({seconds}, exit=True, file=log)
try:
    import shared
    for name in {modules}:
        importlib.import_module(name)
    text = "done"
except BaseException as error:
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        print(f'File "{{error.filename}}", line {{error.lineno}}', file=log)
    for frame in reversed(frames):
        print(f'File "{{frame.filename}}", line {{frame.lineno}}', file=log)
    text = " ".join(str(error).split())
    text = "importing it ended with " + type(error).__name__ + (f": {{text}}" if text else "")
print(text, file=log, flush=True)
os._exit(0)
"""


def _imported(workspace: Workspace, modules: list[str], without: list[str], seconds: float) -> str | None:
    """None where importing the modules works, all but those `without` from the workspace; else what went wrong.

    The text is a line `File "…", line …` per frame, the innermost first, and the reason in its last line.
    """
    variables = environment(ROOT, SHARED_WORKSPACE=str(workspace.folder), SHARED_REFERENCE=",".join(without))
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        # The process says in a file how it ended: its exit code is 0 too where the learner's module calls exit().
        script, log = Path(folder) / "script.py", Path(folder) / "log"
        script.write_text(IMPORT.format(seconds=seconds, modules=modules, log=str(log)), encoding="utf-8")
        nothing = subprocess.DEVNULL
        command = [sys.executable, str(script)]
        process = subprocess.Popen(command, env=variables, stdin=nothing, stdout=nothing, stderr=nothing)
        try:
            code = process.wait(seconds + 10)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    last = text.rpartition("\n")[2]
    if last == "done":
        return None
    if code is None or "Timeout (" in text:
        busy = "Or a busy machine: then try once more."
        return f"{text}\nimporting it did not end within {seconds:g} s: an endless loop? {busy}"
    if code < 0:
        return f"{text}\nimporting it ended the process with signal {signal.Signals(-code).name}"
    if last.startswith("importing it ended with "):
        return text
    return f"importing it ended the process with exit code {code}"

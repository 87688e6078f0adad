"""`course renew`: what the reference has changed since a learner's modules were copied, brought into them."""

from __future__ import annotations

import ast
from pathlib import Path

from . import sources
from .sprints import CourseError, load_sprints
from .workspace import STUB, Workspace


def renew(workspace: Workspace) -> tuple[list[Path], list[str]]:
    """Rebuilds every module from today's reference with the learner's functions in it; (copies of the old, remarks).

    The learner's functions are those of begun exercises, those that are not as they were copied, and those the
    reference does not have. Other lines come from the reference; a remark names those that only the learner had.
    Raises CourseError, before anything is written, for a module that Python cannot read.
    """
    texts: dict[str, str] = {}
    remarks: list[str] = []
    for module in workspace.modules():
        if not (workspace.root / sources.module_path(module)).exists():
            remarks.append(f"{workspace.show(workspace.file(module))}: the reference has no such module; left as it is")
            continue
        try:
            mine = sources.read(workspace.file(module))
            texts[module] = _merged(workspace, module, mine)
        except (SyntaxError, OSError) as error:
            where = workspace.show(workspace.file(module))
            raise CourseError(f"{where} cannot be read ({error}), so nothing was changed: mend it first.") from None
        lost = _outside(mine) - _outside(workspace.reference(module))
        remarks += [f"{workspace.show(workspace.file(module))}: no longer there: {line}" for line in sorted(lost)]
    return workspace.write_renewed(texts), remarks


def _merged(workspace: Workspace, module: str, mine: str) -> str:
    reference = workspace.reference(module)
    today, copied = sources.functions(reference), workspace.record["modules"].get(module, {})
    begun = {
        part.name: (sprint, exercise, part.state)
        for sprint in load_sprints(workspace.root)
        for exercise in sprint.exercises
        for part in workspace.parts(exercise)
        if part.module == module and workspace.started(exercise)
    }
    known = sources.definitions(reference)
    classes = (node for node in sources.parse(mine).body if isinstance(node, ast.ClassDef))
    own = {node.name: node for node in classes if node.name not in known}
    text, before = reference, []
    for name, found in sources.functions(mine).items():
        before.append(name)
        if name in begun:
            sprint, exercise, state = begun[name]
            if state == STUB:
                text = workspace.with_stub(text, module, name, exercise, sprint)
                continue
        elif found.code == copied.get(name) or (name in today and found.code == today[name].code):
            continue  # never touched: the reference's of today, or gone with it
        if name.partition(".")[0] not in own:
            text = sources.put(text, name, found.text, before)
    for name, (sprint, exercise, _) in begun.items():
        if name not in before:  # deleted: to be written again, not given away
            text = workspace.with_stub(text, module, name, exercise, sprint)
    lines = mine.split("\n")
    for node in own.values():
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        text += "\n".join(["\n", *lines[first - 1 : node.end_lineno]]) + "\n"
    return text


def _outside(source: str) -> set[str]:
    """The statements at a module's top that are neither functions, classes nor docstrings, one line each."""
    kept = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = {ast.unparse(node).partition("\n")[0] for node in sources.parse(source).body if not isinstance(node, kept)}
    return {line for line in found if not line.startswith(("'", '"'))}

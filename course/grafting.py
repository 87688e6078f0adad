"""A changed function put into `shared` as it is already imported: its code alone, where nothing else has changed.

Importing `shared` and collecting the tests takes longer than most classic bugs take to die, and is the same for all of
them: a process that has done both forks, and the fork runs the changed code object in the imported function's place.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

from . import sources


@dataclass(frozen=True)
class Graft:
    """A function of a module, and the file of a workspace in which it stands in another version."""

    module: str
    name: str
    file: str

    def prepared(self) -> tuple[FunctionType, CodeType] | None:
        """The imported function and the code that is to replace its own; None where that alone would not do.

        It does where the two files differ in this one function's statements only, and the imported function runs the
        code that stands in the reference: behind a decorator it may be found, compiled by one it is not.
        """
        imported = importlib.import_module(self.module)
        here, there = str(imported.__file__), self.file
        before, after = (Path(path).read_text(encoding="utf-8") for path in (here, there))
        old, new = (sources.functions(text).get(self.name) for text in (before, after))
        if old is None or new is None or sources.put(before, self.name, new.text) != after:
            return None
        function = imported_function(self.module, self.name)
        if function is None or _head(old.node) != _head(new.node):
            return None
        right, changed = _code(before, here, self.name), _code(after, there, self.name)
        if right is None or changed is None or function.__code__ != right or right.co_freevars != changed.co_freevars:
            return None
        return function, changed


def imported_function(module: str, name: str) -> FunctionType | None:
    """The function of this qualified name in an imported module, out of what common decorators put around it."""
    found: object = sys.modules[module]
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    elif isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(found) if callable(found) else None
    return found if isinstance(found, FunctionType) else None


def _head(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str | None]:
    """All of a definition but its statements: these are evaluated once, when the module is imported."""
    parts: list[ast.AST] = [node.args, *node.decorator_list, *([node.returns] if node.returns else [])]
    return [type(node).__name__, ast.get_docstring(node, clean=False), *map(ast.dump, parts)]


def _code(source: str, path: str, name: str) -> CodeType | None:
    """The code of one function of a module."""
    return _codes(source, path).get(name)


@functools.lru_cache(maxsize=64)
def _codes(source: str, path: str) -> dict[str, CodeType]:
    """{qualified name: code} of everything inside a module."""
    found: dict[str, CodeType] = {}
    inside = [compile(source, path, "exec", dont_inherit=True)]
    while inside:
        code = inside.pop()
        found.setdefault(code.co_qualname, code)
        inside += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found

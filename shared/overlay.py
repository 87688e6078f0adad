"""Floor 0: the learner's own modules in front of the reference's, switched on by one environment variable.

SHARED_WORKSPACE names a folder. Where it holds shared/ops/arithmetic.py, that file is imported as
`shared.ops.arithmetic`, and everything else in `shared` uses it; a module it does not hold comes from the reference.
Data workers, scripts and notebook kernels inherit the variable, and with it the learner's framework.

SHARED_REFERENCE names what is taken from the reference all the same, separated by commas: a whole module, or one
function or method (`shared.autograd.unbroadcast`) inside a module of the workspace. `course check` uses it to try one
exercise among right versions of all the others.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

VARIABLE, EXCEPTIONS = "SHARED_WORKSPACE", "SHARED_REFERENCE"
_REFERENCE = Path(__file__).resolve().parent.parent


def workspace() -> Path | None:
    """The folder named by SHARED_WORKSPACE, absolute; None where the reference is used throughout.

    Raises FileNotFoundError where the variable names no folder.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    folder = Path(named).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{VARIABLE}={named} names no folder; unset it, or start a sprint: `course start 01`")
    return folder


def exceptions() -> frozenset[str]:
    """The dotted names that SHARED_REFERENCE takes from the reference."""
    return frozenset(filter(None, os.environ.get(EXCEPTIONS, "").split(",")))


def learners_file(module: str) -> Path | None:
    """The learner's file for a module of `shared`, or None where the reference serves.

    >>> learners_file("shared.no_such_module")
    """
    folder = workspace()
    if folder is None or not module.startswith("shared.") or module in exceptions():
        return None
    inside = Path(*module.split("."))
    path = folder / inside.with_suffix(".py")
    return path if path.is_file() and not (_REFERENCE / inside).is_dir() else None  # a package stays the reference's


def install() -> None:
    """Puts the finder in front of Python's own; does nothing where no workspace is named."""
    folder = workspace()
    if folder is not None:
        os.environ[VARIABLE] = str(folder)  # for processes that start in another directory
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):  # a notebook may import shared again
            sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        file = learners_file(fullname)
        if file is None:
            return None
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file)))


class _Loader(SourceFileLoader):
    """Compiles at every import: a file saved twice within a second must not be taken from a cache."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        names = {name.removeprefix(f"{fullname}.") for name in exceptions() if name.startswith(f"{fullname}.")}
        if not names:
            return self.source_to_code(self.get_data(path), path)
        right = str(_REFERENCE.joinpath(*fullname.split(".")).with_suffix(".py"))
        return _grafted(self.get_data(path), path, self.get_data(right), right, names)


def _grafted(source: bytes, path: str, reference: bytes, reference_path: str, names: set[str]) -> CodeType:
    """The code of `source` with the functions `names` of `reference`: signature, decorators, defaults and body."""
    new = {name: node for name, node in _functions(ast.parse(reference)).items() if name in names}
    tree = ast.parse(source, path)
    for name in new.keys() - _functions(tree, new).keys():  # deleted by the learner
        body: list[ast.stmt] | None = tree.body
        for part in name.split(".")[:-1]:
            body = next((n.body for n in body or () if isinstance(n, ast.ClassDef) and n.name == part), None)
        if body is not None:
            body.append(new[name])
    # Their code objects come from the reference's own file, so that a traceback shows its lines.
    right = _codes(compile(reference, reference_path, "exec", dont_inherit=True))
    return _replaced(compile(tree, path, "exec", dont_inherit=True), {name: right[name] for name in new})


def _functions(tree: ast.AST, new: dict[str, ast.stmt] | None = None, prefix: str = "") -> dict[str, ast.stmt]:
    """{qualified name: definition} of the functions of a module or class, each first replaced by the one in `new`."""
    found: dict[str, ast.stmt] = {}
    for _, value in ast.iter_fields(tree):
        if not isinstance(value, list):
            continue
        for position, node in enumerate(value):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                value[position] = found[prefix + node.name] = (new or {}).get(prefix + node.name, node)
            elif isinstance(node, ast.ClassDef):
                found.update(_functions(node, new, f"{prefix}{node.name}."))
            elif isinstance(node, (ast.stmt, ast.excepthandler)):
                found.update(_functions(node, new, prefix))
    return found


def _codes(code: CodeType) -> dict[str, CodeType]:
    """{qualified name: code} of the functions and classes inside `code`."""
    found: dict[str, CodeType] = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found[inner.co_qualname] = inner
            found.update(_codes(inner))
    return found


def _replaced(code: CodeType, new: dict[str, CodeType]) -> CodeType:
    """`code` with the functions named in `new` taken from there."""
    constants = [
        (new.get(constant.co_qualname) or _replaced(constant, new)) if isinstance(constant, CodeType) else constant
        for constant in code.co_consts
    ]
    return code.replace(co_consts=tuple(constants))

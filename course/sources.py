"""Reading and rewriting the source of one module: where its functions are, and how a body becomes a stub."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import io
import json
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sprints import ROOT, CourseError, Exercise

STUB = "raise NotImplementedError("


@dataclass(frozen=True)
class Found:
    """One function in a source: its lines counted from 1, its text, and whether it is a stub."""

    first: int
    last: int
    text: str
    stub: bool
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @functools.cached_property
    def code(self) -> str:
        """Twelve digits that change with what the function does, not with its comments, docstring or layout."""
        # Written out and not dumped: what ast.dump prints differs between versions of Python.
        kind = "async def" if isinstance(self.node, ast.AsyncFunctionDef) else "def"
        nodes = [self.node.args, *self.node.decorator_list, *_without_docstring(self.node.body)]
        return hashlib.sha256("\n".join([kind, *map(ast.unparse, nodes)]).encode()).hexdigest()[:12]


def split(target: str, root: Path = ROOT) -> tuple[str, str]:
    """(module, qualified name inside it) of a dotted name; CourseError where no such module exists.

    >>> split("shared.autograd.Function.backward")
    ('shared.autograd', 'Function.backward')
    """
    parts = target.split(".")
    for size in range(len(parts) - 1, 1, -1):
        if root.joinpath(*parts[:size]).with_suffix(".py").is_file():
            return ".".join(parts[:size]), ".".join(parts[size:])
    raise CourseError(f"{target} is in no module of shared/ (a package's __init__.py cannot hold an exercise).")


def module_path(module: str) -> Path:
    """`shared/ops/arithmetic.py` for `shared.ops.arithmetic`."""
    return Path(*module.split(".")).with_suffix(".py")


def read(path: Path) -> str:
    """A learner's file as Python reads it: with any newlines, a byte-order mark, an encoding named in its first lines.

    Raises SyntaxError where Python could not read it as text, OSError where it is no file.
    """
    data = path.read_bytes()
    try:
        text = importlib.util.decode_source(data)
    except (UnicodeDecodeError, SyntaxError) as error:
        start = getattr(error, "start", 0)
        line = data[:start].count(b"\n") + 1
        raise SyntaxError("this is not UTF-8 text: save the file as UTF-8", (str(path), line, None, None)) from None
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        raise SyntaxError("a null byte: this is not the text of a program", (str(path), line, None, None))
    return text


def encoded(text: str, before: bytes) -> bytes:
    """`text` with the newlines, byte-order mark and encoding of the file that held `before`."""
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(before).readline)[0]
    except SyntaxError:
        encoding = "utf-8"
    if 2 * before.count(b"\r\n") > before.count(b"\n"):
        text = text.replace("\n", "\r\n")
    return text.encode(encoding, errors="backslashreplace")


def parse(source: str) -> ast.Module:
    """The syntax tree; SyntaxError for everything that Python cannot parse."""
    try:
        return ast.parse(source)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error) or "too deeply nested", ("", 1, None, None)) from None


def _lines(source: str) -> list[str]:
    """Lines as Python counts them: a form feed or a Unicode line separator ends none."""
    return io.StringIO(source).readlines()


@functools.lru_cache(maxsize=64)
def functions(source: str) -> dict[str, Found]:
    """{qualified name: function} of a module's functions and methods, those inside functions left out.

    Raises SyntaxError, as ast.parse does.

    >>> found = functions("class A:\\n    def f(self):\\n        '''Doc.'''\\n        return 1\\n")
    >>> list(found), found["A.f"].first, found["A.f"].stub
    (['A.f'], 2, False)
    """
    lines = _lines(source)
    found: dict[str, Found] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                last = _last_line(child, lines)
                stub = _is_stub(_without_docstring(child.body))
                found[prefix + child.name] = Found(first, last, "".join(lines[first - 1 : last]), stub, child)
            elif isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
                visit(child, prefix)

    visit(parse(source), "")
    return found


def _last_line(node: ast.stmt, lines: list[str]) -> int:
    """The last line of a function, comments at the end of its body included."""
    last = node.end_lineno or node.lineno
    for number, line in enumerate(lines[last:], last + 1):
        text = line.lstrip(" \t")
        if text.startswith("#") and len(line) - len(text) > node.col_offset:
            last = number
        elif text.strip():
            break
    return last


def _is_stub(statements: list[ast.stmt]) -> bool:
    """True for a body that only raises the error of a function not written yet."""
    match statements:
        case [ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"), args=[ast.Constant(value=str(text))]))]:
            return text.startswith("Sprint ")
    return False


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def message(exercise: Exercise, folder: str) -> tuple[str, str]:
    """The two lines that a stub raises: which exercise, and where to go."""
    number = f"{exercise.sprint:02d} {exercise.number}"
    return (
        f"{exercise.label}: {exercise.title}; not written yet. ",
        f"Read sprints/{folder}/{exercise.note}, or ask: course hint {number}",
    )


def blanked(source: str, stubs: dict[str, tuple[str, str]]) -> str:
    """`source` with the bodies of the named functions replaced by a stub; all else as it was, to the character.

    Signature, decorators and docstring stay. Raises CourseError for a name that is not there.

    >>> source = "def f(x):\\n    '''Doc.'''\\n    return x  # yes\\n"
    >>> print(blanked(source, {"f": ("Sprint 01, exercise 1. ", "Read")}))
    def f(x):
        '''Doc.'''
        raise NotImplementedError(
            "Sprint 01, exercise 1. "
            "Read"
        )
    <BLANKLINE>
    """
    for name, stub in stubs.items():
        if name not in functions(source):
            raise CourseError(f"there is no {name}")
        source = put(source, name, _blank(functions(source)[name].text, stub))
    return source


@functools.lru_cache(maxsize=512)
def _blank(text: str, stub: tuple[str, str]) -> str:
    """The text of one function with `stub` as its body."""
    import libcst as cst

    class Blank(cst.CSTTransformer):
        def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
            return False  # functions inside functions are part of the body

        def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
            lines = "".join(f"    {json.dumps(line, ensure_ascii=False)}\n" for line in stub)
            return updated_node.with_changes(body=_stub_body(updated_node, cst.parse_statement(f"{STUB}\n{lines})\n")))

    # A method's lines keep their indentation: moving them would change the strings inside.
    head = "if True:\n" if text[:1] in " \t" else ""
    return cst.parse_module(head + text).visit(Blank()).code.removeprefix(head)


def _stub_body(function: Any, statement: Any) -> Any:
    """The body of a libcst FunctionDef with only its docstring and `statement`."""
    import libcst as cst

    body = function.body
    statements = [statement]
    if isinstance(body, cst.SimpleStatementSuite):  # def f(x): return x
        return cst.IndentedBlock(body=statements)
    if function.get_docstring(clean=False) is not None:
        statements.insert(0, body.body[0])
    return body.with_changes(body=statements, footer=())


def put(source: str, name: str, text: str, before: Iterable[str] = ()) -> str:
    """`source` with the function `name` replaced by `text`, a whole definition as it stands in another source.

    Where `source` has no such function it is added: behind the last of the functions `before` that is there, else at
    the end of its class, or of the module. It takes the indentation of its new place.
    """
    lines = _lines(source)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    text, found = text.rstrip("\n") + "\n", functions(source)
    owner, _, _ = name.rpartition(".")
    gap = ["\n"] if owner else ["\n", "\n"]
    if there := found.get(name):
        return "".join([*lines[: there.first - 1], _indented(text, lines[there.first - 1]), *lines[there.last :]])
    if neighbours := [found[other] for other in before if other in found and other.rpartition(".")[0] == owner]:
        place, like = neighbours[-1].last, lines[neighbours[-1].first - 1]
    elif owner:
        place, like = _class_end(source, owner, lines)
    else:
        place, like = len(lines), ""
    return "".join([*lines[:place], *gap, _indented(text, like), *lines[place:]])


def _indented(text: str, like: str) -> str:
    """`text` moved to the indentation of the line `like`."""
    old, new = (line[: len(line) - len(line.lstrip(" \t"))] for line in (text, like))
    if old == new:
        return text
    return "".join(
        new + line.removeprefix(old) if line.startswith(old) and line.strip() else line for line in _lines(text)
    )


def _class_end(source: str, name: str, lines: list[str]) -> tuple[int, str]:
    """(the last line of a class, the first line of its body, whose indentation its functions have)"""
    body: list[ast.stmt] = parse(source).body
    end, first = 0, 0
    for part in name.split("."):
        node = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == part), None)
        if node is None:
            raise CourseError(f"there is no class {name}")
        body, end, first = node.body, node.end_lineno or 0, node.body[0].lineno
        if first == node.lineno:
            raise CourseError(f"class {name} stands on one line")
    return end, lines[first - 1]


def definitions(source: str, assigned: bool = False) -> set[str]:
    """Qualified names of all functions and classes of a module; with `assigned` also of what `=` and `import` bind.

    >>> sorted(definitions("class A:\\n    def f(self): pass\\n    g = f\\nif True:\\n    def g(): pass\\n"))
    ['A', 'A.f', 'g']
    >>> sorted(definitions("class A:\\n    def f(self): pass\\n    g = f\\n", assigned=True))
    ['A', 'A.f', 'A.g']
    """
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
                if assigned:
                    found.update(prefix + bound for bound in _bound(child))
                visit(child, prefix)

    visit(parse(source), "")
    return found


def _bound(statement: ast.AST) -> Iterable[str]:
    """The names that one assignment or import binds."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in statement.names]
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]

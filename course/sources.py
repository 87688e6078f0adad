"""Reading and rewriting the source of one module: where its functions are, and how a body becomes a stub."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .sprints import ROOT, CourseError, Exercise

STUB = "raise NotImplementedError("


@dataclass(frozen=True)
class Found:
    """One function in a source: its lines counted from 1, its text, a hash of its code, and whether it is a stub."""

    first: int
    last: int
    text: str
    code: str
    stub: bool


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


@functools.lru_cache(maxsize=64)
def functions(source: str) -> dict[str, Found]:
    """{qualified name: function} of a module's functions and methods, those inside functions left out.

    Raises SyntaxError, as ast.parse does.

    >>> found = functions("class A:\\n    def f(self):\\n        '''Doc.'''\\n        return 1\\n")
    >>> list(found), found["A.f"].first, found["A.f"].stub
    (['A.f'], 2, False)
    """
    lines = source.splitlines(keepends=True)
    found: dict[str, Found] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                last = node.end_lineno or node.lineno
                statements = _without_docstring(node.body)
                stub = len(statements) == 1 and ast.unparse(statements[0]).startswith(f"{STUB}'Sprint ")
                found[prefix + node.name] = Found(
                    first, last, "".join(lines[first - 1 : last]), digest(node, statements), stub
                )

    visit(ast.parse(source).body, "")
    return found


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def digest(node: ast.FunctionDef | ast.AsyncFunctionDef, statements: list[ast.stmt]) -> str:
    """Twelve digits that change with what a function does, not with its comments, docstring or layout."""
    parts = [ast.dump(node.args), *map(ast.dump, node.decorator_list), *map(ast.dump, statements)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


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
    import libcst as cst

    class Blank(cst.CSTTransformer):
        def __init__(self) -> None:
            super().__init__()
            self.path: list[str] = []
            self.done: set[str] = set()

        def visit_ClassDef(self, node: cst.ClassDef) -> None:
            self.path.append(node.name.value)

        def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
            self.path.pop()
            return updated_node

        def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
            self.path.append(node.name.value)
            return False  # functions inside functions are part of the body

        def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
            name = ".".join(self.path)
            self.path.pop()
            if name not in stubs:
                return updated_node
            self.done.add(name)
            lines = "".join(f"    {json.dumps(line, ensure_ascii=False)}\n" for line in stubs[name])
            statement = cst.parse_statement(f"{STUB}\n{lines})\n")
            return updated_node.with_changes(body=_stub_body(updated_node, statement))

    try:
        blank = Blank()
        result = cst.parse_module(source).visit(blank).code
    except cst.ParserSyntaxError as error:
        raise CourseError(f"line {error.raw_line}: {error.message}") from None
    if missing := sorted(set(stubs) - blank.done):
        raise CourseError(f"there is no {', '.join(missing)}")
    return result


def _stub_body(function, statement):  # type: ignore[no-untyped-def]
    """The body of a libcst FunctionDef with only its docstring and `statement`."""
    import libcst as cst

    body = function.body
    statements = [statement]
    if isinstance(body, cst.SimpleStatementSuite):  # def f(x): return x
        return cst.IndentedBlock(body=statements)
    if function.get_docstring(clean=False) is not None:
        statements.insert(0, body.body[0])
    return body.with_changes(body=statements, footer=())


def put(source: str, name: str, text: str) -> str:
    """`source` with the function `name` replaced by `text`, a whole definition as it stands in another source.

    Where `source` has no such function it is added: at the end of its class, or of the module.
    """
    lines, text = source.splitlines(keepends=True), text.rstrip("\n") + "\n"
    there = functions(source).get(name)
    if there:
        return "".join([*lines[: there.first - 1], text, *lines[there.last :]])
    owner, _, _ = name.rpartition(".")
    if not owner:
        return source.rstrip("\n") + "\n\n\n" + text
    last = _class_end(source, owner)
    return "".join([*lines[:last], "\n", text, *lines[last:]])


def _class_end(source: str, name: str) -> int:
    body: list[ast.stmt] = ast.parse(source).body
    end = 0
    for part in name.split("."):
        node = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == part), None)
        if node is None:
            raise CourseError(f"there is no class {name}")
        body, end = node.body, node.end_lineno or 0
    return end


def definitions(source: str) -> set[str]:
    """Qualified names of all functions and classes of a module: what others may import from it.

    >>> sorted(definitions("class A:\\n    def f(self): pass\\nif True:\\n    def g(): pass\\n"))
    ['A', 'A.f', 'g']
    """
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.stmt):
                visit(child, prefix)

    visit(ast.parse(source), "")
    return found

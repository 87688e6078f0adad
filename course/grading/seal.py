"""A pytest plugin for grading: it seals a pass, and only while the tests and what they stand on are as they were.

Loaded by `-p course.grading.seal`, before conftest.py and so before any code of a learner. It notes what pytest,
NumPy and the course consist of; after each test it compares. A test that passed and found everything unchanged gets a
seal, a keyed hash that the grading process can verify; a report that the learner's code made up has none.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import hmac
import os
import sys
from collections.abc import Generator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WATCHED = (
    "builtins",
    "numpy",
    "pytest",
    "_pytest",
    "pluggy",
    "math",
    "os",
    "json",
    "hmac",
    "hashlib",
    "operator",
    "course",
)


def seal(key: str, nodeid: str) -> str:
    """The seal of one passed test.

    >>> seal("k", "a.py::test_x") == seal("k", "a.py::test_y")
    False
    """
    return hmac.new(key.encode(), nodeid.encode(), hashlib.sha256).hexdigest()


# ---------------------------------------------------------------- what was there before


def _parts(function: Any) -> tuple[Any, ...]:
    if isinstance(function, FunctionType):
        return function.__code__, function.__defaults__, function.__kwdefaults__
    return ()


def watched() -> list[tuple[Any, str, Any, tuple[Any, ...]]]:
    """(module or class, name, what it names, the function's code and defaults) of all that is watched."""
    found: list[tuple[Any, str, Any, tuple[Any, ...]]] = []
    seen: set[int] = set()

    def visit(owner: Any) -> None:
        for name, value in list(vars(owner).items()):
            inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if callable(inner) or isinstance(inner, property):
                found.append((owner, name, value, _parts(inner)))
            if isinstance(value, type) and value.__module__.partition(".")[0] in WATCHED and id(value) not in seen:
                seen.add(id(value))
                visit(value)

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in WATCHED and isinstance(module, ModuleType):
            visit(module)
    return found


def modules() -> dict[str, ModuleType]:
    """The watched modules by name."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in WATCHED}


def replaced(before: list[tuple[Any, str, Any, tuple[Any, ...]]], names: dict[str, ModuleType]) -> str | None:
    """The first watched thing that is not what it was."""
    for name, module in names.items():
        if sys.modules.get(name) is not module:
            return name
    for owner, name, value, parts in before:
        now = vars(owner).get(name)
        inner = now.__func__ if isinstance(now, (staticmethod, classmethod)) else now
        if now is not value or any(a is not b for a, b in zip(_parts(inner), parts, strict=False)):
            return f"{owner.__name__}.{name}"
    return None


# ---------------------------------------------------------------- what the files say


def nested(code: CodeType) -> dict[str, list[CodeType]]:
    """{qualified name: code} of the functions in a module's code; a name may be defined more than once."""
    found: dict[str, list[CodeType]] = {}

    def visit(outer: CodeType) -> None:
        for inner in outer.co_consts:
            if isinstance(inner, CodeType):
                found.setdefault(inner.co_qualname, []).append(inner)
                visit(inner)

    visit(code)
    return found


def rewritten(path: Path) -> CodeType:
    """The code of a test file as pytest makes it."""
    from _pytest.assertion.rewrite import rewrite_asserts

    source = path.read_bytes()
    tree = ast.parse(source, filename=str(path))
    rewrite_asserts(tree, source, str(path))
    return compile(tree, str(path), "exec", dont_inherit=True)


def other(module: ModuleType, codes: dict[str, list[CodeType]]) -> str | None:
    """The first function of `module` that does not have the code its file gives it."""
    for name, allowed in codes.items():
        if "<" in name:
            continue
        value: Any = module
        for part in name.split("."):
            value = vars(value).get(part) if isinstance(value, (ModuleType, type)) else None
        if isinstance(value, property):
            value = value.fget
        value = getattr(value, "__func__", value)
        while hasattr(value, "__wrapped__") and not type(value).__module__.startswith("numba"):
            value = value.__wrapped__
        if isinstance(value, FunctionType) and value.__code__ not in allowed:
            return f"{module.__name__}.{name}"
    return None


# ---------------------------------------------------------------- the plugin


class Sealer:
    """Watches one run of pytest."""

    def __init__(self, key: str, arguments: list[str]):
        self.key = key
        self.before, self.modules = watched(), modules()
        self.codes: dict[str, dict[str, list[CodeType]]] = {}
        for path in sorted((ROOT / "shared").rglob("*.py")):
            code = SourceFileLoader("", str(path)).get_code("")
            if code is not None:
                self.codes[str(path)] = nested(code)
        self.imports: dict[str, dict[str, ModuleType]] = {}
        for file in {argument.partition("::")[0] for argument in arguments}:
            path = Path(file).resolve()
            if path.is_file():
                self.codes[str(path)] = nested(rewritten(path))
                self.imports[str(path)] = self._imports(path)

    def _imports(self, path: Path) -> dict[str, ModuleType]:
        """{name: module} that the file's `import` lines bind, for watched modules."""
        nodes = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Import)]
        names = {alias.asname or alias.name.partition(".")[0]: alias for node in nodes for alias in node.names}
        wanted = {bound: alias.name if alias.asname else bound for bound, alias in names.items()}
        return {bound: self.modules[name] for bound, name in wanted.items() if name in self.modules}

    def trouble(self, item: pytest.Item) -> str | None:
        """What the code under test has changed of what judges it; None where nothing is found."""
        if found := replaced(self.before, self.modules):
            return found
        loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "shared"]
        test = getattr(item, "module", None)
        for module in [*loaded, test]:
            codes = self.codes.get(os.path.realpath(getattr(module, "__file__", None) or ""))
            if module is not None and codes and (found := other(module, codes)):
                return found
        for name, module in self.imports.get(str(item.path), {}).items():
            if vars(test).get(name) is not module:
                return f"`{name}` in {item.path.name}"
        function: Any = getattr(item, "function", None)
        allowed = self.codes.get(str(item.path), {})
        name = item.nodeid.partition("::")[2].partition("[")[0].replace("::", ".")
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if not isinstance(function, FunctionType) or function.__code__ not in allowed.get(name, []):
            return f"the test {name}"
        return None

    def pytest_collection_finish(self) -> None:
        """Spare the processes of the single tests from copying what collecting garbage touches."""
        gc.freeze()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
        """Seal a test that passed in all its phases, once it has cleaned up behind itself."""
        report = yield
        phases = item.stash.setdefault(PHASES, {})
        phases[report.when] = report.outcome
        if report.when == "teardown":
            if found := self.trouble(item):
                report.outcome = "failed"
                report.longrepr = f"this code changed {found}, with which the tests judge it"
            elif phases == dict.fromkeys(("setup", "call", "teardown"), "passed"):
                report.user_properties.append(("seal", seal(self.key, item.nodeid)))
        return report


PHASES = pytest.StashKey[dict[str, str]]()


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look at everything before conftest.py, and with it `shared`, is imported."""
    if key := os.environ.pop("COURSE_SEAL", None):
        sealer = Sealer(key, list(early_config.known_args_namespace.file_or_dir))
        early_config.pluginmanager.register(sealer, "course-sealer")

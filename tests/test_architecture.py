"""The shape of the house, read from the imports: floors, cycles, CuPy and Numba, what lessons may use."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from course.house import FLOORS
from course.sprints import ROOT, Sprint, all_notebooks, load_sprint, load_sprints

SHARED = ROOT / "shared"
# The one deliberate knot, tied at the end of tensor.py: Tensor's methods call operations, which make Tensors.
KNOT = ("shared.tensor", "shared.ops")
HEAVY = (
    "numba",
    "scipy",
    "matplotlib",
    "sklearn",
    "pooch",
    "tqdm",
    "safetensors",
    "cupy",
    "torch",
    "pandas",
    "tensorboardX",
    "regex",
    "tokenizers",
    "transformers",
    "huggingface_hub",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SHARED.rglob("*.py"))}


def floor_of(module: str) -> int:
    room = module.removeprefix("shared").removeprefix(".").partition(".")[0]
    assert room in FLOORS, f"{module}: say in course/house.py on which floor shared/{room} is"
    return FLOORS[room]


def walk(node: ast.AST, top: bool) -> Iterator[ast.AST]:
    """Nodes that run (TYPE_CHECKING never does); with `top`, only those that run during the import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if top and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield child
        yield from walk(child, top)


def imports(tree: ast.AST, module: str, known: set[str], top: bool = False) -> set[str]:
    """What a module imports, as dotted names; `from package import submodule` counts as the submodule."""
    found = set()
    for node in walk(tree, top):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports in shared/ are absolute"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in known else base)
    return found


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_of_shared(module: str, top: bool = False) -> set[str]:
    names = imports(parsed(module), module, set(MODULES), top)
    return {name for name in names if name.partition(".")[0] == "shared"}


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_from_its_own_floor_or_below(module: str) -> None:
    floor = floor_of(module)
    above = {
        f"{target} (floor {floor_of(target)})"
        for target in imports_of_shared(module)
        if floor_of(target) > floor and (module, target) != KNOT
    }
    assert not above, f"{module} is on floor {floor} and imports from above: {', '.join(sorted(above))}"


def test_the_knot_is_where_it_is_said_to_be() -> None:
    assert KNOT[1] in imports_of_shared(KNOT[0], top=True)


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()
    path: list[str] = []

    def visit(node: str) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        path.append(node)
        for target in sorted(graph.get(node, ())):
            if cycle := visit(target):
                return cycle
        path.pop()
        done.add(node)
        return None

    for start in sorted(graph):
        if cycle := visit(start):
            return cycle
    return None


def test_no_cycle_among_the_imports_but_the_knot() -> None:
    graph = {module: imports_of_shared(module, top=True) - {module} for module in MODULES}
    graph[KNOT[0]] = graph[KNOT[0]] - {KNOT[1]}
    cycle = find_cycle(graph)
    assert cycle is None, "import cycle: " + " → ".join(cycle or [])


def test_find_cycle_finds_one() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) is None


def test_only_the_kernels_import_numba_and_one_file_imports_cupy() -> None:
    """CuPy is loaded by name in device.py, so the word is looked for in calls too."""
    for module in MODULES:
        tree = parsed(module)
        names = {name.partition(".")[0] for name in imports(tree, module, set())}
        names |= {
            node.args[0].value.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        if not module.startswith("shared.arrays.kernels"):
            assert "numba" not in names, f"{module} imports numba: only shared/arrays/kernels/ may"
        if module != "shared.arrays.device":
            assert "cupy" not in names, f"{module} imports cupy: only shared/arrays/device.py may"
        assert not names & {"torch", "transformers", "onnx"}, f"{module} imports an oracle of the tests"
        if module == "shared.arrays.device":
            assert "cupy" in names, "this test no longer sees how device.py imports CuPy"


def test_import_shared_loads_nothing_heavy() -> None:
    """Seconds vary with the machine; what `import shared` pulls in does not."""
    code = f"import sys, json, shared; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# ---------------------------------------------------------------- no forward imports in lessons, by symbol


def symbols_used(source: str) -> set[str]:
    """Dotted names below `shared` that a lesson uses: also `F.relu` after `import shared.nn.functional as F`.

    A module that is only imported counts where nothing below it is used: it may be on the way to a name.
    """
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    tree = ast.parse("\n".join(lines))
    aliases: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "shared":
                    aliases[alias.asname or "shared"] = alias.name if alias.asname else "shared"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "shared":
            for alias in node.names:
                assert alias.name != "*", f"from {node.module} import * hides what a lesson uses"
                full = f"{node.module}.{alias.name}"
                aliases[alias.asname or alias.name] = full
                found.add(full)
    inner: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)) or id(node) in inner:
            continue
        chain, below = [], node
        while isinstance(below, ast.Attribute):
            chain.append(below.attr)
            below = below.value
            inner.add(id(below))
        if isinstance(below, ast.Name) and below.id in aliases:
            found.add(".".join([aliases[below.id], *reversed(chain)]))
    return {name for name in found if name != "shared"}


def allowed(name: str, adds: set[str]) -> bool:
    """Whether `name` was added, lies below something added, or leads to it."""
    for added in adds:
        whole = added.removesuffix(".*")
        if name == whole or name.startswith(f"{whole}.") or whole.startswith(f"{name}."):
            return True
    return False


def test_symbols_used_follows_aliases() -> None:
    source = (
        "%matplotlib inline\nimport shared\nimport shared.nn.functional as F\nfrom shared import optim as o\n"
        "F.relu(shared.tensor([1.0]).sum())\no.Adam\n"
    )
    assert symbols_used(source) == {
        "shared.nn.functional.relu",
        "shared.tensor",
        "shared.optim",
        "shared.optim.Adam",
    }


def test_allowed_knows_what_leads_where() -> None:
    adds = {"shared.tensor", "shared.data.*", "shared.nn.functional.relu"}
    assert allowed("shared.tensor", adds) and allowed("shared.data.transforms.Compose", adds)
    assert allowed("shared.nn.functional", adds)
    assert not allowed("shared.nn.functional.gelu", adds) and not allowed("shared.tensors", adds)


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.name)
def test_a_notebook_uses_only_what_its_own_and_earlier_sprints_add(path: Path) -> None:
    number = load_sprint(path.parent.parent).number
    adds = {name for sprint in load_sprints() if sprint.number <= number for name in sprint.adds}
    notebook = json.loads(path.read_text(encoding="utf-8"))
    early: set[str] = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            early |= {name for name in symbols_used("".join(cell["source"])) if not allowed(name, adds)}
    assert not early, f"{path.name} uses what sprint {number} and those before it do not add: {sorted(early)}"


@pytest.mark.parametrize("sprint", load_sprints(), ids=lambda sprint: sprint.folder.name)
def test_what_a_sprint_adds_exists(sprint: Sprint) -> None:
    for name in sprint.adds:
        whole = name.removesuffix(".*")
        assert resolves(whole), f"sprint {sprint.label} says that it adds {name}, which does not exist"


def resolves(name: str) -> bool:
    parts = name.split(".")
    value = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(parts[:position]))
            except ModuleNotFoundError:
                return False
        value = getattr(value, part)
    return True

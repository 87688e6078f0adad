"""The learner's modules in front of the reference's: what SHARED_WORKSPACE and SHARED_REFERENCE do, in processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from course import sources
from shared import overlay

ROOT = Path(__file__).resolve().parent.parent
UNBROADCAST, COLLATE = "def unbroadcast(", "def default_collate(batch: Sequence[Any]) -> Any:\n"
CHANGES = {  # what a learner's version does otherwise, so that one sees whose code ran
    "shared/autograd.py": (UNBROADCAST, f"MINE = 'autograd'\n\n\n{UNBROADCAST}"),
    "shared/ops/arithmetic.py": ("        return a * b\n", "        return a * b + 100\n"),
    "shared/data/collate.py": (COLLATE, f"{COLLATE}    return ['mine', *batch]\n\n\ndef _old(batch):\n"),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, on a path with a space, of three modules that can be told from the reference's."""
    folder = tmp_path_factory.mktemp("the learner") / "my workspace"
    for name, (old, new) in CHANGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def python(code: str, workspace: Path | str | None, reference: str = "", cwd: Path = ROOT, **more: str) -> str:
    """What `code` prints in a process of its own; its standard error where it fails."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SHARED_REFERENCE": reference, **more}
    variables.pop("SHARED_WORKSPACE", None)
    if workspace is not None:
        variables["SHARED_WORKSPACE"] = str(workspace)
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=cwd, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def test_the_learners_modules_come_first_and_everything_else_uses_them(workspace: Path) -> None:
    code = """
import sys
import shared
x = shared.tensor([1.0, 2.0])
print((x * x).tolist(), shared.mul(x, x).tolist(), shared.autograd.MINE)   # operators of the reference, Mul of the learner
for name in ("autograd", "ops.arithmetic", "ops.reduce", "tensor"):
    print(sys.modules[f"shared.{name}"].__file__)
"""
    lines = python(code, workspace).splitlines()
    assert lines[0] == "[101.0, 104.0] [101.0, 104.0] autograd"
    theirs, ours = str(workspace / "shared"), str(ROOT / "shared")
    assert lines[1:] == [f"{theirs}/autograd.py", f"{theirs}/ops/arithmetic.py", f"{ours}/ops/reduce.py", f"{ours}/tensor.py"]  # fmt: skip


def test_without_the_variable_the_reference_runs(workspace: Path) -> None:
    code = "import shared; x = shared.tensor([2.0]); print((x * x).item(), shared.overlay.workspace())"
    assert python(code, None) == "4.0 None"
    assert python(code, "") == "4.0 None"


def test_a_relative_path_holds_for_processes_in_other_directories(workspace: Path) -> None:
    code = """
import os, subprocess, sys
import shared
os.chdir("/")
code = "import shared; print((shared.tensor([2.0]) * 2).item())"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
import shared.data                                          # imported only now, in another directory
print(shared.data.default_collate([1, 2]))
"""
    assert python(code, workspace.name, cwd=workspace.parent).splitlines() == ["104.0", "['mine', 1, 2]"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_workers_of_a_data_loader_use_the_learners_modules(workspace: Path, method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import shared\n"
        "from shared.data import DataLoader, Dataset\n"
        "class Squares(Dataset):\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, index): return (shared.tensor([float(index)]) * 1).item()\n"
        "if __name__ == '__main__':\n"
        f"    print(list(DataLoader(Squares(), batch_size=2, num_workers=1, multiprocessing_context={method!r})))\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SHARED_WORKSPACE": str(workspace)}
    done = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[['mine', 100.0, 101.0]]", done.stderr


def test_a_family_of_kernels_runs_its_formulas_where_they_are_the_learners(tmp_path: Path) -> None:
    name = "shared/arrays/kernels/optim/reference.py"
    (tmp_path / name).parent.mkdir(parents=True)
    text = (ROOT / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text + "\n\nMINE = True\n", encoding="utf-8")
    code = """
import numpy as np
from shared.arrays import kernels
print(kernels.select("optim", np.zeros(3, np.float32)).__name__)
print(hasattr(kernels.select("optim", np.zeros(3, np.float32)), "MINE"))
"""
    assert python(code, tmp_path).splitlines() == ["shared.arrays.kernels.optim.reference", "True"]
    if not os.environ.get("SHARED_KERNELS") and importlib.util.find_spec("numba"):
        assert python(code, None).splitlines()[0] == "shared.arrays.kernels.optim.cpu"
    assert python(code, tmp_path, reference="shared.arrays.kernels.optim.reference").splitlines()[1] == "False"


# ---------------------------------------------------------------- taking parts from the reference


def altered(folder: Path, module: str, *changes: tuple[str, str]) -> Path:
    """A workspace with one module of the reference, changed."""
    path = folder / Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (ROOT / path.relative_to(folder)).read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return folder


def test_single_functions_come_from_the_reference_with_lines_of_its_file(tmp_path: Path) -> None:
    folder = altered(tmp_path, "shared.ops.arithmetic", ("        return a * b\n", "        raise KeyError('mine')\n"))
    code = """
import shared, inspect
from shared.ops.arithmetic import Mul
print((shared.tensor([2.0]) * 3).item(), Mul.forward.__code__.co_filename)
print(Mul.backward.__code__.co_filename)
print(inspect.getsource(Mul.forward.__code__).strip().splitlines()[-1].strip())
"""
    assert "KeyError: 'mine'" in python(code, folder)
    lines = python(code, folder, reference="shared.autograd.unbroadcast,shared.ops.arithmetic.Mul.forward").splitlines()
    assert lines == [
        f"6.0 {ROOT}/shared/ops/arithmetic.py",
        f"{folder}/shared/ops/arithmetic.py",
        "return a * b",
    ]


@pytest.mark.parametrize("damage", ["other signature", "deleted", "decorated", "under an if", "async"])
def test_the_reference_stands_in_whatever_was_done_to_the_function(tmp_path: Path, damage: str) -> None:
    text = (ROOT / "shared/autograd.py").read_text(encoding="utf-8")
    found = sources.functions(text)["unbroadcast"].text
    body = "    raise KeyError('mine')\n"
    new = {
        "other signature": f"def unbroadcast(g, *, shape=None, more):\n{body}",
        "deleted": "",
        "decorated": f"@(lambda function: lambda *arguments: 1 / 0)\ndef unbroadcast(grad, shape):\n{body}",
        "under an if": f"if True:\n    def unbroadcast(grad, shape):\n    {body}",
        "async": f"async def unbroadcast(grad, shape):\n{body}",
    }[damage]
    folder = altered(tmp_path, "shared.autograd", (found, new))
    code = """
import shared
x = shared.tensor([1.0], requires_grad=True)
(x * shared.ones(4)).sum().backward()
print(x.grad.item())
"""
    assert python(code, folder, reference="shared.autograd.unbroadcast") == "4.0"


def test_a_whole_module_comes_from_the_reference_even_if_the_learners_is_no_python(tmp_path: Path) -> None:
    folder = altered(tmp_path, "shared.ops.arithmetic")
    (folder / "shared" / "ops" / "arithmetic.py").write_text("def (")
    code = "import shared; print((shared.tensor([2.0]) * 3).item())"
    assert "SyntaxError" in python(code, folder)
    assert python(code, folder, reference="shared.ops.arithmetic") == "6.0"


def test_names_that_exist_nowhere_are_no_error(workspace: Path) -> None:
    code = "import shared; print((shared.tensor([2.0]) * 3).item())"
    assert python(code, workspace, reference="shared.ops.arithmetic.No.such,shared.nowhere,,x") == "106.0"


# ---------------------------------------------------------------- what could go wrong


def test_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    said = python("import shared", tmp_path / "nowhere").splitlines()[-1]
    assert said.startswith("FileNotFoundError: SHARED_WORKSPACE=") and "nowhere names no folder; unset it, or" in said


def test_a_file_saved_twice_within_a_second_with_the_same_size_is_read_anew(tmp_path: Path) -> None:
    folder = altered(tmp_path, "shared.ops.arithmetic", ("        return a * b\n", "        return a * b + 1\n"))
    path = folder / "shared" / "ops" / "arithmetic.py"
    code = "import shared; print((shared.tensor([2.0]) * 3).item())"
    assert python(code, folder) == "7.0"
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("a * b + 1", "a * b + 2"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert python(code, folder) == "8.0"
    assert list(folder.rglob("__pycache__")) == []


def test_a_file_named_like_a_package_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "ops.py").write_text("raise KeyError('hidden')\n")
    (tmp_path / "shared" / "mine.py").write_text("VALUE = 3\n")
    assert python("import shared, shared.mine; print(shared.mine.VALUE)", tmp_path) == "3"


def test_a_byte_order_mark_and_windows_newlines_are_no_trouble(tmp_path: Path) -> None:
    folder = altered(tmp_path, "shared.ops.arithmetic", ("        return a * b\n", "        return a * b + 1\n"))
    path = folder / "shared" / "ops" / "arithmetic.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    code = "import shared; print((shared.tensor([2.0]) * 3).item())"
    assert python(code, folder) == "7.0"
    assert python(code, folder, reference="shared.ops.arithmetic.Mul.forward") == "6.0"


def test_importing_again_after_a_failure_finds_the_mended_file(tmp_path: Path) -> None:
    folder = altered(tmp_path, "shared.ops.arithmetic")
    path = folder / "shared" / "ops" / "arithmetic.py"
    right = path.read_text(encoding="utf-8")
    (folder / "right.txt").write_text(right, encoding="utf-8")
    path.write_text("def (")
    code = f"""
import pathlib, sys
try:
    import shared
except SyntaxError as error:
    print(error.filename == {str(path)!r}, error.lineno)
pathlib.Path({str(path)!r}).write_bytes(pathlib.Path({str(folder / "right.txt")!r}).read_bytes())
import shared
print((shared.tensor([2.0]) * 3).item(), sum(type(f).__name__ == "_Finder" for f in sys.meta_path))
"""
    assert python(code, folder).splitlines() == ["True 1", "6.0 1"]


def test_reading_the_variables_here_changes_nothing(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    monkeypatch.setenv(overlay.VARIABLE, str(workspace))
    monkeypatch.setenv(overlay.EXCEPTIONS, "shared.data.collate,shared.autograd.backward")
    assert overlay.learners_file("shared.autograd") == workspace / "shared" / "autograd.py"
    assert overlay.learners_file("shared.data.collate") is None
    assert overlay.learners_file("shared.tensor") is None
    assert overlay.learners_file("shared") is None and overlay.learners_file("os.path") is None

"""`course grade` on a class of small workspaces: right, wrong, broken, and hostile ones, in a repository of its own."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from course import sources
from course.grading import assess, gradebook, seal, submissions
from course.sprints import ROOT, CourseError, find_folder, load_sprint
from course.workspace import Workspace

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the time limits of this test need processes that fork")

MODULE = "shared.ops.matmul"
IDS = ("linear", "momentum")
RIGHT = """\
        count, width = x.size // x.shape[-1], x.shape[-1]
        self.saved = (x if self.needs[1] else None, weight if self.needs[0] else None)
        self.size = x.shape
        out = x.reshape(count, width) @ weight.T
        if bias is not None:
            out = out + bias
        return out.reshape(*x.shape[:-1], weight.shape[0])
"""
# What each learner writes as Linear.forward (None: nothing), and at the end of the file.
CLASS: dict[str, tuple[str | None, str]] = {
    "ada": (RIGHT, ""),
    "bob": (None, ""),
    "cid": (RIGHT.replace("out + bias", "out - bias"), ""),
    "dan": (RIGHT, "def broken(:\n"),
    "eve": (RIGHT.replace("out =", "while True:\n            pass\n        out =", 1), ""),
    "fay": ("        import os\n        os._exit(0)\n", ""),
    "gil": (
        RIGHT.replace("out + bias", "out - bias"),
        "import os, pathlib, re\n"
        "for path in pathlib.Path().glob('sprints/*/tests/test_*.py'):\n"
        "    names = re.findall(r'^def (test_\\w+)', path.read_text(), re.M)\n"
        "    path.write_text(''.join(f'def {name}(): pass\\n' for name in names))\n",
    ),
    "hal": (
        RIGHT.replace("out + bias", "out - bias"),
        "import numpy, pytest\nnumpy.allclose = lambda *a, **k: True\npytest.fail = lambda *a, **k: None\n",
    ),
    "ian": (
        RIGHT.replace("out + bias", "out - bias"),
        "import json, os, pathlib\n"
        "if path := os.environ.get('COURSE_REPORT'):\n"
        "    case = {'outcome': 'passed', 'seconds': 0.1, 'message': '', 'measured': {'seal': '0'}, 'exercises': []}\n"
        "    name = 'test_a_linear_layer_and_its_three_gradients_match_the_hand_computation'\n"
        "    files = [str(f) for f in pathlib.Path().glob('sprints/*/tests/test_*.py')]\n"
        "    pathlib.Path(path).write_text(json.dumps({f'{f}::{name}': case for f in files}))\n"
        "    os._exit(0)\n",
    ),
}


def toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def small_sprint(folder: Path, target: Path) -> None:
    """Sprint 03 with two of its exercises and their milestones."""
    for name in ("notes", "tests"):
        shutil.copytree(folder / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    table = tomllib.loads((folder / "sprint.toml").read_text(encoding="utf-8"))
    lines = [f"{key} = {toml(table[key])}" for key in ("number", "title", "goal", "hours")]
    exercises = [one for one in table["exercises"] if one["id"] in IDS]
    used = {id for one in exercises for id in one["milestones"]}
    for kind, entries in (("milestones", table["milestones"]), ("exercises", exercises)):
        for entry in entries:
            if kind == "exercises" or entry["id"] in used:
                lines += [f"[[{kind}]]", *(f"{key} = {toml(value)}" for key, value in entry.items())]
    (target / "sprint.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_body(workspace: Workspace, target: str, body: str) -> None:
    """Puts `body` where the stub of a function is."""
    module, name = sources.split(target, workspace.root)
    path = workspace.file(module)
    text = path.read_text(encoding="utf-8")
    old = sources.functions(text)[name].text
    head = old[: old.index("        raise NotImplementedError(")]
    path.write_text(text.replace(old, head + body), encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    ignore = shutil.ignore_patterns("__pycache__", "cache")
    for name in ("course", "shared", "datasets"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, root)
    folder = find_folder("03")
    small_sprint(folder, root / "sprints" / folder.name)
    return root


@pytest.fixture(scope="module")
def grades(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tables for the whole class."""
    folder = tmp_path_factory.mktemp("class") / "class"
    sprint = load_sprint(repository / "sprints" / find_folder("03").name)
    for name, (body, end) in CLASS.items():
        workspace = Workspace(folder / name / "workspace", repository)
        workspace.start([sprint])
        if body is not None:
            write_body(workspace, "shared.ops.matmul.Linear.forward", body)
            reference = sources.functions(workspace.reference(MODULE))["Linear.backward"].text
            statements = reference[reference.rindex('"""') + 4 :] if '"""' in reference else reference.split("\n", 1)[1]
            write_body(workspace, "shared.ops.matmul.Linear.backward", statements)
        with workspace.file(MODULE).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{end}" if end else "")
    (folder / "ada" / "workspace" / "workspace.json").write_text("{", encoding="utf-8")  # doctored
    (folder / "ada" / "workspace" / "conftest.py").write_text("raise SystemExit(7)\n")
    with zipfile.ZipFile(folder / "=zoe.zip", "w") as file:
        for path in (folder / "ada" / "workspace" / "shared").rglob("*.py"):
            file.write(path, path.relative_to(folder / "ada").as_posix())
        file.writestr("../../escaped.py", "")
    (folder / "empty").mkdir()
    variables = {**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "200", "SHARED_WORKSPACE": str(folder / "ada")}
    arguments = ["grade", str(folder), "--sprint", "03", "--time-limit", "2", "--out", str(folder.parent / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "course", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(folder.parent.rglob("escaped.py")) and not (repository / "workspace").exists()
    return folder.parent / "out"


@pytest.fixture(scope="module")
def rows(grades: Path) -> dict[tuple[str, str], dict[str, str]]:
    """{(learner, id): row} of grades.csv."""
    text = (grades / "grades.csv").read_text(encoding="utf-8-sig")
    return {(row["learner"], row["id"]): row for row in csv.DictReader(text.splitlines())}


@pytest.mark.parametrize(
    "learner, outcome, message",
    [
        ("ada", "passing", r"^\(1 of 2 functions are the reference's\)$"),
        ("bob", "stub", "0 of 2 functions written"),
        ("cid", "failing", "^linear: .*the output.*subtracting the bias"),
        ("dan", "failing", r"^workspace/shared/ops/matmul.py, line \d+: invalid syntax: `def broken\(:`"),
        (
            "eve",
            "failing",
            "^linear: it did not end within 2 s: an endless loop.*`forward`, workspace/shared/ops/matmul.py",
        ),
        ("fay", "failing", "^linear: it ended its process with exit code 0"),
        ("gil", "failing", "files of the course were changed: sprints/03_models_and_training_loops/tests/test_"),
        ("hal", "failing", r"^linear: this code changed (pytest\.fail|numpy\.allclose)"),
        ("ian", "failing", "the report of this test was not written by the tests"),
        ("'=zoe", "passing", ""),
    ],
)
def test_each_learner_gets_the_outcome_that_the_code_deserves(rows, learner, outcome, message):
    row = rows[learner, "linear"]
    assert row["outcome"] == outcome, row
    assert re.search(message, row["message"]), row["message"]


def test_one_learners_trouble_is_nobody_elses_and_no_other_exercises(rows):
    assert len(rows) == 2 * (len(CLASS) + 1) + 1
    assert {rows[name, "momentum"]["outcome"] for name in CLASS if name != "ada"} == {"stub"}
    assert rows["ada", "linear"]["milestones reached"] == "1 of 1"
    assert rows["cid", "linear"]["milestones reached"] == "0 of 1"
    empty = rows["empty", ""]
    assert (empty["outcome"], empty["message"]) == ("not judged", "there is no folder shared/ in it")


def test_the_page_is_whole_escaped_and_needs_nothing_else(grades, rows):
    page = (grades / "grades.html").read_text(encoding="utf-8")
    assert all(f">{name}</a>" in page for name in [*CLASS, "=zoe", "empty"])
    assert not re.findall(r'(?:src|href)="(?!#)', page), "it loads nothing"
    assert "$" not in page
    assert page.count("<tr>") == page.count("</tr>") == len(CLASS) + 5
    assert "subtracting the bias" in page


def test_earlier_grades_are_never_overwritten(grades, repository):
    command = [sys.executable, "-m", "course", "grade", str(grades.parent / "class"), "--out", str(grades)]
    variables = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=grades, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "holds grades already" in done.stderr


def test_only_the_exercise_that_is_judged_is_taken_out_of_the_reference(repository):
    sprint = load_sprint(find_folder("03"))
    one, other = (exercise for exercise in sprint.exercises if exercise.id in ("momentum", "adaptive-steps"))
    learner = object.__new__(assess.Learner)
    learner.copy = assess.Copy(repository)
    learner.parts = {e.key: dict.fromkeys(e.targets, "written") for e in (one, other)}
    for exercise, functions in ((one, 1), (other, 3)):
        files = learner.without_solution([exercise])
        assert [data.count(b"taken out while it is judged") for data in files.values()] == [functions]
        learner.copy.put(files)
    (repository / "course" / "cli.py").write_text("changed = True\n")
    (repository / "sprints" / "conftest.py").write_text("new = True\n")
    assert sorted(learner.copy.changed()) == ["course/cli.py", "sprints/conftest.py"]
    learner.copy.put({})
    assert learner.copy.changed() == []
    path = repository / "course" / "cli.py"
    assert path.read_bytes() == learner.copy.files[path] != b"changed = True\n"


# ---------------------------------------------------------------- the parts, without running anything

WANTED = {"shared/ops/matmul.py": MODULE}


def taken(folder: Path) -> submissions.Submission:
    found, _ = submissions.collect(folder, WANTED)
    assert len(found) == 1
    return found[0]


def learner(folder: Path, where: str = "a/workspace", text: bytes = b"x = 1\r\n") -> Path:
    path = folder / where / "shared" / "ops" / "matmul.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("where", ["a", "a/workspace", "a/week 3/workspace"])
def test_a_workspace_is_found_where_learners_put_it(tmp_path, where):
    learner(tmp_path, where)
    assert taken(tmp_path).modules == {MODULE: "x = 1\n"}


def test_of_a_whole_repository_the_workspace_is_taken_and_no_backup(tmp_path):
    learner(tmp_path, "a", b"reference = 1\n")
    learner(tmp_path, "a/workspace")
    learner(tmp_path, "a/workspace/backup/2026", b"old = 1\n")
    assert taken(tmp_path).modules == {MODULE: "x = 1\n"}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda path: path.write_bytes(b"# \xe9\n"), "not UTF-8 text"),
        (lambda path: path.write_bytes(b"#" * (submissions.LARGEST + 1)), "MB large"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "a symbolic link"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a plain file"),
    ],
)
def test_files_that_are_no_plain_text_are_refused_with_a_reason(tmp_path, change: Callable, message):
    change(learner(tmp_path))
    one = taken(tmp_path)
    assert one.modules == {} and message in one.unusable[MODULE]


def test_two_workspaces_are_not_guessed_between(tmp_path):
    learner(tmp_path, "a/one/workspace")
    learner(tmp_path, "a/two/workspace")
    assert "there are 2 workspaces in it: one/workspace/, two/workspace/" in taken(tmp_path).problem


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p / "shared").mkdir(parents=True)])
def test_a_folder_without_learners_is_told(tmp_path, make):
    make(tmp_path / "class")
    with pytest.raises(CourseError, match="no folder|no zip file|is itself a workspace"):
        submissions.collect(tmp_path / "class", WANTED)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1"])
def test_no_cell_is_a_formula(text):
    assert gradebook.cell(text).startswith("'")


def test_the_watch_sees_a_replaced_function_a_changed_one_and_a_replaced_module(monkeypatch):
    import numpy

    before, modules = seal.watched(), seal.modules()
    assert seal.replaced(before, modules) is None
    with monkeypatch.context() as patch:
        patch.setattr(numpy, "allclose", lambda *a, **k: True)
        assert seal.replaced(before, modules) == "numpy.allclose"
    with monkeypatch.context() as patch:
        patch.setattr(pytest.fail, "__call__", None, raising=False)
        patch.setattr("_pytest.outcomes.Exit.__init__", lambda *a: None)
        assert seal.replaced(before, modules) == "Exit.__init__"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "math", type(sys)("math"))
        assert seal.replaced(before, modules) == "math"
    assert seal.replaced(before, modules) is None

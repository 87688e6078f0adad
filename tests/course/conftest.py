"""A small repository of its own, so that the tests of the command never touch the real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from course import sources
from course.sprints import ROOT, load_sprints
from course.workspace import Workspace

SPRINT_TOML = """\
number = 1
title = "First things"
goal = "Add two numbers."
hours = 2
adds = ["shared.tensor"]
[[milestones]]
id = "adds"
text = "Two numbers are added"
test = "test_milestone.py::test_adds"
skills = ["adding"]
[[milestones]]
id = "many"
text = "Many numbers are added | in any order"
test = "test_milestone.py::TestMany::test_many"
skills = ["adding", "order"]
[retrospective]
insights = ["The sum is off by {error}"]
next = ["Subtract"]
"""
README = """\
# 01
<!-- generated:milestones -->
<!-- generated:end -->
between
<!-- generated:retrospective -->
old
<!-- generated:end -->
"""
TESTS = """\
import pytest

def test_adds(record_property):
    record_property("sum", 2)
    assert 1 + 1 == 2

class TestMany:
    @pytest.mark.parametrize("n", [1, 2])
    def test_many(self, n):
        assert n == NUMBER
"""
METRICS = """\
{"error": {"value": 1.5e-10, "unit": "", "seed": 0, "device": "cpu", "date": "2026-01-02",
 "script": "add.py", "script_sha256": "0"}}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one sprint; its second milestone fails for n = 2."""
    sprint = tmp_path / "sprints" / "01_first_things"
    for folder in ("notes", "notebooks", "results", "tests"):
        (sprint / folder).mkdir(parents=True)
    (sprint / "sprint.toml").write_text(SPRINT_TOML)
    (sprint / "README.md").write_text(README)
    (sprint / "notes" / "01_adding.md").write_text("# Adding\n\ntext\n")
    (sprint / "results" / "metrics.json").write_text(METRICS)
    (sprint / "tests" / "test_milestone.py").write_text(TESTS.replace("NUMBER", "1"))
    (tmp_path / "sprints" / "README.md").write_text("<!-- generated:map -->\n<!-- generated:end -->\n")
    end = "<!-- generated:end -->\n"
    parts = [f"<!-- generated:{name} -->\n{end}" for name in ("sprints", "exercises", "cost", "speed")]
    (tmp_path / "README.md").write_text("".join(parts))
    return tmp_path


# ---------------------------------------------------------------- a course of tiny exercises

PRACTICE = """\
[[milestones]]
id = "{0}"
text = "{0} works"
test = "test_milestone.py::test_{0}"
[[exercises]]
id = "{0}"
title = "Write {0}"
targets = ["{1}.{0}"]
difficulty = 1
minutes = 5
note = "notes/01_{0}.md"
milestones = ["{0}"]
hints = ["What is {0}?", "Add one.", "The argument and 1."]
"""
MODULES = {
    "shared.practice": ("right", "wrong", "stub", "loop", "leaves", "exits", "after", "crashes", "interrupts", "deep", "asks", "hoards", "chatters", "halts"),
    "shared.second": ("second",),
    "shared.third": ("third",),
    "shared.fourth": ("fourth",),
}  # fmt: skip
FUNCTION = '''\
def {0}(x):
    """x + 1."""
    return x + 1
'''
TEST = """\
def test_{0}():
    assert {0}(1) == 2, "one more is expected"


"""


class Practice:
    """A clone of the course whose one sprint has a one-line exercise per way in which a learner's code can go wrong."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("course", "shared"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        # Quicker to start than the course's own: these exercises need neither Hypothesis nor heavy packages.
        (root / "conftest.py").write_text(
            'pytest_plugins = ["course.testing"]\n\n\ndef pytest_configure():\n    import shared\n'
        )
        warm = (root / "course" / "warm.py").read_text()
        assert 'HEAVY = ("sklearn.datasets", ' in warm
        quick = re.sub(r"HEAVY = \(.*\)", "HEAVY = ()", warm)
        quick = re.sub(r"PRELOADED = \(.*\)", 'PRELOADED = ("numpy", "pytest")', quick)
        (root / "course" / "warm.py").write_text(quick)
        shutil.copy(ROOT / "pyproject.toml", root)
        settings = (root / "pyproject.toml").read_text()
        (root / "pyproject.toml").write_text(settings.replace('"sprints", "shared", "course"]', '"sprints"]'))
        folder = root / "sprints" / "01_practice"
        for name in ("notes", "tests"):
            (folder / name).mkdir(parents=True)
        toml = 'number = 1\ntitle = "Practice"\ngoal = "Add one."\nhours = 1\n'
        tests = "import pytest\nimport shared\n"
        for module, names in MODULES.items():
            (root / "shared" / f"{module.partition('.')[2]}.py").write_text("\n\n".join(map(FUNCTION.format, names)))
            tests += f"from {module} import {', '.join(names)}\n"
            toml += "".join(PRACTICE.format(name, module) for name in names)
            for name in names:
                (folder / "notes" / f"01_{name}.md").write_text(f"# {name}\n")
        (folder / "sprint.toml").write_text(toml)
        tests += "".join(TEST.format(name) for names in MODULES.values() for name in names)
        tests += 'def test_skipped():\n    pytest.skip("not here")\n'
        (folder / "tests" / "test_milestone.py").write_text(tests)
        self.folder = folder
        self.stubs = root / "stubs"
        Workspace(self.stubs, root).start(load_sprints(root))

    def workspace(self, folder: Path, bodies: dict[str, str] | None = None, **texts: str) -> Path:
        """A workspace in which all is right but the functions with other `bodies`, and modules of other `texts`."""
        shutil.copytree(self.stubs, folder, dirs_exist_ok=True)
        for module, names in MODULES.items():
            path = folder / f"{module.replace('.', '/')}.py"
            text = path.read_text()
            for name in names:
                body = (bodies or {}).get(name, "return x + 1")
                if body != "stub":
                    lines = textwrap.indent(body, "    ")
                    text = sources.put(text, name, f'def {name}(x):\n    """x + 1."""\n{lines}\n')
            path.write_text(texts.get(module.partition(".")[2], text))
        return folder

    def run(self, *command: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs `python -m …` in the clone."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SHARED_", "COURSE_", "PYTEST_"))}
        clean |= {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=clean,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Practice:
    """The clone; tests share it and bring workspaces of their own."""
    return Practice(tmp_path_factory.mktemp("practice") / "the course")

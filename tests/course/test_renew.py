"""Bringing a changed reference into a learner's modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from course.renew import renew
from course.sprints import CourseError, load_sprints
from course.workspace import Workspace

MODULE = '''\
"""Adding."""

import math

SIZE = 2


def add(a, b):
    """a + b."""
    return a + b


def double(a):
    """2 a."""
    return a + a


def half(a):
    return a / SIZE
'''
EXERCISES = """
[[exercises]]
id = "add"
title = "Add"
targets = ["shared.ops.sums.add"]
difficulty = 1
minutes = 5
note = "notes/01_adding.md"
milestones = ["adds"]
hints = ["?", "b", "c"]
[[exercises]]
id = "double"
title = "Double"
targets = ["shared.ops.sums.double"]
difficulty = 1
minutes = 5
note = "notes/01_adding.md"
milestones = ["many"]
hints = ["?", "b", "c"]
"""


@pytest.fixture
def learner(repository: Path) -> Workspace:
    """A learner who wrote `add`, left `double` a stub, changed `half`, and added a helper and an import."""
    path = repository / "sprints" / "01_first_things" / "sprint.toml"
    path.write_text(path.read_text() + EXERCISES)
    reference = repository / "shared" / "ops" / "sums.py"
    reference.parent.mkdir(parents=True)
    reference.write_text(MODULE)
    workspace = Workspace(root=repository)
    workspace.start(load_sprints(repository))
    mine = workspace.file("shared.ops.sums")
    text = mine.read_text()
    first = text.index("    raise NotImplementedError")
    end = text.index("def double")
    text = text[:first] + "    return helper(a) + b\n\n\ndef helper(a):\n    return a\n\n\n" + text[end:]
    mine.write_text("import cmath\n" + text.replace("return a / SIZE", "return a / 2"))
    return workspace


def test_without_a_change_only_the_learners_own_lines_outside_functions_move(learner: Workspace) -> None:
    before = learner.file("shared.ops.sums").read_text()
    copies, remarks = renew(learner)
    assert [copy.read_text() for copy in copies] == [before]
    assert remarks == ["workspace/shared/ops/sums.py: no longer there: import cmath"]
    assert renew(learner) == ([], [])


def test_the_references_changes_come_in_and_the_learners_functions_stay(learner: Workspace) -> None:
    reference = learner.root / "shared" / "ops" / "sums.py"
    changed = MODULE.replace("SIZE = 2", "SIZE = 4").replace("a + a", "2 * a").replace('"""2 a."""', '"""Twice a."""')
    reference.write_text(changed + "\n\ndef third(a):\n    return a / 3\n")
    assert learner.changed_in_reference() == ["shared.ops.sums.double", "shared.ops.sums.third"]
    renew(learner)
    text = learner.file("shared.ops.sums").read_text()
    assert "SIZE = 4" in text and "def third" in text and "import cmath" not in text
    assert "return helper(a) + b" in text and "def helper" in text and "return a / 2" in text
    assert '"""Twice a."""' in text and "Sprint 01, exercise 2" in text and "2 * a" not in text
    assert Workspace(root=learner.root).changed_in_reference() == []


def test_a_module_that_python_cannot_read_stops_it_before_anything_changes(learner: Workspace) -> None:
    mine = learner.file("shared.ops.sums")
    mine.write_text("def add(:\n")
    with pytest.raises(CourseError, match=r"workspace/shared/ops/sums.py cannot be read.*nothing was changed"):
        renew(learner)
    assert mine.read_text() == "def add(:\n"


def test_a_deleted_exercise_comes_back_as_a_stub_and_a_class_of_their_own_stays(learner: Workspace) -> None:
    mine = learner.file("shared.ops.sums")
    text = mine.read_text()
    deleted = text[text.index("def add") : text.index("def helper")]
    own = "@staticmethod\nclass Sum:\n    '''Mine.'''\n\n    start = 0\n\n    def run(self, a):\n        return a + self.start\n"
    mine.write_text(text.replace(deleted, own + "\n\n"))
    renew(learner)
    text = mine.read_text()
    assert own in text and "return a + b" not in text
    assert text.count("Sprint 01, exercise 1") == text.count("Sprint 01, exercise 2") == 1
    assert renew(learner) == ([], [])

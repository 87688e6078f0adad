"""A small repository of its own, so that the tests of the command never touch the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

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

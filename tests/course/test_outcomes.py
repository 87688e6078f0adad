"""Checking milestones, and the record of what passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from course import outcomes
from course.checking import check
from course.sprints import CourseError, load_sprints


@pytest.fixture
def sprint(repository: Path):
    return load_sprints(repository)[0]


def test_check_judges_each_milestone_by_its_test(repository: Path, sprint) -> None:
    result = check(sprint, repository)
    assert {name: m["outcome"] for name, m in result.milestones.items()} == {
        "adds": "passed",
        "many": "failed",
    }
    assert "assert 2 == 1" in result.milestones["many"]["message"]
    assert result.milestones["adds"]["measured"] == {"sum": 2}
    assert not result.ok


def test_check_passes_when_all_pass(repository: Path, sprint) -> None:
    path = sprint.folder / "tests" / "test_milestone.py"
    path.write_text(path.read_text().replace("[1, 2]", "[1]"))
    assert check(sprint, repository).ok


def test_a_milestone_whose_test_is_gone_is_not_reached(repository: Path, sprint) -> None:
    path = sprint.folder / "tests" / "test_milestone.py"
    path.write_text("def test_adds():\n    pass\n")
    result = check(sprint, repository)
    assert result.milestones["many"]["outcome"] == "missing"
    assert result.exit_code == 0 and not result.ok


def test_a_test_file_that_cannot_be_imported_is_an_error(repository: Path, sprint) -> None:
    (sprint.folder / "tests" / "test_milestone.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(CourseError, match="pytest could not run the tests of sprint 01"):
        check(sprint, repository)


def test_what_is_recorded_is_read_back(repository: Path, sprint) -> None:
    assert outcomes.save(sprint, {"adds": {"outcome": "passed"}}, repository) is None
    record, warning = outcomes.load(repository)
    assert warning is None
    assert outcomes.outcome(record, sprint, "adds") == "passed"
    assert outcomes.outcome(record, sprint, "many") is None
    assert outcomes.passed(record, sprint) == 1
    assert outcomes.current([sprint], record) is sprint


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"sprints": []}', '{"sprints": {"a": 1}}', '{"sprints": null}', "\xff"]
)
def test_a_damaged_record_is_set_aside_and_reported(repository: Path, sprint, text: str) -> None:
    path = outcomes.record_path(repository)
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    record, warning = outcomes.load(repository)
    assert record == {"version": outcomes.VERSION, "sprints": {}, "exercises": {}}
    (aside,) = path.parent.glob("outcomes.json.damaged-*")
    assert aside.name in (warning or "")
    assert aside.read_text(encoding="latin-1") == text
    assert not path.exists()
    outcomes.save(sprint, {"adds": {"outcome": "passed"}}, repository)
    assert outcomes.load(repository)[1] is None


def test_two_damaged_records_are_both_kept(repository: Path) -> None:
    path = outcomes.record_path(repository)
    path.parent.mkdir()
    for text in ("{1", "{2"):
        path.write_text(text)
        outcomes.load(repository)
    kept = sorted(aside.read_text() for aside in path.parent.glob("outcomes.json.damaged-*"))
    assert kept == ["{1", "{2"]


def test_an_interrupted_write_leaves_the_old_record(repository: Path, sprint, monkeypatch) -> None:
    outcomes.save(sprint, {"adds": {"outcome": "passed"}}, repository)
    before = outcomes.record_path(repository).read_text()

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        outcomes.save(sprint, {"adds": {"outcome": "failed"}}, repository)
    assert outcomes.record_path(repository).read_text() == before
    assert [p.name for p in outcomes.record_path(repository).parent.iterdir()] == ["outcomes.json"]


def test_the_record_is_plain_json(repository: Path, sprint) -> None:
    outcomes.save(sprint, {"adds": {"outcome": "passed", "seconds": 0.5, "message": "", "measured": {}}}, repository)
    stored = json.loads(outcomes.record_path(repository).read_text())
    assert stored["sprints"]["01_first_things"]["milestones"]["adds"]["seconds"] == 0.5

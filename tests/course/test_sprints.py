"""Naming a sprint, and reading sprint.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from course.sprints import CourseError, find_folder, load_sprint, load_sprints


@pytest.mark.parametrize("name", ["1", "01", "001", "01_first_things", "sprints/01_first_things/"])
def test_a_sprint_is_found_by_number_name_or_path(repository: Path, name: str) -> None:
    assert find_folder(name, repository).name == "01_first_things"


@pytest.mark.parametrize(
    "name, message",
    [
        ("99", "There is no sprint 99 in this repository. There are: 01."),
        ("abc", "'abc' does not name a sprint: give its number. There are: 01."),
        ("-1", "does not name a sprint"),
        ("", "does not name a sprint"),
    ],
)
def test_an_unknown_sprint_is_an_error_that_lists_what_there_is(repository: Path, name: str, message: str) -> None:
    with pytest.raises(CourseError) as error:
        find_folder(name, repository)
    assert message in str(error.value)


def test_a_sprint_is_read_whole(repository: Path) -> None:
    (sprint,) = load_sprints(repository)
    assert (sprint.label, sprint.title, sprint.hours) == ("01", "First things", 2)
    assert [milestone.test_name for milestone in sprint.milestones] == ["test_adds", "TestMany::test_many"]
    assert sprint.skills == ("adding", "order")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("number = 1", "number = 2", "number = 2 does not fit the folder's name"),
        ('title = "First things"', "", "`title` is missing"),
        ("hours = 2", 'hours = "two"', "`hours` must be int or float, not 'two'"),
        ('id = "many"', 'id = "adds"', "two milestones have the same id"),
        ("test_milestone.py::test_adds", "test_adds", "`test` must look like test_milestone.py::test_name"),
        ("number = 1", "number = ", "cannot be read"),
        ("number = 1", "number = 1\nrequires = [1]", "`requires` must list numbers of earlier sprints"),
    ],
)
def test_a_wrong_sprint_toml_names_the_file_and_the_key(repository: Path, old: str, new: str, message: str) -> None:
    folder = repository / "sprints" / "01_first_things"
    path = folder / "sprint.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CourseError) as error:
        load_sprint(folder)
    assert message in str(error.value)
    assert "sprints/01_first_things/sprint.toml" in str(error.value)

"""Generated parts: made from committed files, found stale when those change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from course import docs
from course.sprints import ROOT, CourseError


def write_script(repository: Path) -> Path:
    """Make metrics.json fit its script."""
    folder = repository / "sprints" / "01_first_things" / "results"
    script = folder / "add.py"
    script.write_text("print(1 + 1)\n")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["error"]["script_sha256"] = hashlib.sha256(script.read_bytes()).hexdigest()
    path.write_text(json.dumps(metrics))
    return script


def test_writing_makes_everything_fresh(repository: Path) -> None:
    write_script(repository)
    assert docs.stale(repository)
    changed, trouble = docs.write(repository)
    assert trouble == []
    assert {path.relative_to(repository).as_posix() for path in changed} == {
        "README.md", "MILESTONES.md", "sprints/README.md", "sprints/01_first_things/README.md",
        "progress/skills.md", "progress/backlog.md",
    }  # fmt: skip
    assert docs.stale(repository) == []
    assert docs.write(repository) == ([], [])


def test_the_readme_of_a_sprint_gets_its_table_and_its_numbers(repository: Path) -> None:
    docs.write(repository)
    text = (repository / "sprints" / "01_first_things" / "README.md").read_text()
    assert "[`test_adds`](tests/test_milestone.py)" in text
    assert "Many numbers are added \\| in any order" in text
    assert "The sum is off by 1.5e-10" in text
    assert "- Subtract" in text
    assert text.index("between") < text.index("off by") and "\nold\n" not in text


def test_whole_pages_hold_milestones_skills_and_next_steps(repository: Path) -> None:
    docs.write(repository)
    milestones = (repository / "MILESTONES.md").read_text()
    assert "## 01 First things" in milestones and "[Adding](sprints/01_first_things/notes/01_adding.md)" in milestones
    assert "| order | [01 many](../MILESTONES.md#01-first-things) |" in (repository / "progress/skills.md").read_text()
    assert "- Subtract" in (repository / "progress" / "backlog.md").read_text()


@pytest.mark.parametrize("change", ["sprint.toml", "results/metrics.json"])
def test_a_changed_source_makes_its_pages_stale(repository: Path, change: str) -> None:
    write_script(repository)
    docs.write(repository)
    path = repository / "sprints" / "01_first_things" / change
    path.write_text(path.read_text().replace("Two numbers", "Three numbers").replace("1.5e-10", "2.5e-10"))
    assert any("MILESTONES.md is out of date" in problem for problem in docs.stale(repository))


def test_a_script_changed_after_it_measured_is_reported(repository: Path) -> None:
    script = write_script(repository)
    docs.write(repository)
    script.write_text("print(3)\n")
    (problem,) = docs.stale(repository)
    assert problem == "sprints/01_first_things/results/add.py was changed after it measured: run it again."
    script.unlink()
    assert "is gone" in docs.stale(repository)[0]


def test_a_name_that_was_never_measured_is_reported_and_nothing_else_is_lost(repository: Path) -> None:
    path = repository / "sprints" / "01_first_things" / "sprint.toml"
    path.write_text(path.read_text().replace("{error}", "{eror}"))
    before = (repository / "sprints" / "01_first_things" / "README.md").read_text()
    changed, trouble = docs.write(repository)
    assert trouble == ["sprints/01_first_things/sprint.toml: {eror} is not in results/metrics.json."]
    assert (repository / "sprints" / "01_first_things" / "README.md").read_text() == before
    assert repository / "README.md" in changed


def test_missing_markers_are_named(repository: Path) -> None:
    (repository / "README.md").write_text("# nothing\n")
    _, trouble = docs.write(repository)
    assert trouble == ["README.md needs the lines `<!-- generated:sprints -->` and `<!-- generated:end -->` once."]


def test_fill_formats_units_and_refuses_nonsense() -> None:
    metrics = {
        "t": {"value": 1234567, "unit": "steps"},
        "r": {"value": 0.98765, "unit": "%"},
        "s": {"value": "a", "unit": ""},
    }
    assert docs.fill("{t}, {r:.1f}, {s}", metrics, "x") == "1,234,567 steps, 1.0%, a"
    assert docs.fill("{'a': 1} stays", metrics, "x") == "{'a': 1} stays"
    with pytest.raises(CourseError, match=r"x: \{s:.1f\}"):
        docs.fill("{s:.1f}", metrics, "x")


def test_the_speed_table_shows_what_was_measured(repository: Path) -> None:
    assert "No measurement" in docs.speed_table(repository)
    folder = repository / "benchmarks" / "results"
    folder.mkdir(parents=True)
    row = {"workload": "x + y", "ours_ms": 0.0025, "torch_ms": 0.005, "ratio": 0.5, "target": 1.0}
    row |= {"spread": [0.48, 0.53], "ours_peak_mb": 40.4, "torch_peak_mb": 250.0}
    report = {"machine": "M", "date": "2026-01-02", "versions": {"numpy": "2"}, "threads": 2, "rows": [row]}
    report |= {"planned": [{"workload": "GPT", "target": 0.6, "sprint": 9}], "openblas_coretype": "unset"}
    (folder / "m.json").write_text(json.dumps(report))
    table = docs.speed_table(repository)
    assert "M; 2 threads; numpy 2; 2026-01-02." in table
    assert "| x + y | 2.5 µs | 5 µs | 0.50 | 1.00 | 0.48–0.53 | 40 / 250 MB |" in table
    assert "| GPT | not yet: Sprint 9 | | | 0.60 | | |" in table
    assert "Measured with `OPENBLAS_CORETYPE` unset, as it was found." in table
    assert "Target: the ratio that the framework's design aims at, reached or not." in table
    report |= {"rows": [row | {"as_found_ms": 4.0}], "openblas_coretype": "Haswell"}
    (folder / "m.json").write_text(json.dumps(report))
    assert "It was found as Haswell, and with that our times are: x + y: 4.00 ms." in docs.speed_table(repository)


def test_the_committed_pages_of_this_repository_are_fresh() -> None:
    assert docs.stale(ROOT) == []


def test_the_cost_table_shows_what_was_measured(repository: Path) -> None:
    assert "Not measured yet" in docs.cost_table(repository)
    row = {"sprint": "01 First things", "notebooks_seconds": 12.3, "tests_seconds": 4.4, "peak_mb": 345}
    report = {"machine": "M", "threads": 2, "python": "3.11.7", "date": "2026-01-02", "sprints": [row]}
    (repository / "course").mkdir()
    (repository / "course" / "cost.json").write_text(json.dumps(report))
    assert "| 01 First things | 12 s | 4 s | 345 MB |" in docs.cost_table(repository)

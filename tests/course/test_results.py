"""What results/ scripts write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from course.plotting import COLORS, use_style
from course.results import Results
from course.sprints import CourseError


@pytest.fixture
def script(repository: Path) -> Path:
    path = repository / "sprints" / "01_first_things" / "results" / "add.py"
    path.write_text("print(2)\n")
    return path


def test_metrics_are_merged_by_script(script: Path) -> None:
    other = script.with_name("other.py")
    other.write_text("")
    first = Results(script, seed=0)
    first.metric("loss", np.float32(0.5), unit="nats")
    first.metric("steps", 10)
    first.save()
    second = Results(other, seed=1, device="cuda")
    second.metric("speed", 3.0, unit="ms")
    path = second.save()
    stored = json.loads(path.read_text())
    assert set(stored) == {"loss", "speed", "steps"}
    assert stored["loss"]["value"] == 0.5 and stored["loss"]["unit"] == "nats" and stored["loss"]["seed"] == 0
    assert stored["speed"]["device"] == "cuda" and stored["speed"]["script"] == "other.py"
    assert len(stored["loss"]["script_sha256"]) == 64
    again = Results(script, seed=0)
    again.metric("loss", 0.25)
    again.save()
    assert set(json.loads(path.read_text())) == {"loss", "speed"}


def test_a_short_run_may_keep_what_a_long_one_measured(script: Path) -> None:
    long = Results(script, seed=0)
    long.metric("loss", 0.5)
    long.metric("steps", 10)
    long.metric("full_loss", 0.25)
    long.save()
    short = Results(script, seed=1)
    short.metric("loss", 0.75)
    stored = json.loads(short.save(keep=lambda name: name.startswith("full_")).read_text())
    assert {name: entry["value"] for name, entry in stored.items()} == {"loss": 0.75, "full_loss": 0.25}
    assert stored["full_loss"]["seed"] == 0
    again = Results(script, seed=2)
    again.metric("full_loss", 0.125)
    stored = json.loads(again.save(keep=lambda name: name.startswith("full_")).read_text())
    assert {name: entry["value"] for name, entry in stored.items()} == {"full_loss": 0.125}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], None, {}])
def test_what_is_no_finite_number_is_refused(script: Path, value: object) -> None:
    with pytest.raises(ValueError, match="'loss'"):
        Results(script).metric("loss", value)


def test_a_script_outside_a_sprint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="does not lie in sprints"):
        Results(tmp_path / "x.py")


@pytest.mark.parametrize("ext", ["svg", "png"])
def test_a_figure_is_the_same_bytes_every_time_and_carries_its_alt_text(script: Path, ext: str) -> None:
    import matplotlib.pyplot as plt

    images = []
    for _ in range(2):
        use_style()
        figure, axes = plt.subplots()
        axes.plot([1, 3, 2], color=COLORS["orange"], label="line")
        axes.legend()
        images.append(Results(script).figure(figure, "line", alt="A line goes up and down.", ext=ext).read_bytes())
    assert images[0] == images[1]
    assert b"A line goes up and down." in images[0]


def test_a_figure_without_alt_text_is_refused(script: Path) -> None:
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="needs alt"):
        Results(script).figure(figure, "x", alt=" ")
    with pytest.raises(ValueError, match="svg or png"):
        Results(script).figure(figure, "x", alt="text", ext="gif")
    plt.close(figure)


def test_damaged_metrics_are_not_overwritten(script: Path) -> None:
    results = Results(script)
    results.path.write_text("{")
    results.metric("a", 1)
    with pytest.raises(CourseError, match="not valid JSON"):
        results.save()
    assert results.path.read_text() == "{"

"""The README's picture and the table of costs: the parts that need no training."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from course import cost, picture
from course.sprints import ROOT, load_sprints

SVG = (
    '<?xml version="1.0"?>\n<svg width="{w}pt" viewBox="0 0 {w} {h}" xmlns="http://www.w3.org/2000/svg">{body}</svg>\n'
)


def test_pictures_are_stacked_without_sharing_ids() -> None:
    body = '<g id="a"/><use href="#a"/><path clip-path="url(#a)"/>'
    result = picture.stack(SVG.format(w=400, h=100, body=body), SVG.format(w=2000, h=50, body=body))
    root = ElementTree.fromstring(result)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids == ["p0-a", "p1-a"]
    assert 'href="#p1-a"' in result and "url(#p1-a)" in result
    inner = [element for element in root if element.tag.endswith("svg")]
    right_edges = [float(element.get("x", 0)) + float(element.get("width", 0)) for element in inner]
    assert max(right_edges) <= picture.WIDTH
    assert float(inner[1].get("y", 0)) >= float(inner[0].get("y", 0)) + float(inner[0].get("height", 0))


def test_an_svg_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no viewBox"):
        picture.size("<svg>")


def test_the_graph_shows_values_and_gradients() -> None:
    root = ElementTree.fromstring(picture.graph())
    assert root.tag.endswith("svg")


def test_the_committed_picture_is_well_formed() -> None:
    ElementTree.parse(ROOT / "course" / "figures" / "overview.svg")


def test_measuring_a_sprint_runs_its_notebooks_and_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(cost.subprocess, "run", lambda command, **_: commands.append(command[2:]))
    sprint = load_sprints()[0]
    row = cost.measure(sprint)
    assert [command[:2] for command in commands] == [["course", "run"], ["pytest", "-q"]]
    assert row["sprint"] == "01 Setup and basics"
    assert set(row) == {"sprint", "notebooks_seconds", "tests_seconds", "peak_mb"}

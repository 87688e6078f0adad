"""`course progress`: every standing, the next step, the page and its picture of the framework."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from course import certify, house, outcomes, page, progress
from course.sprints import ROOT, load_sprints
from course.workspace import Workspace

ADDING = """\
def add(a, b):
    \"\"\"The sum.\"\"\"
    return a + b


def both(a, b):
    \"\"\"Twice the sum.\"\"\"
    return 2 * add(a, b)


def helper(a):
    return a
"""
SCALING = """\
class Scale:
    def forward(self, x):
        \"\"\"Three times x.\"\"\"
        return 3 * x

    def backward(self, grad):
        \"\"\"Three times grad.\"\"\"
        return 3 * grad
"""
EXERCISES = """\
[[exercises]]
id = "add"
title = "Add & <b>compare</b>"
targets = ["shared.autograd.add"]
difficulty = 1
minutes = 20
note = "notes/01_adding.md"
milestones = ["adds"]
hints = ["Which?", "That.", "This."]
[[exercises]]
id = "both"
title = "Twice"
targets = ["shared.autograd.both"]
difficulty = 2
minutes = 30
note = "notes/01_adding.md"
milestones = ["many"]
hints = ["Which?", "That.", "This."]
[[exercises]]
id = "scale"
title = "Scale"
targets = ["shared.ops.scaling.Scale.forward", "shared.ops.scaling.Scale.backward"]
difficulty = 5
minutes = 25
note = "notes/01_adding.md"
milestones = ["many"]
hints = ["Which?", "That.", "This."]
[[milestones]]
"""
SECOND = """\
number = 2
title = "Second things"
goal = "Subtract."
hours = 1
[[milestones]]
id = "less"
text = "Two numbers are subtracted"
test = "test_milestone.py::test_less"
[[exercises]]
id = "less"
title = "Subtract"
targets = ["shared.ops.less.less"]
difficulty = 1
minutes = 135
note = "notes/01_less.md"
milestones = ["less"]
hints = ["Which?", "That.", "This."]
"""


@pytest.fixture
def root(repository: Path) -> Path:
    """The small repository with a framework of three files, and four exercises in two sprints."""
    files = {
        "shared/__init__.py": "",
        "shared/autograd.py": ADDING,
        "shared/ops/__init__.py": "",
        "shared/ops/scaling.py": SCALING,
        "shared/ops/less.py": "def less(a, b):\n    return a - b\n",
        "sprints/02_second_things/sprint.toml": SECOND,
        "sprints/02_second_things/notes/01_less.md": "# Less\n",
    }
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    first = repository / "sprints" / "01_first_things" / "sprint.toml"
    first.write_text(first.read_text().replace("[[milestones]]\n", EXERCISES, 1))
    return repository


@pytest.fixture
def learner(root: Path) -> Learner:
    return Learner(root)


class Learner:
    """Someone at work in a repository."""

    def __init__(self, root: Path):
        self.root = root

    @property
    def workspace(self) -> Workspace:
        return Workspace(root=self.root)

    def start(self, *numbers: int) -> None:
        self.workspace.start([s for s in load_sprints(self.root) if s.number in numbers])

    def file(self, name: str) -> Path:
        return self.root / "workspace" / "shared" / name

    def write(self, name: str, function: str, body: str) -> None:
        """Put `body` in place of a stub."""
        pattern = rf"(def {function}\(.*?\"\"\"\n +)raise NotImplementedError\(.*?\n +\)"
        text, count = re.subn(pattern, lambda m: m[1] + body, self.file(name).read_text(), count=1, flags=re.DOTALL)
        assert count == 1
        self.file(name).write_text(text)

    def judged(self, number: int, standing: str, message: str = "", sprint: int = 1) -> None:
        """Record a verdict on an exercise as it is now."""
        exercise = load_sprints(self.root)[sprint - 1].exercise(number)
        verdict = certify.Verdict(exercise, standing, message, self.workspace.code(exercise))
        certify.record(verdict, self.root)

    def reached(self, *ids: str, sprint: int = 1) -> None:
        """Record which milestones of a sprint passed; the others failed."""
        one = load_sprints(self.root)[sprint - 1]
        results = {m.id: {"outcome": "passed" if m.id in ids else "failed"} for m in one.milestones}
        outcomes.save(one, results, self.root)

    def note(self, number: int, **values: Any) -> None:
        outcomes.note(load_sprints(self.root)[0].exercise(number), self.root, **values)

    def overview(self) -> progress.Overview:
        return progress.overview(self.workspace, self.root)

    def standings(self) -> list[str]:
        return [row.standing for row in self.overview().rows]

    def shown(self, width: int = 80) -> str:
        console = Console(width=width, color_system=None)
        with console.capture() as captured:
            progress.show(self.overview(), console)
        return captured.get()

    def page(self) -> str:
        return page.page(self.overview(), self.workspace, "2026-01-02T03:04:05+00:00", self.root)


# ---------------------------------------------------------------- standings


def test_a_fresh_clone_is_not_started(learner: Learner) -> None:
    assert learner.standings() == [progress.NOT_STARTED] * 4
    assert not (learner.root / "workspace").exists()
    assert learner.overview().step == progress.Step(
        "Start Sprint 01, First things: 3 exercises, about 1 h 15 min.", "course start 01"
    )


def test_every_standing_is_told_apart(learner: Learner) -> None:
    learner.start(1)
    assert learner.standings() == [progress.STUB] * 3 + [progress.NOT_STARTED]
    learner.write("autograd.py", "add", "return b + a")
    learner.write("autograd.py", "both", "return 3 * add(a, b)")
    assert learner.standings()[:3] == [progress.UNCHECKED, progress.UNCHECKED, progress.STUB]
    learner.judged(1, progress.PASSING)
    learner.judged(2, progress.FAILING, "Failed: three times, where twice is right\nlong trace")
    assert learner.standings()[:3] == [progress.PASSING, progress.FAILING, progress.STUB]
    assert learner.overview().rows[1].message == "three times, where twice is right"
    learner.note(1, consulted=True, hints=2)
    assert learner.standings()[0] == progress.CONSULTED
    assert learner.overview().rows[0].hints == 2
    text = learner.file("autograd.py").read_text()
    learner.file("autograd.py").write_text(text.replace("return b + a", "return b - -a"))
    assert learner.standings()[:2] == [progress.UNCHECKED, progress.FAILING]


def test_a_comment_does_not_undo_a_verdict(learner: Learner) -> None:
    learner.start(1)
    learner.write("autograd.py", "add", "return b + a")
    learner.judged(1, progress.PASSING)
    text = learner.file("autograd.py").read_text()
    learner.file("autograd.py").write_text(f"# mine\n{text}".replace("return b + a", "return b + a  # mine too"))
    assert learner.standings()[0] == progress.PASSING


def test_half_an_exercise_is_still_a_stub(learner: Learner) -> None:
    learner.start(1)
    learner.write("ops/scaling.py", "forward", "return x * 3")
    row = learner.overview().rows[2]
    assert row.standing == progress.STUB
    line = learner.file("ops/scaling.py").read_text().splitlines().index("    def backward(self, grad):") + 1
    assert row.place == f"workspace/shared/ops/scaling.py:{line}"
    counts = {m.name: dict(m.counts) for m in house.modules([row], learner.workspace, learner.root)}
    assert counts["shared.ops.scaling"] == {progress.UNCHECKED: 1, progress.STUB: 1}


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (
            lambda path: path.write_text(path.read_text() + "def f(:\n"),
            "workspace/shared/autograd.py, line 19: invalid syntax: `def f(:`",
        ),
        (lambda path: path.write_text(path.read_text().replace("def add", "def plus")), "`add` is gone"),
        (lambda path: path.write_bytes(b"\xff\x00"), "workspace/shared/autograd.py"),
        (lambda path: path.unlink(), "workspace/shared/autograd.py is gone"),
    ],
    ids=["syntax", "renamed", "bytes", "deleted"],
)
def test_a_file_that_cannot_be_read_fails_with_the_reason(learner: Learner, spoil: Any, reason: str) -> None:
    learner.start(1)
    spoil(learner.file("autograd.py"))
    found = learner.overview()
    assert found.rows[0].standing == progress.FAILING and found.rows[2].standing == progress.STUB
    assert reason in found.rows[0].message and reason in found.step.reason
    assert "autograd" in learner.page()
    assert learner.shown().count("Traceback") == 0


# ---------------------------------------------------------------- the next step


def test_the_next_step_leads_through_a_sprint_and_on_to_the_next(learner: Learner) -> None:
    def command() -> str:
        return learner.overview().step.command

    learner.start(1)
    step = learner.overview().step
    assert step.text == "Write Sprint 01, exercise 1: Add & <b>compare</b>." and step.command == "course check 01 1"
    assert step.place == "workspace/shared/autograd.py:1" and step.note == "sprints/01_first_things/notes/01_adding.md"
    learner.write("autograd.py", "both", "return 0")
    assert command() == "course check 01 2", "what was changed comes before what is still a stub"
    learner.judged(2, progress.FAILING, "nothing, where twice the sum is right")
    assert learner.overview().step.reason == "nothing, where twice the sum is right"
    learner.write("autograd.py", "add", "return b + a")
    assert command() == "course check 01 1"
    for number in (1, 2):
        learner.judged(number, progress.PASSING)
    assert command() == "course check 01 3"
    learner.write("ops/scaling.py", "forward", "return 3 * x")
    learner.write("ops/scaling.py", "backward", "return 3 * grad")
    learner.judged(3, progress.PASSING)
    assert command() == "course check 01", "the milestones are still open"
    learner.reached("adds", "many")
    assert command() == "course start 02"
    learner.start(2)
    learner.file("ops/less.py").write_text("def less(a, b):\n    return -b + a\n")
    learner.judged(1, progress.PASSING, sprint=2)
    learner.reached("less", sprint=2)
    assert learner.overview().step == progress.Step("Every exercise passes and every milestone is reached.")
    assert "<code class" not in learner.page() and "\n      do" not in learner.shown()


def test_who_began_with_a_later_sprint_finishes_it_first(learner: Learner) -> None:
    learner.start(2)
    assert learner.overview().step.command == "course check 02 1"
    learner.file("ops/less.py").write_text("def less(a, b):\n    return -b + a\n")
    learner.judged(1, progress.PASSING, sprint=2)
    learner.reached("less", sprint=2)
    assert learner.overview().step.command == "course start 01"
    third = learner.root / "sprints" / "03_third_things"
    (third / "notes").mkdir(parents=True)
    (third / "notes" / "01_less.md").write_text("# Less\n")
    (third / "sprint.toml").write_text(SECOND.replace("number = 2", "number = 3").replace("less.less", "more.more"))
    (learner.root / "shared" / "ops" / "more.py").write_text("def more(a, b):\n    return a + b\n")
    assert learner.overview().step.command == "course start 03"


def test_an_exercise_that_came_later_is_to_be_started(learner: Learner) -> None:
    learner.start(1)
    for file, function, body in [
        ("autograd.py", "add", "return b + a"),
        ("autograd.py", "both", "return 2 * (a + b)"),
        ("ops/scaling.py", "forward", "return 3 * x"),
        ("ops/scaling.py", "backward", "return 3 * grad"),
    ]:
        learner.write(file, function, body)
    for number in (1, 2, 3):
        learner.judged(number, progress.PASSING)
    new = SECOND[SECOND.index("[[exercises]]") :].replace('"notes/01_less.md"', '"notes/01_adding.md"')
    path = learner.root / "sprints" / "01_first_things" / "sprint.toml"
    path.write_text(path.read_text() + new.replace('["less"]', '["adds"]'))
    step = learner.overview().step
    assert step.command == "course start 01" and "have not begun" in step.text


# ---------------------------------------------------------------- the terminal


def test_the_terminal_shows_what_was_begun_and_one_line_for_the_rest(learner: Learner) -> None:
    learner.start(1)
    learner.write("autograd.py", "both", "return 0")
    learner.judged(2, progress.FAILING, "nothing, where [bold]twice[/] the sum is right")
    learner.note(2, hints=3)
    learner.reached("adds")
    for width in (80, 120):
        text = learner.shown(width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        lines = [re.sub(r"\s+", " ", line.strip()) for line in text.splitlines()]
        assert "01 First things 1 of 2 0 of 3 1 h 15 min" in lines
        assert "02 Second things 0 of 1 1, not started 2 h 15 min" in lines
        assert "1 Add & <b>compare</b> 1/5 20 0/3 stub" in lines
        assert "2 Twice 2/5 30 3/3 failing" in lines
        assert "nothing, where [bold]twice[/] the sum is right" in lines
        assert "then course check 01 2" in lines
        assert "In part adding (1 of 2)" in lines and "To come order" in lines


def test_one_reason_is_said_once_per_sprint(learner: Learner) -> None:
    learner.start(1)
    learner.file("autograd.py").write_text("def f(:\n")
    table = learner.shown(120).partition("Next:")[0]
    assert table.count("failing") == 2 and table.count("invalid syntax") == 1


def test_changes_of_the_reference_are_named(learner: Learner) -> None:
    learner.start(1)
    path = learner.root / "shared" / "autograd.py"
    path.write_text(ADDING.replace("return a\n", "return +a\n") + "\n\ndef fresh(a):\n    return a\n")
    assert learner.overview().changed == {"shared.autograd": ["helper", "fresh"]}
    assert "shared.autograd: helper, fresh" in learner.shown()
    assert "<dt><code>shared.autograd</code></dt><dd><code>helper, fresh</code></dd>" in learner.page()


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_exercise_with_its_standing(learner: Learner) -> None:
    learner.start(1)
    learner.write("autograd.py", "add", "return b + a")
    learner.judged(1, progress.PASSING)
    learner.write("autograd.py", "both", "return 0")
    learner.judged(2, progress.FAILING, "nothing, where twice is right")
    learner.note(2, hints=1)
    learner.reached("adds")
    written = page.write(learner.overview(), learner.workspace, outcomes.now(), learner.root)
    assert written == learner.root / "progress" / "mine.html"
    reader = Reader(written.read_text(encoding="utf-8"))
    assert reader.open == []
    for row in learner.overview().rows:
        assert row.exercise.title in reader.text
        for part in row.parts:
            assert part.name in reader.text
    for expected in ("✓ passing", "✗ failing", "○ stub", "· not started", "nothing, where twice is right", "1 of 3",
                     "2 h 15 min", "1 of 4 exercises passing", "1 of 3 milestones", "course check 01 2",
                     "Two numbers are added (reached)", "Two numbers are subtracted (not checked yet)"):  # fmt: skip
        assert expected in reader.text, expected
    for _, attributes in reader.elements:
        if (target := attributes.get("href", "")).startswith("../"):
            assert (written.parent / target).is_file()


def test_the_page_loads_nothing_and_runs_nothing(learner: Learner) -> None:
    learner.start(1)
    text = learner.page()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|javascript:", text, re.IGNORECASE)
    for tag, attributes in Reader(text).elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "base", "form"), tag
        assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href") for name in attributes)
        assert tag == "a" or "href" not in attributes
    assert "$" not in text


HOSTILE = "</title></svg><script>alert(1)</script> & \"quoted\" 'too' ${page}"


def test_what_a_learner_wrote_is_text_on_the_page(learner: Learner) -> None:
    learner.start(1)
    learner.write("autograd.py", "both", "return 0")
    learner.judged(2, progress.FAILING, HOSTILE)
    learner.judged(1, progress.PASSING)
    path = learner.root / "workspace" / "workspace.json"
    path.write_text(path.read_text().replace('"helper"', '"<script>h</script>"'))
    text = learner.page()
    assert "<script" not in text and "<b>compare" not in text
    reader = Reader(text)
    assert HOSTILE in reader.text and "Add & <b>compare</b>" in reader.text and "<script>h</script>" in reader.text


def test_a_workspace_of_any_name_is_text_on_the_page(learner: Learner) -> None:
    workspace = Workspace(learner.root / "my <script>&amp; <b>", learner.root)
    workspace.start(load_sprints(learner.root))
    text = page.page(progress.overview(workspace, learner.root), workspace, "<script>", learner.root)
    assert "<script" not in text and "&amp; <b>" not in text
    assert "my <script>&amp; <b>/shared/autograd.py:1" in Reader(text).text


def test_a_damaged_record_is_reported_on_the_page(learner: Learner) -> None:
    path = outcomes.record_path(learner.root)
    path.parent.mkdir(exist_ok=True)
    path.write_text("{ half <b>")
    found = learner.overview()
    assert "progress/outcomes.json could not be read" in found.warnings[0]
    text = page.page(found, learner.workspace, "", learner.root)
    assert "It was set aside as progress/outcomes.json.damaged-" in Reader(text).text
    assert learner.overview().warnings == ()


def test_a_damaged_workspace_record_is_reported(learner: Learner) -> None:
    learner.start(1)
    (learner.root / "workspace" / "workspace.json").write_text("[]")
    found = learner.overview()
    assert "workspace/workspace.json could not be read" in found.warnings[0]
    assert "Your code is untouched" in page.page(found, learner.workspace, "", learner.root)


# ---------------------------------------------------------------- the picture


def picture(learner: Learner, width: float = page.WIDE) -> ElementTree.Element:
    found = house.modules(learner.overview().rows, learner.workspace, learner.root)
    return ElementTree.fromstring(house.draw(found, width, "x"))


def test_the_picture_has_a_box_per_file_coloured_by_what_is_the_learners(learner: Learner) -> None:
    learner.start(1)
    learner.write("autograd.py", "add", "return b + a")
    learner.judged(1, progress.PASSING)
    (learner.file("ops") / "mine.py").write_text("def one():\n    return 1\n")
    with learner.file("autograd.py").open("a") as file:
        file.write("\n\ndef extra():\n    return 1\n")
    groups = {g.findtext("title", "").partition(":")[0]: g for g in picture(learner).iter("g")}
    assert set(groups) == {"shared", "shared.autograd", "shared.ops.scaling", "shared.ops.less", "shared.ops.mine"}
    assert groups["shared.autograd"].get("class") == "module stub"
    assert groups["shared.ops.less"].get("class") == "module reference"
    text = "".join(groups["shared.autograd"].itertext())
    assert "2/3" in text and "✓ 01.1 add" in text and "○ 01.2 both" in text
    assert "1 helper of your own" in text and "Sprint 01, exercise 2: Twice (stub)" in text
    assert "· 02.1 less" in "".join(groups["shared.ops.less"].itertext())
    bars = [r.get("class") for r in groups["shared.autograd"].iter("rect") if "bar" in r.get("class", "")]
    assert bars == ["bar passing", "bar stub"]
    found = house.modules(learner.overview().rows, learner.workspace, learner.root)
    assert house.summary(found) == (
        "Of the framework's 7 functions you began 4: 1 passing, 3 still to write; besides, 2 helpers of your own."
    )


def test_a_file_takes_the_colour_of_what_most_needs_a_look(learner: Learner) -> None:
    def colour() -> str:
        groups = {g.findtext("title", "").partition(":")[0]: g for g in picture(learner).iter("g")}
        return groups["shared.autograd"].get("class", "").removeprefix("module ")

    learner.start(1)
    assert colour() == "stub"
    learner.write("autograd.py", "add", "return b + a")
    learner.write("autograd.py", "both", "return 0")
    assert colour() == "changed"
    learner.judged(1, progress.PASSING)
    learner.judged(2, progress.FAILING)
    assert colour() == "failing"
    learner.judged(2, progress.PASSING)
    assert colour() == "passing"
    learner.note(2, consulted=True)
    assert colour() == "consulted"
    learner.file("autograd.py").write_text("def f(:\n")
    assert colour() == "failing"


def test_an_untouched_framework_is_all_reference(learner: Learner) -> None:
    assert {g.get("class") for g in picture(learner).iter("g")} == {"module reference"}
    found = house.modules(learner.overview().rows, learner.workspace, learner.root)
    assert house.summary(found) == "The framework has 6 functions; none of them is yours yet."


def test_the_picture_has_a_title_and_a_description_of_its_own(learner: Learner) -> None:
    text = learner.page()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) == 4
    for labels in re.findall(r'aria-labelledby="([^"]+)"', text):
        assert set(labels.split()) <= set(ids)


@pytest.mark.parametrize("width", [page.WIDE, page.NARROW])
def test_in_the_real_framework_no_box_leaves_its_floor_or_covers_another(width: float) -> None:
    workspace = Workspace(Path("nowhere"))
    found = house.modules(progress.overview(workspace).rows, workspace)
    svg = ElementTree.fromstring(house.draw(found, width, "x"))
    assert len(list(svg.iter("g"))) == len(found) > 50
    height = float(svg.get("viewBox", "").split()[3])
    boxes = {"floor": [], "room": [], "module": []}
    for element, kind in [(r, r.get("class", "")) for r in svg.findall("rect")] + [
        (g.find("rect"), "module") for g in svg.iter("g")
    ]:
        x, y, w, h = (float(element.get(name)) for name in ("x", "y", "width", "height"))
        boxes[kind].append((x, y, x + w, y + h))
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height
    for inner, outer in (("room", "floor"), ("module", "room")):
        for a in boxes[inner]:
            assert sum(b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3] for b in boxes[outer]) == 1
    for kind in boxes.values():
        for a, b in itertools.combinations(kind, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


# ---------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_contrast_enough_in_both_schemes(scheme: int) -> None:
    """WCAG 2: a ratio of at least 4.5 to the background, for every letter's colour on every box it may stand on."""
    block = re.findall(r":root \{(.*?)\}", page.TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    kinds = set(house.CLASSES.values())
    plain = ["page", "floor", "room"]
    pairs = [(ink, back) for ink in ("ink", "soft", *kinds) for back in [*plain, *(f"{k}-back" for k in kinds)]]
    assert len(pairs) == 8 * 9
    for ink, back in pairs:
        one, other = sorted((luminance(colours[ink]), luminance(colours[back])))
        assert (other + 0.05) / (one + 0.05) >= 4.5, f"{ink} on {back}"


def test_every_standing_has_a_mark_and_a_class() -> None:
    assert set(house.MARKS) == set(house.CLASSES) == set(progress.STANDINGS) == set(progress.STYLES)
    assert len(set(house.MARKS.values())) == len(set(house.CLASSES.values())) == len(progress.STANDINGS)


def test_the_real_course_has_a_row_for_every_exercise() -> None:
    workspace = Workspace(Path("nowhere"))
    found = progress.overview(workspace)
    listed = [tomllib.loads((s.folder / "sprint.toml").read_text(encoding="utf-8")) for s in load_sprints()]
    assert len(found.rows) == sum(len(table.get("exercises", [])) for table in listed)
    text = Reader(page.page(found, workspace, "")).text
    for row in found.rows:
        assert row.exercise.title in text and f"{row.name.replace(' ', '.')} {row.exercise.id}" in text


# ---------------------------------------------------------------- the command


def test_the_command_shows_writes_and_opens(root: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "course", root / "course", ignore=shutil.ignore_patterns("__pycache__"))
    opened, browser = tmp_path / "opened.txt", tmp_path / "browser.py"
    browser.write_text(f"import sys, pathlib\npathlib.Path({str(opened)!r}).write_text(sys.argv[1])\n")
    outcomes.record_path(root).parent.mkdir()
    outcomes.record_path(root).write_text("{ half")
    variables = {**os.environ, "PYTHONPATH": str(root), "BROWSER": f'"{sys.executable}" "{browser}" %s'}
    variables.pop("COLUMNS", None)
    command = [sys.executable, "-m", "course", "progress", "--open"]
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "could not be read" in done.stderr and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in done.stdout
    assert lines[-1].endswith(": progress/mine.html")
    assert "do  course start 01" in done.stdout
    assert opened.read_text() == (root / "progress" / "mine.html").as_uri()

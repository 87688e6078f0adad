"""The workspace: blanking exercises, keeping the learner's work whatever happens to it, and saying what is wrong."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import textwrap
from pathlib import Path

import pytest

from course import preflight, sources
from course import workspace as workspace_module
from course.sprints import ROOT, CourseError, Exercise, Sprint, load_sprints
from course.workspace import BROKEN, MISSING, NOT_STARTED, STUB, WRITTEN, Workspace

SPRINTS = load_sprints()
ENGINE = '''\
"""An engine."""

from __future__ import annotations

import functools

HALF = 0.5  # a constant


def helper(x):
    """Stays."""
    return x


# A comment before the function.
@functools.cache
def double(
    x: float,  # a comment in the signature
    *,
    twice: bool = False,
) -> float:
    """2 · x, or 4 · x.

    >>> double(1.0)
    2.0
    """
    # A comment in the body.
    if twice:

        def inner():
            return 4 * x

        return inner()  # the end
    return x + x


class Engine:
    """A class."""

    size = 3

    @staticmethod
    def halve(x): return x * HALF

    def no_docstring(self, x):
        return x + 1

    class Part:
        def run(self):  # a comment behind the colon
            """Run."""
            return "ran"

    # A comment at the end of the class.


def last():
    """Last."""
    return 1
'''
OTHER = 'def other(x):\n    """Other."""\n    return -x\n'
SPRINT = """\
number = {number}
title = "Sprint {number}"
goal = "Goal."
hours = 1
[[milestones]]
id = "works"
text = "It works"
test = "test_milestone.py::test_works"
"""
EXERCISE = """\
[[exercises]]
id = "{id}"
title = "{title}"
targets = {targets}
difficulty = 1
minutes = 5
note = "notes/01_note.md"
milestones = ["works"]
hints = ["Why?", "How.", "Nearly."]
"""
EXERCISES = {
    1: {"double": ["shared.engine.double"], "halve": ["shared.engine.Engine.halve", "shared.other.other"]},
    2: {"plain": ["shared.engine.Engine.no_docstring"], "run": ["shared.engine.Engine.Part.run"]},
}


def write_sprint(root: Path, number: int, exercises: dict[str, list[str]]) -> None:
    folder = root / "sprints" / f"{number:02d}_sprint"
    (folder / "notes").mkdir(parents=True, exist_ok=True)
    (folder / "notes" / "01_note.md").write_text("# Note\n")
    text = SPRINT.format(number=number)
    for name, targets in exercises.items():
        text += EXERCISE.format(id=name, title=f"Adam's “{name}”", targets=json.dumps(targets))
    (folder / "sprint.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A course of two sprints which share one module."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "engine.py").write_text(ENGINE, encoding="utf-8")
    (tmp_path / "shared" / "other.py").write_text(OTHER)
    for number, exercises in EXERCISES.items():
        write_sprint(tmp_path, number, exercises)
    return tmp_path


def sprint(root: Path, number: int) -> Sprint:
    return load_sprints(root)[number - 1]


def exercise(root: Path, name: str) -> Exercise:
    return next(e for s in load_sprints(root) for e in s.exercises if e.id == name)


def begun(root: Path, *numbers: int) -> Workspace:
    workspace = Workspace(root=root)
    workspace.start([sprint(root, number) for number in numbers])
    return workspace


def engine(root: Path) -> Path:
    return root / "workspace" / "shared" / "engine.py"


def write_body(path: Path, name: str, body: str) -> None:
    """Do an exercise as a learner does: replace the stub by a body."""
    text = path.read_text(encoding="utf-8")
    found = sources.functions(text)[name]
    assert found.stub
    start = found.text.index("raise NotImplementedError(")
    path.write_text(sources.put(text, name, found.text[:start] + body + "\n"), encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copies(root: Path) -> list[str]:
    return [p.read_text(encoding="utf-8") for p in sorted((root / "workspace" / "backup").rglob("*.py"))]


# ---------------------------------------------------------------- blanking


def test_only_the_listed_bodies_are_replaced(root: Path) -> None:
    begun(root, 1)
    text = engine(root).read_text(encoding="utf-8")
    stub = (
        "    raise NotImplementedError(\n"
        '        "Sprint 01, exercise 1: Adam\'s “double”; not written yet. "\n'
        '        "Read sprints/01_sprint/notes/01_note.md, or ask: course hint 01 1"\n'
        "    )\n"
    )
    assert stub in text
    expected = ENGINE.replace(
        ENGINE[ENGINE.index("    # A comment in the body.") : ENGINE.index("\n\nclass Engine")], stub
    )
    one_line = "    def halve(x): return x * HALF\n"
    halved = stub.replace("exercise 1", "exercise 2").replace("double", "halve").replace("hint 01 1", "hint 01 2")
    halved = "    def halve(x):\n" + "".join(f"    {line}\n" for line in halved.splitlines())
    lines = list(difflib.unified_diff(expected.splitlines(), text.splitlines(), n=0, lineterm=""))[2:]
    assert [line[1:] for line in lines if line[0] == "-"] == one_line.splitlines()
    assert [line[1:] for line in lines if line[0] == "+"] == halved.splitlines()


def test_a_stub_is_seen_as_a_stub_and_what_is_written_as_written(root: Path) -> None:
    workspace = Workspace(root=root)
    double = exercise(root, "double")
    assert workspace.state(double) == NOT_STARTED
    workspace.start([sprint(root, 1)])
    assert workspace.state(double) == STUB
    write_body(engine(root), "double", "pass")
    assert workspace.state(double) == WRITTEN
    assert workspace.state(exercise(root, "halve")) == STUB


@pytest.mark.parametrize("one", SPRINTS, ids=lambda s: s.label)
def test_with_the_references_bodies_put_back_every_file_is_the_references_to_the_character(
    one: Sprint, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "a workspace")
    workspace.start([one])
    for module in workspace.modules():
        text, right = workspace.file(module).read_text(encoding="utf-8"), workspace.reference(module)
        functions = sources.functions(right)
        for name in [n for e in one.exercises for t in e.targets for m, n in [sources.split(t)] if m == module]:
            text = sources.put(text, name, functions[name].text)
        assert text == right


def test_every_function_of_an_exercise_has_its_line(root: Path) -> None:
    write_sprint(root, 3, {"both": ["shared.engine.double", "shared.engine.last", "shared.other.other"]})
    found = begun(root, 3).places(exercise(root, "both"))
    lines = engine(root).read_text(encoding="utf-8").splitlines()
    double, last = lines.index("@functools.cache") + 1, lines.index("def last():") + 1
    assert found == [f"workspace/shared/engine.py:{double}, {last}", "workspace/shared/other.py:1"]


@pytest.mark.parametrize("one", SPRINTS, ids=lambda s: s.label)
def test_every_exercise_alone_changes_nothing_but_the_lines_of_its_own_body(one: Sprint) -> None:
    for target in (target for e in one.exercises for target in e.targets):
        module, name = sources.split(target)
        right = Workspace().reference(module)
        blank = sources.blanked(right, {name: ("Sprint 01, exercise 1. ", "Read")})
        before, after = sources.functions(right)[name], sources.functions(blank)[name]
        assert after.stub and not before.stub
        head = after.text.splitlines()[:-4]  # decorators, signature, docstring
        assert head == before.text.splitlines()[: len(head)], target
        (node,) = ast.parse(textwrap.dedent(before.text)).body
        assert isinstance(node, ast.FunctionDef)
        assert (ast.get_docstring(node) or "") in textwrap.dedent("\n".join(head)).replace("\n    ", "\n")
        body = node.body[1:] if ast.get_docstring(node) else node.body
        assert len(head) < body[0].lineno, f"{target}: a line of the body survived"
        old, new = right.splitlines(), blank.splitlines()
        assert new[: after.first - 1] == old[: before.first - 1], target
        assert new[after.last :] == old[before.last :], target


# ---------------------------------------------------------------- starting


def test_a_later_sprint_that_touches_the_same_file_keeps_the_learners_work(root: Path) -> None:
    begun(root, 1)
    write_body(engine(root), "double", "return 2 * x  # mine")
    mine = engine(root).read_text(encoding="utf-8").replace("HALF = 0.5", "HALF = 1 / 2")
    engine(root).write_text(mine, encoding="utf-8")
    workspace = begun(root, 2)
    text = engine(root).read_text(encoding="utf-8")
    assert "return 2 * x  # mine" in text and "HALF = 1 / 2" in text
    assert [workspace.state(exercise(root, name)) for name in ("double", "plain", "run")] == [WRITTEN, STUB, STUB]
    removed = [line for line in difflib.ndiff(mine.splitlines(), text.splitlines()) if line.startswith("- ")]
    assert [line[2:].strip() for line in removed] == ["return x + 1", 'return "ran"']
    assert copies(root) == [mine]


def test_starting_twice_changes_nothing(root: Path) -> None:
    begun(root, 1)
    before = files(root / "workspace")
    assert Workspace(root=root).start([sprint(root, 1)]) == []
    assert files(root / "workspace") == before


def test_from_scratch_blanks_every_exercise_of_every_sprint(root: Path) -> None:
    workspace = begun(root, 1, 2)
    assert {workspace.state(e) for s in load_sprints(root) for e in s.exercises} == {STUB}
    assert copies(root) == []


def test_every_function_of_the_course_can_be_blanked_at_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    assert len(workspace.start(SPRINTS)) == sum(len(one.exercises) for one in SPRINTS)
    assert {workspace.state(e) for one in SPRINTS for e in one.exercises} == {STUB}
    assert preflight.static_problems(workspace) == []


def test_a_function_that_the_course_adds_to_a_begun_exercise_waits_for_the_next_start(root: Path) -> None:
    begun(root, 1)
    write_body(engine(root), "double", "return 2 * x")
    write_sprint(root, 1, {**EXERCISES[1], "double": ["shared.engine.double", "shared.engine.last"]})
    workspace = Workspace(root=root)
    assert workspace.state(exercise(root, "double")) == NOT_STARTED
    workspace.start([sprint(root, 1)])
    assert [part.state for part in workspace.parts(exercise(root, "double"))] == [WRITTEN, STUB]


def test_a_deleted_file_comes_back_with_all_that_was_begun_as_stubs(root: Path) -> None:
    begun(root, 1)
    engine(root).unlink()
    workspace = Workspace(root=root)
    assert workspace.state(exercise(root, "double")) == MISSING
    (problem,) = preflight.static_problems(workspace)
    assert problem.module == "shared.engine" and "workspace/shared/engine.py is gone" in problem.text
    workspace.start([sprint(root, 2)])
    assert [workspace.state(exercise(root, n)) for n in ("double", "halve", "plain", "run")] == [STUB] * 4


def test_interrupted_at_any_write_a_start_can_be_repeated_without_loss(root: Path, monkeypatch) -> None:
    begun(root, 1)
    write_body(engine(root), "double", "return 2 * x")
    write_sprint(root, 2, {**EXERCISES[2], "last": ["shared.engine.last"], "other": ["shared.third.third"]})
    (root / "shared" / "third.py").write_text("def third(x):\n    return x / 3\n")
    for interrupted_at in range(5):
        folder = root / f"workspace{interrupted_at}"
        begun(root, 1)
        for name, data in files(root / "workspace").items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        calls = 0

        def write(path: Path, text: str | bytes, real=workspace_module.write_atomically, stop=interrupted_at) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            real(path, text)

        with monkeypatch.context() as patch:
            patch.setattr(workspace_module, "write_atomically", write)
            if interrupted_at < 4:
                with pytest.raises(KeyboardInterrupt):
                    Workspace(folder, root).start([sprint(root, 2)])
            else:  # the copy, two modules, the record
                Workspace(folder, root).start([sprint(root, 2)])
                assert calls == 4
        workspace = Workspace(folder, root)
        workspace.start([sprint(root, 2)])
        states = {n: workspace.state(exercise(root, n)) for n in ("double", "halve", "plain", "run", "last", "other")}
        assert states == {"double": WRITTEN, "halve": STUB, "plain": STUB, "run": STUB, "last": STUB, "other": STUB}
        assert "return 2 * x" in (folder / "shared" / "engine.py").read_text(encoding="utf-8")
        assert workspace.changed_in_reference() == []
        (root / "shared" / "third.py").write_text("def third(x):\n    return x * (1 / 3)\n")
        assert workspace.changed_in_reference() == ["shared.third.third"], "a repeated start forgot what it copied"
        (root / "shared" / "third.py").write_text("def third(x):\n    return x / 3\n")


# ---------------------------------------------------------------- resetting


def test_resetting_one_exercise_keeps_the_others_and_a_copy(root: Path) -> None:
    workspace = begun(root, 1, 2)
    stubs = engine(root).read_text(encoding="utf-8")
    write_body(engine(root), "double", "return 2 * x  # mine")
    write_body(engine(root), "Engine.no_docstring", "return x + 1")
    mine = engine(root).read_text(encoding="utf-8")
    (copy,) = workspace.reset(sprint(root, 1), exercise(root, "double"))
    assert copy.read_text(encoding="utf-8") == mine and (root / "workspace" / "backup") in copy.parents
    assert workspace.state(exercise(root, "double")) == STUB and workspace.state(exercise(root, "plain")) == WRITTEN
    workspace.reset(sprint(root, 2))
    assert engine(root).read_text(encoding="utf-8") == stubs


def test_resetting_a_stub_changes_nothing(root: Path) -> None:
    workspace = begun(root, 1)
    before = engine(root).read_bytes()
    assert workspace.reset(sprint(root, 1)) == []
    assert engine(root).read_bytes() == before


def test_two_resets_keep_both_texts(root: Path) -> None:
    workspace = begun(root, 1)
    for text in ("return 1", "return 2"):
        write_body(engine(root), "double", text)
        workspace.reset(sprint(root, 1))
    assert [re.findall(r"return ([12])\b", text)[0] for text in copies(root)] == ["1", "2"]


@pytest.mark.parametrize("damage", ["def broken(:\n", "x = 'no end\n", "\tif True:\n  pass\n", "\0", "\udcff\udcfe"])
def test_a_file_that_cannot_be_read_is_kept_and_replaced_only_by_resetting_the_sprint(root: Path, damage: str) -> None:
    begun(root, 1, 2)
    damaged = engine(root).read_bytes() + damage.encode(errors="surrogateescape")
    engine(root).write_bytes(damaged)
    workspace = Workspace(root=root)
    before = files(root / "workspace")
    assert workspace.state(exercise(root, "double")) == BROKEN
    with pytest.raises(
        CourseError, match=r"workspace/shared/engine.py cannot be read as Python \(line \d+: .*course reset"
    ):
        workspace.reset(sprint(root, 1), exercise(root, "double"))
    assert files(root / "workspace") == before
    (copy,) = workspace.reset(sprint(root, 1))
    assert copy.read_bytes() == damaged
    assert workspace.state(exercise(root, "double")) == workspace.state(exercise(root, "run")) == STUB
    assert preflight.static_problems(workspace) == []


def test_starting_with_a_file_that_cannot_be_read_changes_nothing_at_all(root: Path) -> None:
    begun(root, 1)
    engine(root).write_text("def (", encoding="utf-8")
    before = files(root / "workspace")
    with pytest.raises(CourseError, match="line 1.*nothing was changed"):
        begun(root, 2)
    assert files(root / "workspace") == before


def test_a_deleted_function_comes_back_where_it_was(root: Path) -> None:
    workspace = begun(root, 1, 2)
    whole = engine(root).read_text(encoding="utf-8")
    for name, one in (("double", "double"), ("Engine.no_docstring", "plain"), ("Engine.Part.run", "run")):
        text = engine(root).read_text(encoding="utf-8")
        if name.endswith("run"):  # a class needs a body
            text = sources.put(text, name, "        other = 1")
        else:
            text = text.replace(sources.functions(text)[name].text, "")
        engine(root).write_text(text, encoding="utf-8")
        assert workspace.state(exercise(root, one)) == MISSING
        workspace.reset(sprint(root, 1 if one == "double" else 2), exercise(root, one))
        assert workspace.state(exercise(root, one)) == STUB
    found = sources.functions(engine(root).read_text(encoding="utf-8"))
    assert list(found) == list(sources.functions(whole))
    assert preflight.static_problems(workspace) == []


def test_a_class_that_was_renamed_or_emptied_needs_the_whole_sprint_reset(root: Path) -> None:
    begun(root, 1, 2)
    text = engine(root).read_text(encoding="utf-8").replace("class Engine", "class Motor")
    engine(root).write_text(text, encoding="utf-8")
    workspace = Workspace(root=root)
    (problem,) = preflight.static_problems(workspace)
    assert "`Engine` is gone" in problem.text and "halve" not in problem.text
    with pytest.raises(CourseError, match="there is no class Engine.*course reset NN"):
        workspace.reset(sprint(root, 1), exercise(root, "halve"))
    assert engine(root).read_text(encoding="utf-8") == text
    workspace.reset(sprint(root, 1))
    assert preflight.static_problems(workspace) == [] and copies(root) == [text]


def test_an_empty_file_comes_back_whole(root: Path) -> None:
    begun(root, 1)
    engine(root).write_text("")
    workspace = Workspace(root=root)
    (problem,) = preflight.static_problems(workspace)
    assert "`double`" in problem.text and "are gone" in problem.text
    workspace.reset(sprint(root, 1))
    assert "import functools" in engine(root).read_text(encoding="utf-8")
    assert preflight.static_problems(workspace) == []


def test_what_was_not_started_cannot_be_reset(root: Path) -> None:
    begun(root, 1)
    with pytest.raises(CourseError, match="not started exercise 1 of sprint 02 yet: course start 02"):
        Workspace(root=root).reset(sprint(root, 2), exercise(root, "plain"))
    with pytest.raises(CourseError, match="not started sprint 02 yet"):
        Workspace(root=root).reset(sprint(root, 2))


# ---------------------------------------------------------------- the record


def test_a_lost_record_costs_no_work(root: Path) -> None:
    begun(root, 1, 2)
    write_body(engine(root), "double", "return 2 * x")
    write_body(engine(root), "Engine.no_docstring", "return x + 1  # as in the reference, with a comment")
    before = engine(root).read_text(encoding="utf-8")
    (root / "workspace" / "workspace.json").unlink()
    workspace = Workspace(root=root)
    assert "workspace/workspace.json is missing" in workspace.warnings[0] and "course start" in workspace.warnings[0]
    assert len(workspace.start(load_sprints(root))) == 4
    assert engine(root).read_text(encoding="utf-8") == before and copies(root) == []
    states = [workspace.state(exercise(root, name)) for name in ("double", "halve", "plain", "run")]
    assert states == [WRITTEN, STUB, WRITTEN, STUB]
    assert Workspace(root=root).warnings == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "exercises": {"a": 1}, "modules": {}}', "\xff",
             '{"version": "new", "exercises": {}, "modules": {}}', '{"version": 1, "exercises": {}, "modules": {"a": 1}}']
)  # fmt: skip
def test_a_damaged_record_is_set_aside_and_costs_no_work(root: Path, text: str) -> None:
    begun(root, 1)
    write_body(engine(root), "double", "return 2 * x")
    before = engine(root).read_bytes()
    (root / "workspace" / "workspace.json").write_text(text, encoding="latin-1")
    workspace = Workspace(root=root)
    (aside,) = (root / "workspace").glob("workspace.json.damaged-*")
    assert aside.read_text(encoding="latin-1") == text and aside.name in workspace.warnings[0]
    workspace.start([sprint(root, 1)])
    assert engine(root).read_bytes() == before
    assert Workspace(root=root).state(exercise(root, "double")) == WRITTEN


def test_a_newer_record_is_refused_and_left_as_it_is(root: Path) -> None:
    begun(root, 1)
    path = root / "workspace" / "workspace.json"
    path.write_text('{"version": 99}')
    with pytest.raises(CourseError, match="workspace/workspace.json was written by a newer version of the course"):
        Workspace(root=root)
    assert path.read_text() == '{"version": 99}'


def test_changes_of_the_reference_are_named_function_by_function(root: Path) -> None:
    workspace = begun(root, 1)
    path = root / "shared" / "engine.py"
    path.write_text(ENGINE.replace("# A comment in", "# Another one in").replace('"""Stays."""', '"""Still."""'))
    assert workspace.changed_in_reference() == [], "comments and docstrings are no change"
    path.write_text(ENGINE.replace("return x + x", "return 2 * x").replace("def last", "def newest"))
    expected = ["shared.engine.double", "shared.engine.last", "shared.engine.newest"]
    assert workspace.changed_in_reference() == expected
    workspace.reset(sprint(root, 1), exercise(root, "double"))  # the stub is that of today's reference
    assert Workspace(root=root).changed_in_reference() == expected[1:]
    engine(root).unlink()
    workspace.reset(sprint(root, 1))  # and now the whole file
    assert Workspace(root=root).changed_in_reference() == []


def test_work_on_an_older_copy_is_not_taken_for_the_references(root: Path) -> None:
    begun(root, 1)
    path = root / "shared" / "engine.py"
    path.write_text(ENGINE.replace("return x + 1", "return 1 + x"))
    workspace = begun(root, 2)
    assert workspace.state(exercise(root, "plain")) == STUB, "an unwritten function of an older copy is blanked"


# ---------------------------------------------------------------- what editors and systems do to files


def test_windows_newlines_and_a_byte_order_mark_stay(root: Path) -> None:
    begun(root, 1)
    stubs = engine(root).read_bytes()
    write_body(engine(root), "double", "return 2 * x")
    theirs = b"\xef\xbb\xbf" + engine(root).read_bytes().replace(b"\n", b"\r\n")
    engine(root).write_bytes(theirs)
    workspace = Workspace(root=root)
    assert workspace.state(exercise(root, "double")) == WRITTEN and preflight.static_problems(workspace) == []
    (copy,) = workspace.reset(sprint(root, 1), exercise(root, "double"))
    assert copy.read_bytes() == theirs
    assert engine(root).read_bytes() == b"\xef\xbb\xbf" + stubs.replace(b"\n", b"\r\n")


def test_a_file_in_another_encoding_that_says_so_is_read_and_kept(root: Path) -> None:
    begun(root, 1)
    write_body(engine(root), "double", "return 'é'")
    text = "# -*- coding: latin-1 -*-\n" + engine(root).read_text(encoding="utf-8").replace("“", '"').replace("”", '"')
    text = text.replace('"halve"', "halve")
    engine(root).write_bytes(text.encode("latin-1"))
    workspace = begun(root, 2)
    assert workspace.state(exercise(root, "double")) == WRITTEN
    assert "return 'é'" in sources.read(engine(root)) and "\\u201cplain\\u201d" in sources.read(engine(root))
    compile(engine(root).read_bytes(), "engine.py", "exec")


def test_a_file_indented_by_tabs_takes_stubs_that_python_can_read(root: Path) -> None:
    begun(root, 1)
    text = engine(root).read_text(encoding="utf-8")
    text = re.sub(r"(?m)^( {4})+", lambda match: "\t" * (len(match[0]) // 4), text)
    text = text.replace(sources.functions(text)["Engine.no_docstring"].text, "")
    engine(root).write_text(text, encoding="utf-8")
    workspace = begun(root, 2)
    assert workspace.state(exercise(root, "plain")) == workspace.state(exercise(root, "run")) == STUB
    workspace.reset(sprint(root, 1))
    compile(engine(root).read_bytes(), "engine.py", "exec")
    assert preflight.static_problems(workspace) == []


def test_form_feeds_and_line_separators_do_not_shift_lines(root: Path) -> None:
    begun(root, 1)
    text = engine(root).read_text(encoding="utf-8").replace('"""Stays."""', '"""Stays.\x0c\u2028\x85\x1c"""')
    engine(root).write_text(text, encoding="utf-8")
    write_body(engine(root), "double", "return 2 * x")
    workspace = Workspace(root=root)
    workspace.reset(sprint(root, 1))
    assert engine(root).read_text(encoding="utf-8") == text


def test_async_decorated_nested_and_double_definitions_are_all_found(root: Path) -> None:
    begun(root, 1)
    stub = sources.functions(engine(root).read_text(encoding="utf-8"))["double"].text
    double = "@functools.cache\ndef double(x):\n    return {}\n"
    for text in (
        "async def double(x):\n    return x\n",
        double.format(1) + "\n\n" + double.format(2),
        "if HALF:\n    def double(x):\n        return x\nelse:\n    pass\n",
        "try:\n    import fast\nexcept ImportError:\n    def double(x):\n        return x\n",
    ):
        whole = engine(root).read_text(encoding="utf-8")
        engine(root).write_text(whole.replace(stub, text), encoding="utf-8")
        workspace = Workspace(root=root)
        assert workspace.state(exercise(root, "double")) == WRITTEN, text
        assert preflight.static_problems(workspace) == [], text
        workspace.reset(sprint(root, 1), exercise(root, "double"))
        assert workspace.state(exercise(root, "double")) == STUB, text
        compile(engine(root).read_bytes(), "engine.py", "exec")
        engine(root).write_text(whole, encoding="utf-8")


def test_a_function_that_became_an_assignment_is_no_lost_name_but_told_as_missing(root: Path) -> None:
    begun(root, 1, 2)
    text = engine(root).read_text(encoding="utf-8")
    found = sources.functions(text)
    text = text.replace(found["Engine.no_docstring"].text, "    no_docstring = lambda self, x: x + 1\n")
    engine(root).write_text(text, encoding="utf-8")
    workspace = Workspace(root=root)
    assert preflight.static_problems(workspace) == []
    (part,) = workspace.parts(exercise(root, "plain"))
    assert part.state == MISSING
    assert "there is no `def Engine.no_docstring` there any more" in preflight.reason(workspace, part)


def test_a_folder_in_a_files_place_is_told_and_kept(root: Path) -> None:
    begun(root, 1)
    engine(root).unlink()
    engine(root).mkdir()
    (engine(root) / "kept.txt").write_text("kept")
    workspace = Workspace(root=root)
    assert workspace.modules() == ["shared.other"] and workspace.state(exercise(root, "double")) == BROKEN
    (problem,) = preflight.static_problems(workspace)
    assert "workspace/shared/engine.py is a folder" in problem.text
    with pytest.raises(CourseError, match="engine.py cannot be read .*nothing was changed"):
        workspace.start([sprint(root, 2)])
    (copy,) = workspace.reset(sprint(root, 1))
    assert (copy / "kept.txt").read_text() == "kept" and workspace.state(exercise(root, "double")) == STUB


def test_a_read_only_file_is_replaced_and_stays_read_only(root: Path) -> None:
    begun(root, 1)
    engine(root).chmod(0o444)
    workspace = begun(root, 2)
    assert workspace.state(exercise(root, "plain")) == STUB
    assert engine(root).stat().st_mode & 0o777 == 0o444


def test_a_file_in_the_workspaces_place_is_one_clear_error(root: Path) -> None:
    (root / "workspace").write_text("in the way")
    with pytest.raises(CourseError, match="workspace.* could not be"):
        begun(root, 1)
    assert (root / "workspace").read_text() == "in the way"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights there")
def test_a_linked_file_and_a_linked_workspace_stay_links(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where" / "my workspace"
    elsewhere.mkdir(parents=True)
    (root / "workspace").symlink_to(elsewhere, target_is_directory=True)
    begun(root, 1)
    own = elsewhere / "mine.py"
    own.write_bytes((elsewhere / "shared" / "engine.py").read_bytes())
    engine(root).unlink()
    engine(root).symlink_to(own)
    workspace = begun(root, 2)
    assert engine(root).is_symlink() and "exercise 2: Adam's “run”" in own.read_text(encoding="utf-8")
    assert (root / "workspace").is_symlink() and workspace.state(exercise(root, "run")) == STUB


def test_checkpoints_and_copies_of_editors_are_no_modules(root: Path) -> None:
    workspace = begun(root, 1)
    shared = root / "workspace" / "shared"
    for name in (".ipynb_checkpoints/engine-checkpoint.py", "engine (copy).py", "engine.old.py", ".#engine.py"):
        (shared / name).parent.mkdir(exist_ok=True)
        (shared / name).write_text("def (")
    assert workspace.modules() == ["shared.engine", "shared.other"]
    assert preflight.static_problems(workspace) == []


def test_a_diff_shows_the_learners_functions_beside_the_references(root: Path) -> None:
    workspace = begun(root, 1)
    write_body(engine(root), "double", "return 2 * x")
    lines = workspace.diff(exercise(root, "double"))
    assert lines[:2] == [
        "--- workspace/shared/engine.py: double, yours",
        "+++ shared/engine.py: double, the reference",
    ]
    assert "-    return 2 * x" in lines and "+    return x + x" in lines


def test_the_real_reference_lies_outside_every_workspace() -> None:
    assert Workspace().root == ROOT and Workspace().folder == ROOT / "workspace"

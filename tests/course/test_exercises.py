"""The exercise commands as a learner types them: what they change, say, and return; and `%load_ext course`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import certify, outcomes
from course.sprints import CourseError, Exercise, load_sprints
from course.workspace import Workspace


@pytest.fixture
def fresh(practice):
    """The clone as before anything was started."""
    for name in ("workspace", "progress"):
        shutil.rmtree(practice.root / name, ignore_errors=True)
    return practice


def record(practice) -> dict:
    found, warning = outcomes.load(practice.root)
    assert warning is None
    return found["exercises"]


def solved(practice, **bodies: str) -> Path:
    """workspace/ with everything solved but `bodies`."""
    return practice.workspace(practice.root / "workspace", bodies)


def write(practice, name: str, body: str) -> None:
    """Fill in one stub of workspace/."""
    path = practice.root / "workspace" / "shared" / "practice.py"
    pattern = rf'(def {name}\(x\):\n    """x \+ 1."""\n)    raise NotImplementedError\(\n.*\n.*\n    \)\n'
    text, count = re.subn(pattern, rf"\g<1>    {body}\n", path.read_text())
    assert count == 1
    path.write_text(text)


# ---------------------------------------------------------------- start and reset


def test_start_says_where_and_reset_where_the_old_text_went(fresh) -> None:
    done = fresh.run("course", "start", "01")
    assert done.returncode == 0, done.stderr
    assert "Sprint 01, Practice: 17 exercises, yours to write" in done.stdout
    path = fresh.root / "workspace" / "shared" / "practice.py"
    line = path.read_text().splitlines().index("def wrong(x):") + 1
    assert f"workspace/shared/practice.py:{line}" in done.stdout and "read notes/01_wrong.md" in done.stdout
    words = " ".join(done.stdout.split())
    assert "Begin with exercise 01 1, then: course check 01 1. Stuck: course hint 01 1." in words

    write(fresh, "right", "return x + 1  # mine")
    mine = path.read_text()
    done = fresh.run("course", "start", "01")
    assert done.returncode == 0 and "Sprint 01 was started before; nothing was changed." in done.stdout
    assert path.read_text() == mine

    done = fresh.run("course", "reset", "01", "1")
    assert done.returncode == 0 and "Exercise 1 of sprint 01 is a stub again." in done.stdout
    copy = fresh.root / done.stdout.strip().rpartition("What you had is in ")[2]
    assert copy.read_text() == mine and "# mine" not in path.read_text()
    done = fresh.run("course", "reset", "01")
    assert done.returncode == 0 and done.stdout.strip() == "Every exercise of sprint 01 is a stub again."


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["start"], 1, "course: name the sprint to start (course start 01), or --from-scratch for all of them."),
        (["start", "abc"], 1, "'abc' does not name a sprint: give its number."),
        (["reset", "01"], 1, "course: You have not started sprint 01 yet: course start 01."),
        (["reset", "01", "18"], 1, "Sprint 01 has no exercise 18; it has exercises 1 to 17."),
        (["hint", "01", "first"], 2, "Invalid value for 'K'"),
        (["solution", "01", "18"], 1, "Sprint 01 has no exercise 18"),
        (["solution", "01", "1"], 1, "course: show the solution before a first attempt? Ask again with --yes."),
        (["check", "01", "1"], 1, "you have not started sprint 01: course start 01."),
        (["check", "02"], 1, "There is no sprint 02"),
    ],
)
def test_bad_input_is_one_clear_message_and_changes_nothing(
    fresh, arguments: list[str], code: int, message: str
) -> None:
    done = fresh.run("course", *arguments)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (fresh.root / "workspace").exists() and not (fresh.root / "progress").exists()


def test_a_file_that_cannot_be_read_is_told_in_one_line_by_every_command(fresh) -> None:
    path = solved(fresh) / "shared" / "practice.py"
    path.write_text("def right(x)\n    return x + 1\n")
    done = fresh.run("course", "reset", "01", "1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "workspace/shared/practice.py cannot be read as Python (line 1: expected ':'), so nothing was" in done.stderr
    done = fresh.run("course", "check", "01", "1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "workspace/shared/practice.py, line 1: expected ':': `def right(x)`" in done.stdout
    done = fresh.run("course", "solution", "01", "1", "--yes")
    assert done.returncode == 0 and "+    return x + 1" in done.stdout


# ---------------------------------------------------------------- hint and solution


def test_three_hints_come_one_at_a_time_and_are_counted(fresh) -> None:
    exercise = load_sprints(fresh.root)[0].exercises[1]
    done = fresh.run("course", "hint", "01", "2", "--again")
    assert done.returncode == 0 and "You have had no hint yet." in done.stdout and exercise.hints[0] not in done.stdout
    assert not (fresh.root / "progress").exists()
    for number, text in enumerate(exercise.hints, 1):
        done = fresh.run("course", "hint", "01", "2")
        assert done.returncode == 0 and f"{number} of 3. {text}" in done.stdout
        assert [other for other in exercise.hints if other in done.stdout] == [text]
        assert record(fresh) == {exercise.key: {"hints": number}}
    done = fresh.run("course", "hint", "01", "2")
    assert done.returncode == 0 and all(text in done.stdout for text in exercise.hints)
    assert "That was the last one. sprints/01_practice/notes/01_wrong.md" in done.stdout
    assert record(fresh) == {exercise.key: {"hints": 3}}


def test_the_solution_asks_before_a_first_attempt(fresh) -> None:
    pty = pytest.importorskip("pty")
    fresh.run("course", "start", "01")
    for answer, shown in ((b"\n", False), (b"\x04", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        variables = {**os.environ, "PYTHONPATH": str(fresh.root), "COLUMNS": "120"}
        command = [sys.executable, "-m", "course", "solution", "01", "1"]
        done = subprocess.run(command, cwd=fresh.root, env=variables, stdin=theirs, capture_output=True, text=True)
        os.close(ours), os.close(theirs)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert "You have not tried Sprint 01, exercise 1 (Write right) yet" in done.stdout
        assert "Show the solution all the same? [y/N]" in done.stdout
        assert ("+    return x + 1" in done.stdout) == shown
        assert record(fresh) == ({"01/right": {"consulted": True}} if shown else {})


def test_after_an_attempt_the_solution_is_a_diff_and_marked_as_consulted(fresh) -> None:
    solved(fresh, wrong="return x + 2")
    done = fresh.run("course", "solution", "01", "2")
    assert done.returncode == 0
    assert "-    return x + 2" in done.stdout and "+    return x + 1" in done.stdout
    assert "--- workspace/shared/practice.py: wrong, yours" in done.stdout
    assert record(fresh) == {"01/wrong": {"consulted": True}}
    write_right = (fresh.root / "workspace" / "shared" / "practice.py").read_text().replace("x + 2", "x + 1")
    (fresh.root / "workspace" / "shared" / "practice.py").write_text(write_right)
    done = fresh.run("course", "solution", "01", "2")
    assert done.stdout.strip() == "Yours and the reference are the same."


def test_looking_after_passing_is_no_help_but_after_a_reset_it_is(fresh) -> None:
    folder, one = solved(fresh), exercises(fresh)[0]
    outcomes.note(one, fresh.root, outcome="passing", code=Workspace(folder, fresh.root).code(one), passed=True)
    fresh.run("course", "solution", "01", "1")
    assert "consulted" not in record(fresh)["01/right"]
    fresh.run("course", "reset", "01", "1")
    assert fresh.run("course", "solution", "01", "1").returncode == 0, "there was an attempt"
    assert record(fresh)["01/right"]["consulted"] is True


# ---------------------------------------------------------------- check


@pytest.fixture(scope="module")
def checked(practice):
    """One check of a sprint in which one exercise is wrong, one a stub, one deleted, one an endless loop."""
    for name in ("workspace", "progress"):
        shutil.rmtree(practice.root / name, ignore_errors=True)
    bodies = {
        "wrong": "return x + 2",
        "stub": "stub",
        "leaves": "raise SystemExit(0)",
        "exits": "import os\nos._exit(0)",
    }
    folder = practice.workspace(practice.root / "workspace", bodies)
    (folder / "shared" / "third.py").write_text("def other(x):\n    return x + 1\n")
    return practice.run("course", "check", "01"), record(practice), outcomes.load(practice.root)[0]["sprints"]


def test_check_judges_every_exercise_by_itself_and_records_it(checked) -> None:
    done, exercises, sprints = checked
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    expected = {name: "passing" for name in ("right", "loop", "after", "crashes", "interrupts", "deep", "asks", "hoards", "chatters", "halts", "second", "fourth")}  # fmt: skip
    expected |= dict.fromkeys(("wrong", "leaves", "exits", "third"), "failing")
    assert {key.removeprefix("01/"): entry["outcome"] for key, entry in exercises.items()} == expected, (
        "a stub has none"
    )
    assert "one more is expected" in exercises["01/wrong"]["message"]
    assert "`third` is gone" in exercises["01/third"]["message"]
    assert "exit code 0" in exercises["01/exits"]["message"]
    milestones = sprints["01_practice"]["milestones"]
    failed = {name for name, entry in milestones.items() if entry["outcome"] != "passed"}
    assert failed == {"wrong", "stub", "leaves", "exits", "third"}


def test_check_prints_the_table_the_first_failure_and_what_to_do(checked) -> None:
    done, _, _ = checked
    assert "12 of 17 milestones reached." in done.stdout
    assert re.search(r"2 +Write wrong +failing +see below", done.stdout)
    assert "\n  AssertionError: one more is expected" in done.stdout
    assert re.search(r"3 +Write stub +stub", done.stdout) and re.search(r"1 +Write right +passing", done.stdout)
    assert re.search(r"Sprint 01, exercise 2, Write wrong \(workspace/shared/practice.py:\d+\)", done.stdout)
    assert "Read sprints/01_practice/notes/01_wrong.md; course hint 01 2;" in done.stdout


def test_check_of_one_exercise_runs_and_records_only_that(fresh) -> None:
    solved(fresh, wrong="return x + 2")
    done = fresh.run("course", "check", "01", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(record(fresh)) == {"01/right"} and outcomes.load(fresh.root)[0]["sprints"] == {}
    assert "Next: exercise" not in done.stdout and "All exercises of sprint 01 are written" in done.stdout
    path = fresh.root / "workspace" / "shared" / "practice.py"
    path.write_text(path.read_text().replace("    return x + 2", "    print('from wrong')\n    return x + 2"))
    done = fresh.run("course", "check", "01", "2")
    assert "from wrong" not in done.stdout and "course check 01 2 --verbose" in " ".join(done.stdout.split())
    assert "from wrong" in fresh.run("course", "check", "01", "2", "--verbose").stdout
    done = fresh.run("course", "check", "01", "18")
    assert done.returncode == 1 and "Sprint 01 has no exercise 18" in done.stderr


def test_an_exercise_is_judged_by_all_its_tests_but_those_behind_one_that_did_not_end(fresh) -> None:
    folder = solved(fresh, loop="while True:\n    x += 1", wrong="return x + 2")
    sprint = load_sprints(fresh.root)[0]
    by_id = {exercise.id: exercise for exercise in sprint.exercises}
    chosen = [dataclasses.replace(by_id[name], milestones=(name, "right")) for name in ("loop", "wrong")]
    found = certify.certify(sprint, Workspace(folder, fresh.root), chosen, fresh.root, limit=0.5)
    loop, wrong = found.verdicts
    assert [loop.standing, wrong.standing] == ["failing", "failing"]
    assert "did not end within 0.5 s: an endless loop? It was in `loop`" in loop.message
    assert "1 failed in" in loop.output and "1 failed, 1 passed in" in wrong.output


def test_check_of_an_unwritten_exercise_sends_to_it_and_not_to_the_first(fresh) -> None:
    fresh.run("course", "start", "01")
    done = fresh.run("course", "check", "01", "2")
    assert "Next: exercise 2, Write wrong" in done.stdout, done.stdout + done.stderr
    write(fresh, "wrong", "return x + 1")
    done = fresh.run("course", "check", "01", "2")  # exercise 1 is a stub as well, and comes after those that follow 2
    assert "Next: exercise 3, Write stub" in done.stdout, done.stdout + done.stderr


def test_check_before_a_start_tests_the_reference_and_records_nothing(fresh) -> None:
    done = fresh.run("course", "check", "01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 of 17 milestones reached." in done.stdout
    assert "You have not started sprint 01: this tests the reference, and records nothing." in done.stdout
    assert not (fresh.root / "progress" / "outcomes.json").exists()


# ---------------------------------------------------------------- in a notebook


def cells(practice, *sources: str, **variables: str) -> list[str]:
    """What each cell prints or raises, in a fresh kernel."""
    import nbformat
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    notebook: nbformat.NotebookNode = new_notebook(cells=[new_code_cell(source) for source in sources])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SHARED_")}
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=300)
    client.resources = {"metadata": {"path": str(practice.root / "sprints")}}
    client.execute(env={**clean, "PYTHONPATH": str(practice.root), "OMP_NUM_THREADS": "1", **variables})
    texts = []
    for cell in notebook.cells:
        outputs = (o.get("text") or f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs)
        texts.append("".join(outputs).strip())
    return texts


def test_in_a_notebook_the_learners_modules_are_imported_and_broken_ones_told_first(fresh) -> None:
    folder = solved(fresh, right="return 'mine'")
    (folder / "shared" / "second.py").write_text("def second(x)\n    return x + 1\n")
    told, mine, failed = cells(
        fresh,
        "%load_ext course",
        "import shared.practice\nprint(shared.practice.right(1))",
        "import shared.second",
    )
    lines = told.splitlines()
    assert lines[0].startswith("framework: yours: fourth (1 of 1 functions written), practice (14 of 14")
    assert "workspace/shared/second.py, line 1: expected ':': `def second(x)`" in told
    assert lines[-1] == "Mend it, restart the kernel, and run `%load_ext course` again."
    assert mine == "mine" and failed.startswith("SyntaxError")


def test_in_a_notebook_what_is_not_written_comes_from_the_reference(fresh) -> None:
    fresh.run("course", "start", "01")
    write(fresh, "right", "return 'mine'")
    code = (
        "from course.extension import activate; print('\\n'.join(activate()))\n"
        "import shared.practice; print(shared.practice.right(1), shared.practice.wrong(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=fresh.root,
        env={**os.environ, "PYTHONPATH": str(fresh.root)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "mine 2", done.stdout + done.stderr
    assert "not written yet, so the reference's: Sprint 01, exercise 2, 3" in done.stdout


def test_in_a_notebook_the_extension_comes_before_the_first_import(fresh) -> None:
    shutil.copytree(fresh.stubs, fresh.root / "stand-by", dirs_exist_ok=True)
    first, _, late = cells(
        fresh,
        "%load_ext course",
        f"import shared, shutil\nshutil.move({str(fresh.root / 'stand-by')!r}, {str(fresh.root / 'workspace')!r})",
        "%reload_ext course",
    )
    assert first == "framework: the reference (you have not started a sprint yet: course start 01)"
    assert "shared is imported already: restart the kernel and run `%load_ext course` in its first cell." in late
    assert "Traceback" not in late


# ---------------------------------------------------------------- the record


def exercises(practice) -> tuple[Exercise, ...]:
    return load_sprints(practice.root)[0].exercises


def test_a_record_of_version_1_is_read_and_kept(fresh) -> None:
    path = outcomes.record_path(fresh.root)
    path.parent.mkdir()
    old = {
        "sprints": {"01_practice": {"checked": "2026-01-01T00:00:00", "milestones": {"right": {"outcome": "passed"}}}}
    }
    for version in ({}, {"version": 1}):
        path.write_text(json.dumps({**version, **old}))
        found, warning = outcomes.load(fresh.root)
        assert warning is None and found == {**old, "version": 2, "exercises": {}}
        assert fresh.run("course", "hint", "01", "1").returncode == 0
        assert json.loads(path.read_text()) == {**old, "version": 2, "exercises": {"01/right": {"hints": 1}}}


def test_a_newer_record_is_refused_and_left_alone(fresh) -> None:
    path = outcomes.record_path(fresh.root)
    path.parent.mkdir()
    text = '{"version": 3, "sprints": {}, "exercises": {}}'
    path.write_text(text)
    with pytest.raises(CourseError, match="newer version"):
        outcomes.load(fresh.root)
    done = fresh.run("course", "hint", "01", "1")
    assert (
        done.returncode == 1 and "progress/outcomes.json was written by a newer version of this course" in done.stderr
    )
    assert path.read_text() == text


@pytest.mark.parametrize(
    "entry", ["null", "3", '{"hints": "many"}', '{"hints": null}', '{"hints": [1]}', '["outcome"]']
)
def test_a_damaged_entry_of_an_exercise_is_set_aside_and_reported(fresh, entry: str) -> None:
    path = outcomes.record_path(fresh.root)
    path.parent.mkdir()
    path.write_text(f'{{"version": 2, "sprints": {{}}, "exercises": {{"01/right": {entry}}}}}')
    found, warning = outcomes.load(fresh.root)
    assert found["exercises"] == {}
    (aside,) = path.parent.glob("outcomes.json.damaged-*")
    assert aside.name in (warning or "")


def test_processes_that_note_at_the_same_time_lose_nothing(fresh) -> None:
    code = (
        "import sys; from pathlib import Path; from course import outcomes; from course.sprints import load_sprints\n"
        "root = Path(sys.argv[1]); mine = load_sprints(root)[0].exercises[int(sys.argv[2]) :: 2]\n"
        "for count in range(1, 6):\n"
        "    for one in mine: outcomes.note(one, root, hints=count)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(fresh.root)}
    command = [sys.executable, "-c", code, str(fresh.root)]
    both = [subprocess.Popen([*command, str(number)], env=variables) for number in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert record(fresh) == {one.key: {"hints": 5} for one in exercises(fresh)}
    assert [path.name for path in (fresh.root / "progress").iterdir()] == ["outcomes.json"]

"""The command line: help, exit codes, messages. Run as a learner runs it, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import outcomes
from course.sprints import ROOT

COMMANDS = ["list", "lab", "run", "check", "progress", "grade", "data", "doctor", "docs", "notebooks", "setup"]


def course(
    *arguments: str, cwd: Path = ROOT, root: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m course …` of the repository at `root`."""
    variables = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", "course", *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture
def clone(repository: Path) -> Path:
    """The small repository with the command, the framework and the catalog inside."""
    ignore = shutil.ignore_patterns("__pycache__", "cache")
    for name in ("course", "shared", "datasets"):
        shutil.copytree(ROOT / name, repository / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", repository)
    return repository


def test_help_lists_every_command() -> None:
    done = course("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("command", [*COMMANDS, "data list", "data fetch", "data verify"])
def test_every_command_has_help(command: str) -> None:
    done = course(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "99"], "There is no sprint 99 in this repository. There are: 01"),
        (["run", "abc"], "'abc' does not name a sprint: give its number."),
        (["check", "99"], "There is no sprint 99"),
        (["lab", "abc"], "'abc' does not name a sprint"),
        (["data", "fetch", "mnits"], "no dataset is called 'mnits'; the catalog has: mnist"),
        (["data", "verify", "mnits"], "no dataset is called 'mnits'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["setup", "--extra", "nonsense"], "There is no extra called nonsense. There are: browser, demo, dev"),
    ],
)
def test_bad_input_is_one_clear_message_and_a_non_zero_exit(arguments: list[str], message: str) -> None:
    done = course(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_it_works_from_any_folder_of_the_repository() -> None:
    done = course("list", cwd=ROOT / "shared" / "data")
    assert done.returncode == 0 and "Setup and basics" in done.stdout


def test_doctor_reports_every_part_and_names_the_slow_blas() -> None:
    done = course("doctor", OMP_NUM_THREADS="1", OPENBLAS_CORETYPE="Haswell")
    for part in ("Python", "Packages", "Memory", "Processor", "BLAS", "Threads", "Numba", "GPU", "Disk", "Data"):
        assert part in done.stdout
    assert "could not be checked" not in done.stdout
    assert "OPENBLAS_CORETYPE=Haswell is set" in done.stdout


def test_data_list_and_verify_show_the_embedded_sets(tmp_path: Path) -> None:
    clean = {"COURSE_CACHE": str(tmp_path), "COURSE_DATA": ""}
    assert "embedded" in course("data", "list", **clean).stdout
    assert course("data", "fetch", "digits", **clean).stdout.strip() == "digits: inside an installed package"
    done = course("data", "verify", **clean)
    assert done.returncode == 0 and "intact" in done.stdout


def test_a_dataset_without_network_is_one_sentence_and_a_non_zero_exit(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    done = course(
        "data",
        "fetch",
        "mnist-5k",
        COURSE_CACHE=str(tmp_path),
        COURSE_DATA="",
        PIP_INDEX_URL=nowhere,
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
        http_proxy=nowhere,
        https_proxy=nowhere,
    )
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr and "$COURSE_DATA" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("*.csv*")) == []


def test_check_records_prints_the_table_and_fails_with_a_failing_milestone(clone: Path) -> None:
    done = course("check", "01", cwd=clone, root=clone)
    assert done.returncode == 1
    assert "1 of 2 milestones reached." in done.stdout and "sum 2" in done.stdout
    record, warning = outcomes.load(clone)
    milestones = record["sprints"]["01_first_things"]["milestones"]
    assert warning is None and milestones["many"]["outcome"] == "failed"
    done = course("progress", cwd=clone, root=clone)
    assert done.returncode == 0 and "1 of 2" in done.stdout


def test_progress_sets_a_damaged_record_aside_and_goes_on(clone: Path) -> None:
    path = outcomes.record_path(clone)
    path.parent.mkdir(exist_ok=True)
    path.write_text("{ half")
    done = course("progress", cwd=clone, root=clone)
    assert done.returncode == 0 and "0 of 2" in done.stdout
    assert "could not be read" in done.stderr and "set aside as progress/outcomes.json.damaged-" in done.stderr
    assert len(list(path.parent.glob("outcomes.json.damaged-*"))) == 1


def test_the_whole_course_without_network_runs_notebooks_then_milestones(clone: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    folder = clone / "sprints" / "01_first_things"
    notebook = folder / "notebooks" / "01_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(1)")]), notebook)
    (folder / "tests" / "test_milestone.py").write_text(
        (folder / "tests" / "test_milestone.py").read_text().replace("[1, 2]", "[1]")
    )
    before = notebook.read_bytes()
    nowhere = "http://127.0.0.1:9"
    offline = {"PIP_INDEX_URL": nowhere, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "COURSE_DATA": ""}
    offline |= {"http_proxy": nowhere, "https_proxy": nowhere, "COURSE_CACHE": str(clone / "cache")}
    done = course("run", cwd=clone, root=clone, **offline)
    assert done.returncode == 0, done.stderr
    assert "Lessons go on with what is inside the installed packages." in done.stdout
    assert "2 of 2 milestones reached." in done.stdout
    assert notebook.read_bytes() == before

    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), notebook)
    done = course("run", "01", cwd=clone, root=clone)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr and "1 of 1 notebooks failed" in done.stderr

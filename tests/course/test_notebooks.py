"""Executing notebooks, and seeing what is wrong with a committed one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course import notebooks
from course.sprints import ROOT, CourseError, all_notebooks


def make(path: Path, *sources: str) -> Path:
    cells = [new_markdown_cell("# Title"), *(new_code_cell(source) for source in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_executing_runs_in_the_root_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ipynb", "import os, sys", "print(os.getcwd()); print(6 * 7)")
    before, done = path.read_bytes(), []
    executed, seconds = notebooks.execute(path, tmp_path, on_cell=done.append)
    assert path.read_bytes() == before
    assert done == [1, 2] and seconds > 0
    assert executed.cells[2].outputs[0].text == f"{tmp_path.resolve()}\n42\n"


def test_writing_stores_outputs_without_machine_paths_and_passes_the_check(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ipynb", "import os, warnings\nprint(os.path.abspath('x'))\nwarnings.warn('careful')")
    executed, _ = notebooks.execute(path, tmp_path)
    notebooks.write_executed(path, executed, tmp_path)
    assert notebooks.problems(path) == []
    text = path.read_text()
    assert str(tmp_path) not in text and "careful" in text
    stored = json.loads(text)
    assert stored["metadata"]["course"]["source_sha256"] == notebooks.source_hash(stored)
    assert "execution" not in stored["cells"][1]["metadata"]


def test_a_progress_bar_is_stored_as_its_last_line(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "for i in range(3):\n"
        "    print(f'\\rstep {i}', end='', file=sys.stderr, flush=True)\n"
        "    time.sleep(0.2)"
    )
    executed, _ = notebooks.execute(make(tmp_path / "a.ipynb", code), tmp_path)
    outputs = executed.cells[1].outputs
    assert [output.text.strip() for output in outputs] == ["step 2"], f"one line is expected, got {outputs}"


def test_a_failing_cell_is_named_with_its_source_and_its_error(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ipynb", "x = 1", "x / 0")
    with pytest.raises(CourseError) as error:
        notebooks.execute(path, tmp_path)
    assert "a.ipynb: cell 3 failed" in str(error.value)
    assert "x / 0" in str(error.value) and "ZeroDivisionError" in str(error.value)


def test_a_kernel_that_dies_is_an_error(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ipynb", "import os; os._exit(3)")
    with pytest.raises(CourseError, match="cell 2 failed"):
        notebooks.execute(path, tmp_path)


def executed_notebook(path: Path, *outputs: dict, count: int | None = 1) -> Path:
    cell = new_code_cell("1 + 1", execution_count=count, outputs=[nbformat.from_dict(o) for o in outputs])
    notebook = new_notebook(cells=[cell])
    notebook.metadata["course"] = {"source_sha256": notebooks.source_hash(notebook)}
    nbformat.write(notebook, path)
    return path


def stream(text: str) -> dict:
    return new_output("stream", name="stdout", text=text)


def test_a_fresh_notebook_has_no_problems(tmp_path: Path) -> None:
    picture = new_output("display_data", data={"image/png": "/home/aGVsbG8=", "text/plain": "<Figure>"})
    picture["metadata"]["image/png"] = {"alt": "a curve that falls"}
    assert notebooks.problems(executed_notebook(tmp_path / "a.ipynb", stream("2\n"), picture)) == []


@pytest.mark.parametrize(
    "text",
    ["/home/ada/x.py", f"in /{'tmp'}/ipykernel_1/2.py", "/mnt/x", "C:\\Users\\ada", "/usr/lib/python3.11/os.py"],
)
def test_a_path_of_one_machine_is_found(tmp_path: Path, text: str) -> None:
    (problem,) = notebooks.problems(executed_notebook(tmp_path / "a.ipynb", stream(text)))
    assert "path of one machine" in problem


@pytest.mark.parametrize("text", ["sprints/01/x.py", "a/tmp/b", "1/home/2", "https://example.org/home/x", "x / home"])
def test_other_text_with_slashes_is_left_alone(tmp_path: Path, text: str) -> None:
    assert notebooks.problems(executed_notebook(tmp_path / "a.ipynb", stream(text))) == []


def test_changed_code_a_skipped_cell_and_an_error_are_found(tmp_path: Path) -> None:
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    path = executed_notebook(tmp_path / "a.ipynb", error, count=None)
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    found = " ".join(notebooks.problems(path))
    assert "changed after it was executed" in found
    assert "cell 1 was not executed" in found
    assert "ends in an error: ValueError: no" in found


def test_a_broken_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("{")
    assert "not a readable notebook" in notebooks.problems(path)[0]
    with pytest.raises(CourseError, match="a.ipynb is not a readable notebook"):
        notebooks.execute(path)


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.name)
def test_the_committed_notebook_is_fresh(path: Path) -> None:
    assert notebooks.problems(path) == [], path.relative_to(ROOT)


@pytest.mark.skipif(os.name == "nt", reason="looks at processes as POSIX has them")
@pytest.mark.parametrize("last", ["x = 1", "1 / 0"])
def test_no_kernel_is_left_behind(tmp_path: Path, last: str) -> None:
    written = tmp_path / "pid"
    path = make(tmp_path / "a.ipynb", f"import os; open({str(written)!r}, 'w').write(str(os.getpid()))", last)
    with contextlib.suppress(CourseError):
        notebooks.execute(path, tmp_path)
    waited_for(lambda: not is_alive(int(written.read_text())), seconds=10)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def notebook_with_an_image(path: Path, below: str) -> Path:
    image = new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    cell = new_code_cell("plt.show()", execution_count=1, outputs=[image])
    nbformat.write(new_notebook(cells=[cell, new_markdown_cell(below)]), path)
    return path


def test_the_caption_below_an_image_becomes_its_alternative_text(tmp_path: Path) -> None:
    path = notebook_with_an_image(tmp_path / "a.ipynb", "*Loss against `step`.\nWhat to see: it falls.*\n\nMore text.")
    notebooks.write_executed(path, notebooks.read(path), tmp_path)
    stored = json.loads(path.read_text())
    assert (
        stored["cells"][0]["outputs"][0]["metadata"]["image/png"]["alt"] == "Loss against step. What to see: it falls."
    )
    assert notebooks.problems(path) == []


@pytest.mark.parametrize("below", ["No caption here.", "**Bold** is no caption.", "* a list item"])
def test_an_image_without_a_caption_is_a_problem(tmp_path: Path, below: str) -> None:
    path = notebook_with_an_image(tmp_path / "a.ipynb", below)
    notebooks.write_executed(path, notebooks.read(path), tmp_path)
    assert any("no alternative text" in problem for problem in notebooks.problems(path))


def test_ctrl_c_stops_the_kernel_too(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    source = f"import os, pathlib, time\npathlib.Path({str(written)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    path = make(tmp_path / "a.ipynb", source)
    code = f"from pathlib import Path; from course.notebooks import execute; execute(Path({str(path)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        waited_for(lambda: written.exists() and written.read_text())
        runner.send_signal(signal.SIGINT)
        assert runner.wait(timeout=120) != 0
        waited_for(lambda: not is_alive(int(written.read_text())))
    finally:
        runner.kill()


def waited_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie nobody waited for is no longer alive
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it is gone by now, or this system has no such file
        return not Path("/proc/self/stat").exists()


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in all_notebooks(ROOT)])
def test_a_notebook_finds_files_from_any_folder(path: Path) -> None:
    """`course run` starts kernels at the repository's root, JupyterLab in the notebook's own folder."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line for source in code for line in source.splitlines()]
    relative = re.compile(r"""(?<!ROOT / )["'](sprints|shared|course|datasets|benchmarks)/""")
    assert [line for line in lines if relative.search(line)] == [], 'write ROOT / "sprints/…", ROOT of course.sprints'

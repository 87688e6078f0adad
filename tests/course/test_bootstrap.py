"""Set-up: what it needs, when it does nothing, what it says when something is missing. Nothing is downloaded here."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from course import bootstrap
from course.constraints import TOGETHER
from course.sprints import ROOT

PYPROJECT = '[project]\nname = "x"\n[project.optional-dependencies]\ndev = []\nparity = []\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pyproject.toml, where installing is only written down, and pip is an empty file."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)

    def make(root: Path) -> None:
        command = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(root / ".venv")]
        subprocess.run(command, check=True)
        folder = next(root.glob(".venv/**/site-packages"))
        (folder / "pip.py").touch()

    def install(python: Path, extras: list[str], root: Path) -> None:
        with open(root / "calls.txt", "a") as file:
            file.write(",".join(extras) + "\n")

    monkeypatch.setattr(bootstrap, "_make_environment", make)
    monkeypatch.setattr(bootstrap, "_install", install)
    return tmp_path


def installed(project: Path) -> list[str]:
    path = project / "calls.txt"
    return path.read_text().split() if path.exists() else []


def test_the_first_run_installs_and_the_second_does_not(project: Path) -> None:
    assert bootstrap.setup({"dev"}, project) is True
    assert bootstrap.setup({"dev"}, project) is False
    assert installed(project) == ["dev"]


def test_a_new_extra_is_added_to_the_ones_there_and_stays(project: Path) -> None:
    bootstrap.setup({"dev"}, project)
    bootstrap.setup({"dev", "parity"}, project)
    assert bootstrap.setup({"dev"}, project) is False
    assert installed(project) == ["dev", "dev,parity"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_install_again(project: Path, name: str) -> None:
    bootstrap.setup({"dev"}, project)
    (project / name).write_text(PYPROJECT + "# changed\n")
    assert bootstrap.setup({"dev"}, project) is True


def test_a_moved_folder_gets_a_new_environment(project: Path) -> None:
    bootstrap.setup({"dev"}, project)
    moved = project.parent / "moved"
    project.rename(moved)
    assert bootstrap.installed_extras(moved) is None
    assert bootstrap.setup({"dev"}, moved) is True
    found = subprocess.run(
        [bootstrap.venv_python(moved), "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).resolve() == (moved / ".venv").resolve()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"python": 3}'])
def test_a_damaged_stamp_installs_again(project: Path, text: str) -> None:
    bootstrap.setup({"dev"}, project)
    (project / ".venv" / "course-setup.json").write_text(text)
    assert bootstrap.setup({"dev"}, project) is True


def test_a_failed_installation_leaves_no_stamp(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise bootstrap.SetupError("pip could not install")

    monkeypatch.setattr(bootstrap, "_install", broken)
    with pytest.raises(bootstrap.SetupError):
        bootstrap.setup({"dev"}, project)
    assert bootstrap.installed_extras(project) is None


def test_an_unknown_extra_is_named(project: Path) -> None:
    with pytest.raises(bootstrap.SetupError, match="no extra called nonsense. There are: dev, parity"):
        bootstrap.setup({"nonsense"}, project)


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_venv_module_names_the_package(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = bootstrap.importlib.util.find_spec
    monkeypatch.setattr(
        bootstrap.importlib.util, "find_spec", lambda name, *a: None if name == module else find(name, *a)
    )
    with pytest.raises(bootstrap.SetupError) as error:
        bootstrap.check_python()
    assert f"sudo apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in str(error.value)


def test_an_old_python_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NEEDED", (99, 0))
    with pytest.raises(bootstrap.SetupError, match=r"Python 99.0 or newer is needed.*make course PYTHON="):
        bootstrap.check_python()


def test_no_package_index_is_reported_with_pips_own_words(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT + '[build-system]\nrequires = ["not-there-at-all"]\n')
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / ".venv")], check=True)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    code = (
        "import sys; from pathlib import Path; from course import bootstrap\n"
        "try: bootstrap.setup({'dev'}, Path(sys.argv[1]))\n"
        "except bootstrap.SetupError as error: print(error); sys.exit(7)"
    )
    environment = {**os.environ, **nowhere, "PIP_FIND_LINKS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 7, done.stderr
    assert "pip could not install the packages" in done.stdout and "not-there-at-all" in done.stdout
    assert not (tmp_path / ".venv" / "course-setup.json").exists()


def test_setup_needs_nothing_but_the_standard_library() -> None:
    """`-S` leaves out site-packages: whatever setup imports must be there all the same."""
    code = (
        "import runpy, sys; sys.argv = ['course', 'setup', '--help']; runpy.run_module('course', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--extra" in done.stdout


def test_another_command_without_packages_says_what_to_do(tmp_path: Path) -> None:
    for name in ("__init__.py", "__main__.py", "bootstrap.py"):
        target = tmp_path / "course" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / "course" / name).read_bytes())
    command = [sys.executable, "-S", "-m", "course", "list"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "`make course`, or `python -m course setup`" in done.stderr


def test_the_constraints_hold_exact_versions_and_no_address() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert [line for line in lines if "==" not in line or "/" in line or "@" in line] == []
    assert "torch==2.13.0" in lines


def test_every_requirement_has_a_constraint() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        requirement.partition(">")[0].partition("[")[0].lower().replace("_", "-")
        for requirement in [*project["dependencies"], *(r for name in TOGETHER for r in extras[name])]
    }
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted - pinned == set()


def test_bootstrap_imports_no_third_party_module() -> None:
    for name in ("bootstrap.py", "__main__.py"):
        tree = ast.parse((ROOT / "course" / name).read_text())
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert {entry.partition(".")[0] for entry in names} <= set(sys.stdlib_module_names)


def test_the_stamp_says_what_was_installed(project: Path) -> None:
    bootstrap.setup({"dev"}, project)
    stamp = json.loads((project / ".venv" / "course-setup.json").read_text())
    assert stamp["extras"] == ["dev"] and set(stamp) == {"python", "extras", "fingerprint"}

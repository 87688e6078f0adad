"""Makes constraints.txt: the exact versions that pip resolves today, for each Python the course supports.

    python -m course.constraints            # rewrites constraints.txt

pip resolves from the wheels' metadata and installs nothing. Names and versions are written, never an address.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from course.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
TOGETHER = ("dev", "demo", "browser")  # extras that one set of versions has to serve
HEADER = """\
# Exact versions with which the course is known to work, for Python {first} to {last}; other Pythons take what
# pyproject.toml's lower bounds allow. Made by `python -m course.constraints`: do not edit.
"""


def requirements(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """(what the default set-up and the demo install, exact pins of the other extras).

    The demo's packages narrow those of the others (Gradio's Pillow), so that they are resolved together.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    optional = [r for name, rs in extras.items() if name not in TOGETHER for r in rs if "==" in r]
    return [*project["dependencies"], *(r for name in TOGETHER for r in extras[name])], optional


def resolve(python: str, wanted: list[str]) -> dict[str, str]:
    """{package: version} as pip resolves `wanted` for this minor version of Python on this platform."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", python]
        command += ["--target", folder, "--report", "-", *wanted]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"pip could not resolve for Python {python}:\n{result.stderr.strip()}")
    found = {}
    for item in json.loads(result.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = item["metadata"]["version"].partition("+")[0]
    return found


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line per package where every Python takes the same version, else one per Python.

    >>> lines({"3.11": {"a": "1", "b": "1"}, "3.12": {"a": "1", "b": "2"}})
    ['a==1 ; python_version < "3.13"', 'b==1 ; python_version == "3.11"', 'b==2 ; python_version == "3.12"']
    """
    major, minor = list(resolved)[-1].split(".")
    newest = f"{major}.{int(minor) + 1}"
    found = []
    for name in sorted({name for packages in resolved.values() for name in packages}):
        versions = {python: packages[name] for python, packages in resolved.items() if name in packages}
        if len(versions) == len(resolved) and len(set(versions.values())) == 1:
            found.append(f'{name}=={versions[list(resolved)[0]]} ; python_version < "{newest}"')
        else:
            found += [f'{name}=={version} ; python_version == "{python}"' for python, version in versions.items()]
    return found


def main() -> None:
    """Resolve for every Python and rewrite constraints.txt."""
    wanted, optional = requirements()
    resolved = {}
    for python in PYTHONS:
        print(f"resolving for Python {python} …", flush=True)
        resolved[python] = resolve(python, wanted)
    text = HEADER.format(first=PYTHONS[0], last=PYTHONS[-1]) + "\n".join([*lines(resolved), *optional]) + "\n"
    write_atomically(ROOT / "constraints.txt", text)
    print(f"constraints.txt: {text.count(chr(10)) - HEADER.count(chr(10))} lines")


if __name__ == "__main__":
    main()

"""`python -m course setup`: a virtual environment in .venv with everything the course needs.

Standard library only: this runs before anything is installed. A second run installs nothing:
.venv/course-setup.json remembers what was installed, from which pyproject.toml and constraints.txt,
where, and for which Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (3, 11)
DEFAULT_EXTRAS = ("dev",)
WARM_UP = "import os; from shared.arrays.kernels import warm_up; warm_up(min(4, os.cpu_count() or 1))"


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


def venv_python(root: Path = ROOT) -> Path:
    """The interpreter of the repository's own environment (whether or not it exists yet)."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path, version: str) -> str:
    """Changes whenever an existing environment no longer fits: other requirements, Python, or folder."""
    digest = hashlib.sha256(f"{version}\n{root.resolve()}\n".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        path = root / name
        digest.update(path.read_bytes() if path.exists() else b"absent")
    return digest.hexdigest()


def installed_extras(root: Path = ROOT) -> set[str] | None:
    """The extras in an environment that is up to date; None where there is no such environment."""
    try:
        stamp = json.loads((root / ".venv" / "course-setup.json").read_text(encoding="utf-8"))
        version = stamp["python"]
        fresh = stamp["fingerprint"] == fingerprint(root, version)
        return set(stamp["extras"]) if fresh and _version(venv_python(root)) == version else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_extras(root: Path = ROOT) -> set[str]:
    """The names under [project.optional-dependencies]."""
    import tomllib

    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return set(table["project"]["optional-dependencies"])


def check_python() -> None:
    """Raise SetupError, with the remedy, where this Python cannot make the environment."""
    if sys.version_info < NEEDED:
        raise SetupError(
            f"Python {NEEDED[0]}.{NEEDED[1]} or newer is needed; this is {sys.version.split()[0]}. "
            "Install one and name it: `make course PYTHON=python3.12`, or `python3.12 -m course setup`."
        )
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise SetupError(
            f"This Python has no module `{missing[0]}`, which makes virtual environments. "
            f"On Debian and Ubuntu it is a package of its own: `sudo apt-get install {package}`. "
            "Then run the same command again."
        )


def setup(extras: set[str], root: Path = ROOT) -> bool:
    """Make or complete .venv so that it has `extras`. Returns whether anything had to be installed."""
    check_python()
    unknown = extras - known_extras(root)
    if unknown:
        known = ", ".join(sorted(known_extras(root)))
        raise SetupError(f"There is no extra called {', '.join(sorted(unknown))}. There are: {known}.")
    have = installed_extras(root)
    if have is not None and extras <= have:
        print("set-up: .venv is up to date, nothing to install.", flush=True)
        return False
    stamp = root / ".venv" / "course-setup.json"
    stamp.unlink(missing_ok=True)
    python = venv_python(root)
    started = time.monotonic()
    if not _usable(root):
        with _Ticker("making the environment .venv"):
            _make_environment(root)
    wanted = sorted(extras | (have or set()))
    _install(python, wanted, root)
    version = _version(python)
    content = {"python": version, "extras": wanted, "fingerprint": fingerprint(root, version or "")}
    stamp.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"set-up: done in {time.monotonic() - started:.0f} s.", flush=True)
    return True


def _version(python: Path) -> str | None:
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _usable(root: Path) -> bool:
    """Whether .venv has a Python that is new enough, has pip, and was made where it is now."""
    python = venv_python(root)
    code = "import pip, sys; print(sys.version_info[:2] >= (3, 11), sys.prefix)"
    try:
        found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if found.returncode != 0 or not found.stdout.startswith("True "):
        return False
    return Path(found.stdout.strip()[5:]).resolve() == (root / ".venv").resolve()


def _make_environment(root: Path) -> None:
    folder = root / ".venv"
    if folder.exists():
        shutil.rmtree(folder)
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise SetupError(f"`python -m venv` failed:\n{(made.stdout + made.stderr).strip()}")


def _install(python: Path, extras: list[str], root: Path) -> None:
    log_path = root / ".venv" / "course-setup.log"
    target = f".[{','.join(extras)}]" if extras else "."
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-e", target]
    if (root / "constraints.txt").exists():
        command += ["-c", "constraints.txt"]
    with _Ticker("installing packages") as ticker, open(log_path, "w", encoding="utf-8") as log:
        pip = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert pip.stdout is not None
        seen: set[str] = set()
        try:
            for line in pip.stdout:
                log.write(line)
                if match := re.match(r"\s*Collecting ([\w.\-]+)", line):
                    seen.add(match[1])
                    ticker.say(f"collecting packages: {len(seen)}, {match[1]}")
                elif line.startswith("Installing collected packages"):
                    ticker.say(f"unpacking {line.count(',') + 1} packages")
            code = pip.wait()
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if code != 0:
        lines = log_path.read_text(encoding="utf-8").strip().splitlines()
        errors = [line.strip() for line in lines if line.strip().startswith("ERROR")] or lines[-8:]
        raise SetupError(
            "pip could not install the packages:\n  "
            + "\n  ".join(errors)
            + "\nIs the package index reachable? The whole log is in .venv/course-setup.log; "
            "running the same command again goes on from here."
        )
    with _Ticker("compiling the kernels"):
        # Saves time at their first call; should it fail, they are compiled, or replaced by their formulas, then.
        subprocess.run([str(python), "-c", WARM_UP], cwd=root, capture_output=True)


class _Ticker:
    """Shows what is being done and for how long: one moving line on a terminal, a few lines elsewhere."""

    def __init__(self, text: str) -> None:
        self.text, self.live = text, sys.stdout.isatty()
        self.started, self.stop = time.monotonic(), threading.Event()
        self.said = ""

    def say(self, text: str) -> None:
        self.text = text

    def __enter__(self) -> _Ticker:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        if self.live:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()

    def _run(self) -> None:
        interval = 0.2 if self.live else 5.0
        while True:
            seconds = int(time.monotonic() - self.started)
            line = f"set-up: {self.text} … {seconds} s"
            if self.live:
                sys.stdout.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
                sys.stdout.flush()
            elif self.text != self.said:
                self.said = self.text
                print(line, flush=True)
            if self.stop.wait(interval):
                return


def main(arguments: list[str]) -> int:
    """The `setup` command."""
    parser = argparse.ArgumentParser(
        prog="python -m course setup",
        description="Make or update .venv with everything the course needs. A second run installs nothing.",
    )
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="NAME",
        help="also install an extra of pyproject.toml, e.g. parity (PyTorch) or gpu; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        setup({*DEFAULT_EXTRAS, *options.extra})
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: stopped; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0

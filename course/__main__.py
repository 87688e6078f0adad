"""`python -m course`: `setup` needs only the standard library, every other command what setup installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys


def main() -> int:
    """Run setup here, or any other command, in .venv when this Python lacks the packages."""
    from course import bootstrap

    if sys.argv[1:2] == ["setup"]:
        return bootstrap.main(sys.argv[2:])
    if importlib.util.find_spec("typer") and importlib.util.find_spec("rich"):
        from course import cli

        return cli.main()
    python = bootstrap.venv_python()
    if not python.exists() or sys.prefix == str(bootstrap.ROOT / ".venv"):
        print(
            "course: the packages are not installed yet: `make course`, or `python -m course setup`.",
            file=sys.stderr,
        )
        return 1
    return subprocess.run([str(python), "-m", "course", *sys.argv[1:]], cwd=None).returncode


if __name__ == "__main__":
    sys.exit(main())

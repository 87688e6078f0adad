"""Measures what each sprint takes on this machine, into course/cost.json for the README: `python -m course.cost`."""

from __future__ import annotations

import datetime
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from course.environment import environment
from course.files import write_atomically
from course.sprints import ROOT, Sprint, load_sprints


def machine() -> str:
    """The processor in words."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def measure(sprint: Sprint) -> dict[str, Any]:
    """Seconds of the notebooks and of the tests, and the peak memory of the largest process (Linux and macOS)."""
    import resource  # not on Windows

    row: dict[str, Any] = {"sprint": f"{sprint.label} {sprint.title}"}
    for name, arguments in (
        ("notebooks", ["course", "run", sprint.label]),
        ("tests", ["pytest", "-q", str(sprint.folder / "tests")]),
    ):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True)
        row[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    row["peak_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6)
    return row


def main() -> None:
    """Measure every sprint in a process of its own, so that each has its own peak."""
    if sys.argv[1:]:
        (sprint,) = (sprint for sprint in load_sprints() if sprint.label == sys.argv[1])
        Path(sys.argv[2]).write_text(json.dumps(measure(sprint)))
        return
    rows = []
    for sprint in load_sprints():
        result = ROOT / "course" / f".cost-{sprint.label}.json"
        try:
            command = [sys.executable, "-m", "course.cost", sprint.label, str(result)]
            subprocess.run(command, cwd=ROOT, check=True)
            rows.append(json.loads(result.read_text()))
        finally:
            result.unlink(missing_ok=True)
    report = {
        "machine": machine(),
        "threads": int(environment()["OMP_NUM_THREADS"]),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "sprints": rows,
    }
    write_atomically(ROOT / "course" / "cost.json", json.dumps(report, indent=2) + "\n")
    print("written: course/cost.json")


if __name__ == "__main__":
    main()

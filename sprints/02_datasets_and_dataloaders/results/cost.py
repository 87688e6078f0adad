"""What the sprint costs: seconds for its notebooks and its tests, and the memory of all its processes.

python sprints/02_datasets_and_dataloaders/results/cost.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import psutil

from course.results import Results

SPRINT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "notebooks": [sys.executable, "-m", "course", "run", "02"],
    "tests": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SPRINT / "tests")],
}


def megabytes(process: psutil.Process) -> float:
    """What the process and all its descendants hold in memory now."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:  # ended since it was listed
            continue
    return total / 2**20


def measure(command: list[str]) -> tuple[float, float]:
    """(seconds, largest MB seen) of a command; RuntimeError where it fails."""
    began, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, cwd=SPRINT.parents[1], stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            peak = max(peak, megabytes(psutil.Process(running.pid)))
            time.sleep(0.1)
    if running.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: run it alone to see why")
    return time.perf_counter() - began, peak


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    results = Results(__file__)
    for name, command in COMMANDS.items():
        seconds, peak = measure(command)
        results.metric(f"{name}_seconds", seconds, unit="s")
        results.metric(f"{name}_peak_memory", peak, unit="MB")
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:24} {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()

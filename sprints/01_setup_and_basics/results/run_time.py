"""The sprint's README: how long its notebooks and tests run here, and how much memory the largest process takes."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from course import notebooks
from course.results import Results

SPRINT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run each notebook in a fresh kernel, then the milestone tests, and record seconds and mebibytes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = Results(__file__, seed=0)
    total = 0.0
    for path in sorted((SPRINT / "notebooks").glob("*.ipynb")):
        seconds = notebooks.execute(path)[1]
        total += seconds
        print(f"{path.name}: {seconds:.1f} s")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pytest", "-q", str(SPRINT / "tests")], check=True, cwd=SPRINT.parent.parent)
    tests = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # Linux counts KiB
    print(f"notebooks {total:.1f} s, tests {tests:.1f} s, largest process {peak:.0f} MiB")
    results.metric("notebooks_seconds", total, unit="s")
    results.metric("tests_seconds", tests, unit="s")
    results.metric("peak_memory_mib", peak, unit="MiB")
    results.save()


if __name__ == "__main__":
    main()

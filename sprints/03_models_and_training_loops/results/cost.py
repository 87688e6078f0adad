"""What the sprint costs: seconds for its notebooks and its tests, and the memory of the largest process.

python sprints/03_models_and_training_loops/results/cost.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from course import notebooks
from course.results import Results

SPRINT = Path(__file__).resolve().parents[1]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    results = Results(__file__)
    total = 0.0
    for path in sorted((SPRINT / "notebooks").glob("*.ipynb")):
        seconds = notebooks.execute(path)[1]
        total += seconds
        print(f"{path.name}: {seconds:.1f} s")
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SPRINT / "tests")]
    subprocess.run(command, check=True, cwd=SPRINT.parents[1], capture_output=True)
    tests = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # Linux counts KiB
    print(f"notebooks {total:.1f} s, tests {tests:.1f} s, largest process {peak:.0f} MiB")
    results.metric("notebooks_seconds", round(total, 1), unit="s")
    results.metric("tests_seconds", round(tests, 1), unit="s")
    results.metric("peak_memory", round(peak), unit="MiB")
    results.save()


if __name__ == "__main__":
    main()

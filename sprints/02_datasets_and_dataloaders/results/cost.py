"""What the sprint costs: seconds for its notebooks and its tests, and the largest process's memory.

python sprints/02_datasets_and_dataloaders/results/cost.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from course.results import Results

SPRINT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "notebooks": [sys.executable, "-m", "course", "run", "02"],
    "tests": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SPRINT / "tests")],
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    results = Results(__file__)
    for name, command in COMMANDS.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, cwd=SPRINT.parents[1], capture_output=True)
        results.metric(f"{name}_seconds", time.perf_counter() - began, unit="s")
        kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        results.metric(f"{name}_peak_memory", kilobytes / 1024, unit="MB")
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:24} {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()

"""The environment of the processes the course starts: notebook kernels, tests, JupyterLab."""

from __future__ import annotations

import os
from pathlib import Path

# The lessons' networks are small: two threads gain little on them, and lose much where another program wants a core
# (a notebook of sprint 03 beside one busy process on two cores: over 120 s with two threads, 7 s with one).
THREADS = {"OMP_NUM_THREADS": "1"}


def environment(*folders: Path, **more: str) -> dict[str, str]:
    """This process's variables with `folders` in front of PYTHONPATH, and one thread unless the user said otherwise.

    >>> environment(Path("a"), COURSE_REPORT="r")["COURSE_REPORT"]
    'r'
    """
    paths = dict.fromkeys([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**THREADS, **os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}

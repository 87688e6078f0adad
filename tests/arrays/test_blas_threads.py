"""What OpenBLAS's threads do while they wait is set before the library is loaded, and not against the user."""

import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys

class Look:
    def find_spec(name, path, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_THREAD_TIMEOUT"))

sys.meta_path.insert(0, Look)
import shared
"""


@pytest.mark.parametrize(("chosen", "found"), [(None, "18"), ("26", "26")])
def test_the_value_is_there_when_numpy_is_loaded(chosen, found):
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    environment |= {"OPENBLAS_THREAD_TIMEOUT": chosen} if chosen else {}
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [found]

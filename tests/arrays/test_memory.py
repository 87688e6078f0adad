"""Freed memory is kept for the next step, unless the user has chosen otherwise."""

import os
import subprocess
import sys

import pytest

# Fresh pages that thirty arrays of 12 MB, each freed before the next, are spread over.
FAULTS = """
import resource, shared, numpy as np
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): np.ones(3_000_000, np.float32)
before = faults()
for _ in range(30): np.ones(3_000_000, np.float32)
print(faults() - before)
"""
PAGES = 30 * 12_000_000 // (2 << 20)  # if each array came in fresh huge pages: the fewest faults there could be


def _run(code, **variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _glibc():
    return sys.platform.startswith("linux") and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")


needs_glibc = pytest.mark.skipif(not _glibc(), reason="only glibc's malloc can be told to keep memory")


@needs_glibc
def test_arrays_of_a_training_loop_reuse_the_memory_of_the_last_step():
    kept = int(_run(FAULTS))
    assert kept < PAGES // 4, f"{kept} fresh pages for thirty arrays of 12 MB, each freed before the next"
    mapped = int(_run(FAULTS, MALLOC_MMAP_THRESHOLD_="131072"))
    assert mapped >= PAGES, f"{mapped} fresh pages where every array is mapped anew: this test measures nothing"


ASK = "from shared.arrays.memory import keep_freed_memory; print(keep_freed_memory())"


@needs_glibc
@pytest.mark.parametrize(
    "variables",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_what_the_user_chose_is_left_alone(variables):
    assert _run(ASK, **variables) == "False"
    assert _run(ASK) == "True"

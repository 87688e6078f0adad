"""For every test: threads, randomness of Hypothesis, and the tests that need a GPU."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator

import pytest

pytest_plugins = ["course.testing"]  # whose code is tested, decided before anything imports `shared`

# They need PyTorch and are run by hand; pytest would import them in search of doctests.
collect_ignore_glob = ["tests/*/make_*.py"]

# Where workers share the tests, a file at a time, these come first, so that at the end none waits long for another.
LONGEST = ("tests/course/test_bugs.py", "tests/course/test_laws.py")


def pytest_configure() -> None:
    """Import `shared` as a whole; let Hypothesis draw the same examples on every run, however slow the machine."""
    # A shell that starts pytest in the background has it ignore Ctrl-C, and so would every process a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Collecting doctests, pytest would import a single file of the package by itself, before the package ties its knot.
    import shared  # noqa: F401

    try:
        from hypothesis import settings
    except ImportError:
        return
    settings.register_profile("course", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("course")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage once behind the tests instead of many times among them, and never look at them again.

    They are a million objects, which every full collection would walk through, and a forked process would copy.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that names no seed draws the same on every run, whatever ran before it. PyTorch gets one thread.

    Two OpenMP runtimes in one process disturb each other.
    """
    if seed := getattr(sys.modules.get("shared"), "manual_seed", None):
        seed(20261121)
    if torch := sys.modules.get("torch"):
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none, and say why; leave out long campaigns unless asked for.

    Workers (`make test` has two) begin with what takes longest.
    """
    if not os.environ.get("COURSE_STRESS"):
        long = [item for item in items if item.get_closest_marker("stress")]
        items[:] = [item for item in items if not item.get_closest_marker("stress")]
        config.hook.pytest_deselected(items=long)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        places = {config.rootpath / file: place for place, file in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(LONGEST)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from shared.arrays.device import cuda_is_available

    if not cuda_is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and CuPy"))

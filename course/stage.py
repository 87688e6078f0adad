"""A pytest plugin: tests are collected once and run for one classic bug after another, each test in a fork of its own.

Used by course/warm.py; see there. A bug's function is put in place and the tests are run as any others: it runs only in
the fork that course/isolation.py makes for each test, so that nothing of it is left for the next one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from . import recorder
from .forking import forked
from .testing import SETTING, adopt

Ready = tuple[Any, list[pytest.Item], FunctionType, CodeType]  # a job, its tests, a function, its code in this job


class Stage:
    """Runs jobs in place of the tests that were collected, shared out to `processes` forks of this process.

    The keys of these jobs are written to `taken` first. `tell` is called in the forks: with a job, what its tests did,
    and the seconds they took.
    """

    def __init__(
        self, jobs: list[Any], taken: Path, processes: int, tell: Callable[[Any, dict[str, Any], float], None]
    ):
        self.jobs, self.taken, self.processes, self.tell = jobs, taken, processes, tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all jobs."""
        if session.testsfailed:  # a file that cannot be imported: pytest ends with that
            return None
        ready: list[Ready] = []
        for job in self.jobs:
            items = [item for test in dict.fromkeys(job.tests) for item in session.items if _is(item, test)]
            prepared = job.graft.prepared()
            if items and prepared is not None:
                ready.append((job, items, *prepared))
        self.taken.write_text(json.dumps([job.key for job, *_ in ready]), encoding="utf-8")
        gc.collect()
        gc.freeze()
        lanes: list[int] = []
        try:
            for number in range(min(self.processes, len(ready))):
                lanes.append(self._lane(session.config, ready[number :: self.processes]))
            while lanes:
                _, status = os.waitpid(lanes[0], 0)
                del lanes[0]
                if status:
                    raise RuntimeError(f"a process that ran tests ended with status {status}")
        finally:
            for lane in lanes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(lane, signal.SIGTERM)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(lane, 0)
        return True

    def _lane(self, config: pytest.Config, ready: list[Ready]) -> int:
        """Starts a process that runs these jobs one after another, and returns its number."""

        def run() -> int:
            for job, items, function, changed in ready:
                # A net under this process, which a machine that stands still for a while must not fall into; the tests'
                # own processes have their limits.
                signal.alarm(10 * math.ceil(job.limit))
                started = time.monotonic()
                right, function.__code__ = function.__code__, changed
                adopt(config, Path(job.variables["SHARED_WORKSPACE"]), job.until)
                for item in items:
                    config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                    if config.stash[SETTING].told:
                        break
                function.__code__ = right
                self.tell(job, recorder.taken(), time.monotonic() - started)
            return 0

        return forked(run)


def _is(item: pytest.Item, test: str) -> bool:
    """True for a test of this node id, with or without parameters."""
    return item.nodeid == test or item.nodeid.startswith(f"{test}[")
